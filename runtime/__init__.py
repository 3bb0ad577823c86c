"""Answer questions about a 3D scene and a clip from a bundle; runs without torch.

>>> from stllm_edge.runtime import Session, load_clip, load_scene
>>> session = Session(bundle)
>>> scene, clip = load_scene(scene_folder), load_clip(video_folder)
>>> view = session.look(scene, clip, frames=4)
>>> answer = session.answer(view, "Where is the cup?", max_new_tokens=4)
>>> pieces = list(answer)  # text, piece by piece as it is generated
>>> answer.prompt_tokens, len(answer.token_ids)
(272, 4)

`Session.ask` does both steps at once. Errors that a user can mend are `StllmError`s with a one-line message.
"""

import importlib
from typing import Any

__all__ = [
    "Answer",
    "BadBundle",
    "BadInput",
    "Bundle",
    "DoesNotFit",
    "MissingDependency",
    "Options",
    "Session",
    "StllmError",
    "View",
    "load_clip",
    "load_scene",
]

# loaded on first use, so that importing the package, and every --help, stays fast
_MODULES = {
    "Answer": "answer",
    "BadBundle": "errors",
    "BadInput": "errors",
    "Bundle": "bundle.manifest",
    "DoesNotFit": "errors",
    "MissingDependency": "errors",
    "Options": "options",
    "Session": "session",
    "StllmError": "errors",
    "View": "answer",
    "load_clip": "inputs.video",
    "load_scene": "inputs.scene",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
