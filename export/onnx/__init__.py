"""The encoders as ONNX graphs: traced, expanded for each provider, in FP32 and FP16.

In goes a part of the model filled with weights, out come graphs that share one weights file.
"""
