"""Calibration of quantised models: from real inputs to the ranges that graphs are quantised with.

Nothing needs it yet: FP16 takes its ranges from the built-in sample.
"""
