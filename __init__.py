"""ST-LLM on the edge: export a trained checkpoint to a bundle, and answer questions from it on a device."""
