"""nerfstudio's `transforms.json`, which instant-ngp and others write too: camera-to-world poses with OpenGL axes."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .cameras import Cameras, image_stem
from .lens import BENDING, Lens
from .poses import RawPoses, to_matrix

__all__ = ["is_nerfstudio", "read_nerfstudio"]

LOG = logging.getLogger(__name__)
STRAIGHT = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")
LENS_KEYS = ("camera_model", "is_fisheye", "camera_angle_x", "w", "h", "fl_x", "fl_y", "cx", "cy", *BENDING)


def is_nerfstudio(content: Any) -> bool:
    """Whether JSON is of this form."""
    return isinstance(content, dict) and isinstance(content.get("frames"), list)


def read_nerfstudio(content: dict[str, Any], source: str, cloud: Path | None) -> Cameras:
    """Poses of the frames by name, and their lenses.

    What was applied to the poses (`applied_transform`, `applied_scale`) is undone, so that they are where the cameras
    were, unless the scene's cloud is the file that `ply_file_path` names, to which the same was applied.

    Args:
        content: `frames` with `file_path` and `transform_matrix`; `w`, `h`, `fl_x` and so on beside or inside them.
        source: for messages.
        cloud: the scene's file or folder, if known.

    Raises:
        BadInput: something of it is missing or of another kind.
    """
    matrices: dict[str, np.ndarray] = {}
    lenses: dict[str, Lens] = {}
    shared = {key: content[key] for key in LENS_KEYS if key in content}
    known: dict[str, Lens | None] = {}
    for place, frame in enumerate(content["frames"]):
        where = f"{source}: frame {place}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise BadInput(f"{where} lacks file_path")
        name = image_stem(frame["file_path"].removeprefix("./"))
        matrix = loose_matrix(frame.get("transform_matrix"), f"{where} ({name}): transform_matrix")
        if name in matrices:
            raise BadInput(f"{source}: two frames are named {name}")
        matrices[name] = matrix
        given = shared | {key: frame[key] for key in LENS_KEYS if key in frame}
        # thousands of frames have one lens
        if (key := repr(given)) not in known:
            known[key] = read_lens(given, where)
        if (lens := known[key]) is not None:
            lenses[name] = lens
    if not matrices:
        raise BadInput(f"{source}: holds no frames")
    undo(matrices, content, source, cloud)
    return Cameras(source, RawPoses(matrices, source, "c2w-opengl"), lenses)


def loose_matrix(values: Any, source: str) -> np.ndarray:
    """[4, 4] float64 of 4x4 or 3x4 numbers, which may be infinite; raises BadInput for others."""
    try:
        matrix = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{source}: not a matrix of numbers ({error})") from None
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4):
        raise BadInput(f"{source}: expected 4x4 numbers, found {list(matrix.shape)}")
    return matrix


def undo(matrices: dict[str, np.ndarray], content: dict[str, Any], source: str, cloud: Path | None) -> None:
    """Take what was applied to the poses off again, in place; raises BadInput where it is no transform."""
    if "applied_transform" not in content and "applied_scale" not in content:
        return
    own = content.get("ply_file_path")
    if cloud is not None and isinstance(own, str) and cloud.name == Path(own).name:
        LOG.info("%s: its cloud %s is taken as transformed like its poses", source, cloud.name)
        return
    transform = loose_matrix(content.get("applied_transform", np.eye(4)), f"{source}: applied_transform")
    to_matrix(transform, (4, 4), f"{source}: applied_transform")
    factor = number(content, "applied_scale", source, 1.0)
    if not factor > 0 or abs(np.linalg.det(transform)) < 1e-9:
        raise BadInput(f"{source}: applied_transform or applied_scale cannot be undone")
    inverse = np.linalg.inv(transform)
    # a scale inside the transform is one of the world, not of the cameras' axes
    inner = float(np.cbrt(abs(np.linalg.det(transform[:3, :3]))))
    for name, matrix in matrices.items():
        moved = matrix.copy()
        moved[:3, 3] /= factor
        moved = inverse @ moved
        moved[:3, :3] *= inner
        matrices[name] = moved
    LOG.info("%s: its applied_transform and applied_scale are undone, as for a cloud of the original world", source)


def read_lens(given: dict[str, Any], where: str) -> Lens | None:
    """The lens of a frame; None where it says nothing, or an angle without the image's size."""
    model = given.get("camera_model", "OPENCV")
    if model not in (*STRAIGHT, *FISHEYE):
        raise BadInput(f"{where}: camera_model {model!r} is not read; known are {', '.join((*STRAIGHT, *FISHEYE))}")
    size = None
    if "w" in given and "h" in given:
        width, height = (number(given, key, where, 0.0) for key in ("w", "h"))
        if not (0 < width <= 1e6 and 0 < height <= 1e6):
            raise BadInput(f"{where}: w and h are {width:g} and {height:g}, expected pixels")
        size = (round(width), round(height))
    fx = number(given, "fl_x", where, math.nan)
    if math.isnan(fx) and "camera_angle_x" in given and size is not None:
        fx = size[0] / 2 / math.tan(min(max(number(given, "camera_angle_x", where, 1.0), 1e-3), 3.1) / 2)
    if math.isnan(fx):
        return None
    middle = (size[0] / 2, size[1] / 2) if size else (math.nan, math.nan)
    cx, cy = (number(given, key, where, default) for key, default in zip(("cx", "cy"), middle, strict=True))
    bending = tuple(number(given, key, where, 0.0) for key in BENDING)
    fisheye = model in FISHEYE or given.get("is_fisheye") is True
    try:
        return Lens(fx, number(given, "fl_y", where, fx), cx, cy, size, bending, fisheye)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def number(given: dict[str, Any], key: str, where: str, default: float) -> float:
    """The number under a key; raises BadInput for anything else."""
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise BadInput(f"{where}: has {key} {value!r}, expected a number")
    return float(value)
