"""EuRoC's recordings: states of a body by nanoseconds, and where on it a camera sits, in its `sensor.yaml`."""

import logging
import re
from pathlib import Path

import numpy as np

from ...errors import BadInput
from .cameras import Cameras
from .lens import Lens, colmap_lens
from .numbers import decode, parse_rows, read_bytes
from .poses import RawPoses, to_pose
from .trajectories import States, parse_table, read_states

__all__ = ["euroc_cameras", "find_recording", "read_euroc"]

LOG = logging.getLogger(__name__)
SENSOR, STATES = "sensor.yaml", "data.csv"
STATE_FOLDERS = ("state_groundtruth_estimate0", "vicon0", "mocap0")
MODELS = {
    "none": "PINHOLE",
    "radial-tangential": "OPENCV",
    "radtan": "OPENCV",
    "plumb_bob": "OPENCV",
    "equidistant": "OPENCV_FISHEYE",
}


def find_recording(folder: Path) -> tuple[Path, Path] | None:
    """The file of states and the folder of the camera that a folder stands for; None where it is no recording.

    It may be the recording, its `mav0`, the folder of the states, or that of a camera.
    """
    for root in (folder, folder / "mav0", folder.parent):
        files = [root / name / STATES for name in STATE_FOLDERS if (root / name / STATES).is_file()]
        if files and (root != folder.parent or (folder / SENSOR).is_file() or folder.name in STATE_FOLDERS):
            chosen = folder if folder.name.startswith("cam") and (folder / SENSOR).is_file() else first_camera(root)
            return files[0], chosen
    return None


def first_camera(root: Path) -> Path:
    """The first camera of a recording; raises BadInput where there is none."""
    found = sorted(file.parent for file in root.glob(f"cam*/{SENSOR}"))
    if not found:
        raise BadInput(
            f"cameras {root}: its states are those of a body, and no cam0/{SENSOR} says where a camera sits on it"
        )
    if len(found) > 1:
        LOG.info("cameras %s: %s of %d cameras; give --cameras another's folder", root, found[0].name, len(found))
    return found[0]


def read_euroc(file: Path, camera: Path) -> Cameras:
    """A camera of a recording; raises BadInput where a file is not as EuRoC writes it."""
    source = f"cameras {file}"
    first, rows = parse_table(decode(read_bytes(file, source)), source)
    if rows.shape[1] < 8:
        raise BadInput(f"{source}: expected a stamp, three of place and four of a quaternion, found {rows.shape[1]}")
    return euroc_cameras(read_states(first, rows)._replace(body=True), file, camera)


def euroc_cameras(states: States, file: Path, camera: Path) -> Cameras:
    """The camera's poses from the states of the body and from where both sit on it."""
    source = f"cameras {file} with {camera.name}/{SENSOR}"
    if not len(states.times):
        raise BadInput(f"{source}: no pose has a time stamp")
    sensor = read_text(camera / SENSOR)
    mounted = mount(sensor, camera / SENSOR)
    own = file.parent / SENSOR
    if own.is_file():
        mounted = np.linalg.inv(mount(read_text(own), own)) @ mounted
    with np.errstate(all="ignore"):
        moved = states.matrices @ mounted
    matrices = dict(zip(map(str, range(len(moved))), moved, strict=True))
    lenses = dict.fromkeys(matrices, lens(sensor, camera / SENSOR))
    return Cameras(source, RawPoses(matrices, source, "c2w"), lenses, states.times)


def read_text(file: Path) -> str:
    return decode(read_bytes(file, f"cameras {file}", 1_000_000))


def mount(text: str, file: Path) -> np.ndarray:
    """Where a sensor sits on the body, [4, 4]."""
    found = re.search(r"^T_BS:[^\[]*?data:\s*\[([^\]]*)\]", text, re.MULTILINE)
    source = f"cameras {file}: T_BS"
    try:
        numbers = [number for row in parse_rows(found[1]) for number in row] if found else []
    except ValueError as error:
        raise BadInput(f"{source}: not a matrix of numbers ({error})") from None
    if len(numbers) != 16:
        raise BadInput(f"{source}: expected data of 16 numbers, found {len(numbers)}")
    return to_pose(np.reshape(numbers, (4, 4)), source)


def lens(text: str, file: Path) -> Lens:
    """The camera's lens."""
    source = f"cameras {file}"
    model = named(text, "distortion_model") or "none"
    if (named(text, "camera_model") or "pinhole") != "pinhole" or model not in MODELS:
        raise BadInput(f"{source}: a {named(text, 'camera_model')} lens with {model} distortion is not read")
    given = {key: listed(text, key, source) for key in ("intrinsics", "distortion_coefficients", "resolution")}
    if len(given["intrinsics"]) != 4 or len(given["resolution"]) != 2:
        raise BadInput(f"{source}: expected four intrinsics and a resolution of two, as EuRoC writes them")
    try:
        size = (int(given["resolution"][0]), int(given["resolution"][1]))
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{source}: resolution ({error})") from None
    bending = given["distortion_coefficients"] if MODELS[model] != "PINHOLE" else []
    return colmap_lens(MODELS[model], size, [*given["intrinsics"], *bending], source)


def named(text: str, key: str) -> str | None:
    found = re.search(rf"^{key}:\s*([\w-]+)", text, re.MULTILINE)
    return found[1] if found else None


def listed(text: str, key: str, source: str) -> list[float]:
    """The numbers of a list in brackets; empty where there is none."""
    found = re.search(rf"^{key}:\s*\[([^\]]*)\]", text, re.MULTILINE)
    try:
        return [number for row in parse_rows(found[1]) for number in row] if found else []
    except ValueError as error:
        raise BadInput(f"{source}: {key} ({error})") from None
