"""What a checkpoint means: files, tensors, configuration, sizes, tokenizer.

In goes a folder of the trainer's or of an adapter, out come tensors by name, a `Geometry` and a complete inventory.
"""
