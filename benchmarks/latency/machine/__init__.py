"""The machine under a benchmark: which board in which mode, and its sensors while it works.

In goes the tree of files that the kernel shows, out come facts and readings; what is not there is None, never zero.
"""
