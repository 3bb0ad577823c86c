"""Calibration of the encoders: what real inputs do to them, and what each number format costs.

In go a checkpoint and recordings, out come a calibration set, and what each block of the encoders can bear.
"""
