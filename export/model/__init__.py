"""ST-LLM in plain PyTorch, one file a part: what is traced, and what bundles are compared with.

In go frames, voxels, rays and token ids as tensors, out come video tokens, point features, prefix tokens and logits.
"""
