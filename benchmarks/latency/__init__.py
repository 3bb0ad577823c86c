"""How long a question takes on this device: each stage on the clock, with what the machine was like meanwhile.

In go bundles and a workload, out come rows that anybody can load, compare and repeat.
"""
