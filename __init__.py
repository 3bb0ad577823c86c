"""ST-LLM on the edge: export a trained checkpoint to a bundle, and answer questions from it on a device.

In go a checkpoint, a scene and a clip, out come a bundle and answers; `runtime` is what a robot imports.
"""
