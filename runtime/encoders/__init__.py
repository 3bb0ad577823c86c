"""The encoders at work: ONNX Runtime or TensorRT, here or in processes of their own, and where they run.

In go arrays by the names of a graph's inputs, out comes the array that it computes.
"""
