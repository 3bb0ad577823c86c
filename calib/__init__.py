"""Calibration of quantised models: from real inputs to the ranges that graphs are quantised with.

The language model's importance matrix is collected here; FP16 takes its ranges from the built-in sample.
"""
