"""The bundle, one definition of its format for both sides: manifest, writer, digests, sizes, the table of stages.

In goes a folder, out come checked paths and sizes; or parts go in, and a whole bundle or nothing comes out.
"""
