"""A small ST-LLM trained on the small world: every part of the released model, scaled down."""
