"""The encoders in INT8: what each product becomes, by what real inputs do to it, and whether the whole may be used.

In goes a calibration set and a traced encoder, out come INT8 graphs, with a reason for each product that is not INT8.
"""
