"""What a model will need on a device, before there is one: memory and latency by stage, and how both grow.

In go sizes from a bundle or from a checkpoint's headers, and figures of boards; out come tables of what fits.
"""
