"""Answer questions about a 3D scene and a clip from a bundle; runs without torch.

>>> from stllm_edge.runtime import Session, load_clip, load_scene
>>> session = Session(bundle)
>>> scene, clip = load_scene(scene_folder), load_clip(video_folder)
>>> view = session.look(scene, clip, frames=4)
>>> answer = session.answer(view, "Where is the cup?", max_new_tokens=4)
>>> pieces = list(answer)  # text, piece by piece as it is generated
>>> answer.prompt_tokens, len(answer.token_ids)
(272, 4)

`Session.ask` does both steps at once. A robot's own arrays need no files: a cloud, and frames with poses and times.

>>> import numpy as np
>>> from stllm_edge.runtime import Clip, Scene
>>> draw = np.random.default_rng(0)
>>> points, colours = draw.uniform(-1, 1, (500, 3)) + [0, 0, 3], draw.integers(0, 256, (500, 3), np.uint8)
>>> scene = Scene.of(points, colours, intrinsics=[[500, 0, 320], [0, 500, 240], [0, 0, 1]])
>>> frames = draw.integers(0, 256, (8, 480, 640, 3), np.uint8)  # or a list, or an iterator
>>> clip = Clip.of(frames, poses=[np.eye(4)] * 8, times=[0.1 * place for place in range(8)])
>>> session.look(scene, clip, frames=4).selection.indices
(0, 2, 4, 7)

Errors that a user can mend are `StllmError`s with a one-line message.
"""

import importlib
from typing import Any

__all__ = [
    "Answer",
    "BadBundle",
    "BadInput",
    "BagChoices",
    "Bundle",
    "Cancelled",
    "Clip",
    "Conversation",
    "DoesNotFit",
    "LiveView",
    "MissingDependency",
    "Options",
    "Sampling",
    "Scene",
    "Session",
    "StllmError",
    "View",
    "load_clip",
    "load_recording",
    "load_scene",
]

# loaded on first use, so that importing the package, and every --help, stays fast
_MODULES = {
    "Answer": "answer",
    "BadBundle": "errors",
    "BadInput": "errors",
    "BagChoices": "inputs.recordings.choices",
    "Bundle": "bundle.manifest",
    "Cancelled": "errors",
    "Clip": "inputs.clip",
    "Conversation": "dialogue.conversation",
    "DoesNotFit": "errors",
    "MissingDependency": "errors",
    "LiveView": "dialogue.live",
    "Options": "options",
    "Sampling": "llm.sampling",
    "Scene": "inputs.scene",
    "Session": "session",
    "StllmError": "errors",
    "View": "answer",
    "load_clip": "inputs.clip",
    "load_recording": "inputs.recordings.reading",
    "load_scene": "inputs.scene",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
