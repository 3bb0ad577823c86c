"""Calibration of quantised models. Nothing needs it yet: FP16 takes its ranges from the built-in sample."""
