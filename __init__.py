"""ST-LLM on the edge: export a trained checkpoint to a bundle, and answer questions from it on a device.

In go a checkpoint, a scene and a clip, out come a bundle and answers; `runtime` is what a robot imports.
"""

import os

# Read as ONNX Runtime loads, in this process and in all that it starts: otherwise it looks up a server and writes an
# identifier of the device and a store of events into the user's cache.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
