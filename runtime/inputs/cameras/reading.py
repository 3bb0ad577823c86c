"""Which of the formats a file or folder of cameras is of, and what it says."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .cameras import Cameras
from .colmap import is_colmap, read_colmap
from .epic import is_epic, read_epic
from .euroc import STATES, euroc_cameras, find_recording, first_camera, read_euroc
from .files import load_poses
from .nerfstudio import is_nerfstudio, loose_matrix, read_nerfstudio
from .numbers import decode, read_bytes
from .poses import RawPoses, require_convention
from .trajectories import TUM_COLUMNS, matrices_in_order, parse_table, read_states, tum_cameras

__all__ = ["load_cameras"]

LOG = logging.getLogger(__name__)
# where COLMAP and those that call it put models, below the folder that a user names
MODELS = ("", "sparse", "0", "sparse/0", "colmap/sparse/0", "dense/sparse")
COLMAP_FILES = ("cameras.bin", "images.bin", "cameras.txt", "images.txt")
KNOWN = (
    "a COLMAP model, EPIC-Fields JSON, nerfstudio's transforms.json, a TUM or EuRoC trajectory, or poses of 3x4 or "
    "4x4 numbers in one file or many"
)
OWN_CONVENTION = "says itself how its poses are meant; leave out --pose-convention"


def load_cameras(path: Path | str, *, pose_convention: str = "c2w", cloud: Path | None = None) -> Cameras:
    """Read cameras from a file or folder, whichever of the formats it is of.

    Args:
        path: see `docs/inputs.md`.
        pose_convention: how poses are meant in formats that do not say, one of `POSE_CONVENTIONS`.
        cloud: the scene, which tells in which world a `transforms.json` is meant.

    Raises:
        BadInput: it is of no known format, or damaged.
    """
    path = Path(path)
    require_convention(pose_convention)
    if path.is_dir():
        cameras = read_folder(path, pose_convention, cloud)
    elif path.name in COLMAP_FILES and is_colmap(path.parent):
        cameras = own(read_colmap(path.parent), pose_convention)
    else:
        cameras = read_file(path, pose_convention, cloud)
    count = f"{len(cameras.poses)} poses" + (f", {len(set(cameras.lenses.values()))} lenses" if cameras.lenses else "")
    LOG.info("%s: %s", cameras.source, count)
    return cameras


def own(cameras: Cameras, convention: str) -> Cameras:
    """Cameras of a format with a convention of its own; raises BadInput where another was asked for."""
    if convention != "c2w":
        raise BadInput(f"--pose-convention {convention}: {cameras.source} {OWN_CONVENTION}")
    return cameras


def read_folder(folder: Path, convention: str, cloud: Path | None) -> Cameras:
    """The one source of cameras in a folder."""
    for below in MODELS:
        if is_colmap(folder / below):
            beside = sorted((folder / below).parent.glob("*")) if below.endswith("0") else []
            if len(models := [model for model in beside if is_colmap(model)]) > 1:
                raise BadInput(f"cameras {folder}: holds {len(models)} COLMAP models; give one, like {models[0]}")
            return own(read_colmap(folder / below), convention)
    if (recording := find_recording(folder)) is not None:
        return own(read_euroc(*recording), convention)
    for name in ("transforms.json", "groundtruth.txt"):
        if (folder / name).is_file():
            return read_file(folder / name, convention, cloud)
    try:
        poses = load_poses(folder, convention)
    except BadInput:
        raise BadInput(f"cameras {folder}: holds none; expected {KNOWN}") from None
    return Cameras(f"cameras {folder}", poses)


def read_file(file: Path, convention: str, cloud: Path | None) -> Cameras:
    """The cameras of one file."""
    source = f"cameras {file}"
    text = decode(read_bytes(file, source))
    if text.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            if text.lstrip()[:1] == "{":
                raise BadInput(f"{source}: not JSON ({error})") from None
        else:
            return read_json(content, source, convention, cloud)
    first, rows = parse_table(text, source)
    if rows.shape[1] < TUM_COLUMNS or rows.shape[1] in (12, 16):
        return matrices_in_order(rows, source, convention)
    states = read_states(first, rows)
    if states.body:
        root = file.parent.parent if file.name == STATES else file.parent
        return own(euroc_cameras(states, file, first_camera(root)), convention)
    if rows.shape[1] != TUM_COLUMNS:
        raise BadInput(f"{source}: rows of {rows.shape[1]} numbers are no poses; expected {KNOWN}")
    return tum_cameras(states, source, convention)


def read_json(content: Any, source: str, convention: str, cloud: Path | None) -> Cameras:
    """Cameras of parsed JSON."""
    if is_nerfstudio(content):
        return own(read_nerfstudio(content, source, cloud), convention)
    if is_epic(content):
        return own(read_epic(content, source), convention)
    if isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        matrices = {name: matrix_of(value, f"{source}: {name}") for name, value in content.items()}
        return Cameras(source, RawPoses(matrices, source, convention))
    if isinstance(content, list) and content and isinstance(content[0], list):
        if len(content) in (3, 4) and all(isinstance(row, list) and len(row) == 4 for row in content):
            content = content if isinstance(content[0][0], list) else [content]
        listed = {str(place): matrix_of(value, f"{source}: pose {place}") for place, value in enumerate(content)}
        return Cameras(source, RawPoses(listed, source, convention), ordered=True)
    raise BadInput(f"{source}: JSON of another kind; expected {KNOWN}")


def matrix_of(values: Any, source: str) -> np.ndarray:
    """[4, 4] numbers of a matrix, or of its 12 or 16 numbers in one list."""
    if isinstance(values, list) and len(values) in (12, 16) and not any(isinstance(value, list) for value in values):
        values = [values[place : place + 4] for place in range(0, len(values), 4)]
    return loose_matrix(values, source)
