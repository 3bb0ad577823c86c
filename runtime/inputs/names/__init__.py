"""Names of frames and poses: their order, and the numbers or times that they tell.

Names in, their reading out; where two ways to read them give different orders, an error that states both.
"""
