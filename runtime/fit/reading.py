"""How poses, coordinates and intrinsics are meant: what a user says of them, and arrays read that way."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadInput
from ..inputs.cameras import AUTO, BODY, FLIP_YZ, OPTICAL_IN_BODY
from ..inputs.cameras.intrinsics import parse_size
from ..inputs.scene import Scene
from ..inputs.selection import Selection
from .intrinsics import of_frames

__all__ = ["Reading", "common_origin", "meant", "read_as"]

LOG = logging.getLogger(__name__)
# --scale and --intrinsics-of that change nothing, and say so
METRES = (1.0, 1.0)
# --intrinsics-of a K in shares of the image
SHARES = (1, 1)
# widths over heights that differ by less are one shape, rounded to pixels
SAME_SHAPE = 0.01


@dataclass(frozen=True)
class Reading:
    """What a user says of coordinates and intrinsics; what is said is taken as true, the rest is questioned.

    Attributes:
        scale: metres a unit, of the cloud and of the poses; None where nothing is said.
        frame: width and height of the frames that the intrinsics are of; None where nothing is said.
        auto: options whose value the inputs decide.
    """

    scale: tuple[float, float] | None = None
    frame: tuple[int, int] | None = None
    auto: frozenset[str] = frozenset()

    @classmethod
    def of(cls, scale: str | None = None, intrinsics_of: str | None = None) -> "Reading":
        """From the words of `--scale` and `--intrinsics-of`; raises BadInput for others than they know."""
        given = {"--scale": scale, "--intrinsics-of": intrinsics_of}
        return cls(
            scale=parse_scale(scale) if scale not in (None, AUTO) else None,
            frame=None if intrinsics_of is None or intrinsics_of == AUTO else parse_size(intrinsics_of),
            auto=frozenset(option for option, value in given.items() if value == AUTO),
        )


def parse_scale(text: str | None) -> tuple[float, float]:
    """Metres a unit of cloud and poses, from one number for both or two."""
    try:
        numbers = [float(part) for part in str(text).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0 < number < float("inf") for number in numbers):
        raise BadInput(f"--scale {text}: expected metres a unit, as 0.001, or of cloud and poses, as 0.001,1, or auto")
    return numbers[0], numbers[-1]


def meant(poses: np.ndarray, given: str, convention: str) -> np.ndarray:
    """Poses [T, 4, 4] that were read by one convention as they are by another, camera-to-world with OpenCV axes."""
    if given == convention:
        return poses
    raw = poses @ np.linalg.inv(axes_of(given))
    raw = np.linalg.inv(raw) if given.startswith("w2c") else raw
    read = np.linalg.inv(raw) if convention.startswith("w2c") else raw
    return read @ axes_of(convention)


def axes_of(convention: str) -> np.ndarray:
    """OpenCV's axes [4, 4] in those of a convention."""
    return FLIP_YZ if convention.endswith("opengl") else OPTICAL_IN_BODY if convention == BODY else np.eye(4)


def common_origin(scene: Scene, selection: Selection) -> tuple[Scene, Selection]:
    """Scene and selection about the files' origin again where the scene's offset is not that of the poses too.

    It is taken off for maps, where both are far out. Of a cloud in other units than the poses it is none.
    """
    places = selection.poses[:, :3, 3] + scene.offset
    if np.linalg.norm(places, axis=1).max() > np.linalg.norm(scene.offset) / 2:
        return scene, selection
    poses = selection.poses.copy()
    poses[:, :3, 3] = places
    points = (scene.points + scene.offset).astype(np.float32)
    return replace(scene, points=points, offset=np.zeros(3)), replace(selection, poses=poses)


def read_as(scene: Scene, selection: Selection, reading: Reading) -> tuple[Scene, Selection]:
    """Scene and selection in metres and with intrinsics of the frames, as a user says that they are meant."""
    if reading.frame is not None:
        (wide, high), (width, height) = reading.frame, selection.clip.size
        if reading.frame != SHARES and abs(width * high / (height * wide) - 1) > SAME_SHAPE:
            LOG.warning(
                "--intrinsics-of %dx%d: another shape than the frames' %dx%d, which are taken as squeezed, not cropped",
                *(wide, high, width, height),
            )
        scene = replace(scene, intrinsics=of_frames(scene.intrinsics, reading.frame, (width, height)))
    if reading.scale not in (None, METRES):
        cloud, places = reading.scale
        poses = selection.poses.copy()
        # the offset is in the cloud's units, and both are scaled about the files' origin
        poses[:, :3, 3] = (poses[:, :3, 3] + scene.offset) * places - scene.offset * cloud
        scene = replace(
            scene, points=(scene.points * np.float64(cloud)).astype(np.float32), offset=scene.offset * cloud
        )
        selection = replace(selection, poses=poses)
    return scene, selection
