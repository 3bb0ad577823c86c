"""From a trained checkpoint to a bundle: the server's side, with PyTorch.

In goes a folder as the trainer saved it, out come ONNX graphs, GGUF files and TensorRT engines in one bundle, and a
comparison of each with the PyTorch model.
"""
