"""What a user has: point clouds, poses, intrinsics, frames, from files or from memory.

In go files or arrays, out come a `Scene` and a `Clip`, or one line that says what is wrong with them.
"""
