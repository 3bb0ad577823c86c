"""Number formats of the encoders: what a calibration set is chosen from, and precisions of a bundle side by side.

In go recordings or a bundle, out come candidates for a set, or rows of time, size, memory and error.
"""
