"""Scene, poses, intrinsics and frames held against each other, before anything expensive.

In goes what was read, out come how it is best read, what speaks against it with the option that mends it, a picture.
"""
