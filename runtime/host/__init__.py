"""Host mathematics, bit for bit as the authors' model computes it: voxels, kernel maps, rays, pixels, bfloat16.

In go points, poses and frames as NumPy arrays, out come the inputs of the encoders.
"""
