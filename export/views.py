"""Which scene and clip a bundle is compared on, as a user chooses."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import BadInput

if TYPE_CHECKING:
    from ..runtime.inputs.clip import Clip
    from ..runtime.inputs.scene import Scene

__all__ = ["Views"]


@dataclass(frozen=True)
class Views:
    """Files to compare on, with what they do not say; fields as the options of `stllm-run`.

    Attributes:
        scene: scene folder or point cloud; None, and no video, for the built-in sample.
        video: folder of frames or video file.
        poses: folder of poses, if not in the scene's.
        intrinsics: file of intrinsics, if not in the scene's folder.
        pose_convention: how poses are meant.
        fps: frames a second, if the clip does not say.
        video_seconds: length, if the clip does not say.
        first_frame: number of the first frame.
    """

    scene: Path | None = None
    video: Path | None = None
    poses: Path | None = None
    intrinsics: Path | None = None
    pose_convention: str = "c2w"
    fps: float | None = None
    video_seconds: float | None = None
    first_frame: int = 0

    @contextmanager
    def open(self, voxel_size: float) -> Iterator[tuple["Scene", "Clip"]]:
        """Scene and clip, whose frames can be read inside; the built-in sample is made for voxels of this size.

        Raises:
            BadInput: only one of the two is given, an option is for files that are not, or a file cannot be read.
        """
        # not before: options are read without NumPy
        from ..runtime.inputs.clip import load_clip
        from ..runtime.inputs.scene import load_scene
        from .sample import write_sample

        if self.scene is not None and self.video is not None:
            scene = load_scene(
                self.scene, poses=self.poses, intrinsics=self.intrinsics, pose_convention=self.pose_convention
            )
            seconds = self.video_seconds
            yield scene, load_clip(self.video, fps=self.fps, seconds=seconds, first_frame=self.first_frame)
        elif self != Views():
            raise BadInput("--scene and --video go together; give both, or no view at all for the built-in sample")
        else:
            with tempfile.TemporaryDirectory() as folder:
                sample = write_sample(Path(folder), voxel_size)
                yield load_scene(sample[0]), load_clip(sample[1])
