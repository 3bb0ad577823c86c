"""Which scene and clip a bundle is compared on: a user's own, or the built-in sample."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.errors import BadInput
from ..runtime.inputs.clip import Clip, load_clip
from ..runtime.inputs.scene import Scene, load_scene
from ..runtime.options import Recording
from ..runtime.request import read
from .sample import write_sample

__all__ = ["BUILT_IN", "opened"]

BUILT_IN = Recording()


@contextmanager
def opened(recording: Recording, voxel_size: float) -> Iterator[tuple[Scene, Clip]]:
    """Scene and clip, whose frames can be read inside; the built-in sample is made for voxels of this size.

    Raises:
        BadInput: only one of the two is given, an option is for files that are not, or a file cannot be read.
    """
    if recording.scene is not None and recording.video is not None:
        yield read(recording)
    elif recording != BUILT_IN:
        raise BadInput("--scene and --video go together; give both, or no view at all for the built-in sample")
    else:
        with tempfile.TemporaryDirectory() as folder:
            sample = write_sample(Path(folder), voxel_size)
            yield load_scene(sample[0]), load_clip(sample[1])
