"""ST-LLM in plain PyTorch, one file a part; parameter names are those of the authors' checkpoints."""
