"""A recording, written in every format that cameras come in."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stllm_edge.runtime.inputs.writing import write_matrix, write_poses

FLIP = np.diag([1.0, -1, -1, 1])
# the first of EPIC's names, and nanoseconds of EuRoC's clock
STAMPS = [1_403_636_579_763_555_584 + 50_000_000 * place for place in range(6)]
MOUNT = np.array([[0.0, -1, 0, -0.02], [1, 0, 0, -0.06], [0, 0, 1, 0.01], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Recording:
    """Frames of 64x48 in a folder, with a camera-to-world pose each, and intrinsics; stems are set by the format."""

    root: Path
    stems: tuple[str, ...]
    poses: Mapping[str, np.ndarray]
    intrinsics: np.ndarray

    @property
    def video(self) -> Path:
        return self.root / "video"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file below the recording's folder."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Of a rotation, real part first, by the eigenvector of its symmetric form."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    form = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(form)[1][:, -1]


def words(values: object) -> str:
    return " ".join(f"{value:.17g}" for value in np.ravel(values))


def w2c(pose: np.ndarray) -> list[float]:
    """Quaternion and translation as COLMAP writes them."""
    inverse = np.linalg.inv(pose)
    return [*quaternion(inverse[:3, :3]), *inverse[:3, 3]]


def folder(made: Recording) -> Path:
    write_poses(made.root / "poses", made.poses)
    return made.root / "poses"


def colmap_text(made: Recording, cameras: str = "1 PINHOLE 64 48 50 52 31 25", points: bool = True) -> Path:
    images = ["# Image list with two lines of data per image:"]
    for number, (stem, pose) in enumerate(made.poses.items()):
        images.append(f"{number + 1} {words(w2c(pose))} 1 {stem}.png")
        images += ["1.5 2.5 -1 3.5 4.5 7" if number % 2 else ""] if points else []
    made.write("sparse/0/cameras.txt", f"# Camera list\n{cameras}\n")
    made.write("sparse/0/points3D.txt", "")
    return made.write("sparse/0/images.txt", "\n".join(images) + "\n").parent


def colmap_binary(made: Recording) -> Path:
    made.write("model/cameras.bin", struct.pack("<QiiQQ4d", 1, 3, 1, 64, 48, 50, 52, 31, 25))
    images = struct.pack("<Q", len(made.poses))
    for number, (stem, pose) in enumerate(made.poses.items()):
        images += struct.pack("<i7di", number + 1, *w2c(pose), 3) + f"{stem}.png".encode() + b"\0"
        images += struct.pack("<Q", number) + struct.pack("<ddq", 1.5, 2.5, -1) * number
    return made.write("model/images.bin", images).parent


def epic(made: Recording) -> Path:
    camera = {"id": 1, "model": "OPENCV", "width": 64, "height": 48, "params": [50, 52, 31, 25, 0, 0, 0, 0]}
    images = {f"{stem}.jpg": w2c(pose) for stem, pose in made.poses.items()}
    return made.write("P01_11.json", json.dumps({"camera": camera, "images": images, "points": []}))


def epic_list(made: Recording) -> Path:
    content = json.loads(epic(made).read_text())
    content["images"] = [[*pose, name] for name, pose in content["images"].items()]
    return made.write("P01_11_list.json", json.dumps(content))


def nerfstudio(made: Recording, applied: np.ndarray | None = None, scale: float = 1.0, **more: object) -> Path:
    frames = []
    for stem, pose in made.poses.items():
        moved = (np.eye(4) if applied is None else applied) @ pose @ FLIP
        moved[:3, 3] *= scale
        frames.append({"file_path": f"./images/{stem}.png", "transform_matrix": moved.tolist()})
    lens = {"w": 64, "h": 48, "fl_x": 50.0, "fl_y": 52.0, "cx": 31.0, "cy": 25.0, "camera_model": "OPENCV"}
    if applied is not None:
        lens |= {"applied_transform": applied[:3].tolist(), "applied_scale": scale}
    return made.write("ns/transforms.json", json.dumps({**lens, **more, "frames": frames}))


def tum(made: Recording) -> Path:
    rows = ["# timestamp tx ty tz qx qy qz qw"]
    for place, pose in enumerate(made.poses.values()):
        w, x, y, z = quaternion(pose[:3, :3])
        rows.append(f"{STAMPS[place] / 1e9 + 0.004:.6f} {words(pose[:3, 3])} {words([x, y, z, w])}")
    return made.write("groundtruth.txt", "\n".join(rows) + "\n")


def euroc(made: Recording) -> Path:
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v, b"]
    for place, pose in enumerate(made.poses.values()):
        body = pose @ np.linalg.inv(MOUNT)
        numbers = [*body[:3, 3], *quaternion(body[:3, :3]), *np.zeros(9)]
        rows.append(",".join([str(STAMPS[place] + 1_000_000), *(f"{number:.17g}" for number in numbers)]))
    made.write("mav0/state_groundtruth_estimate0/data.csv", "\r\n".join(rows) + "\r\n")
    made.write(
        "mav0/cam0/sensor.yaml",
        "%YAML:1.0\nsensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n"
        f"  data: [{', '.join(f'{number:.17g}' for number in MOUNT.ravel())}]\n"
        "rate_hz: 20\nresolution: [64, 48]\ncamera_model: pinhole\nintrinsics: [50, 52, 31, 25] #fu, fv, cu, cv\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0, 0, 0, 0]\n",
    )
    return made.root / "mav0"


def headless(write: Callable[[Recording], Path], table: str = "") -> Callable[[Recording], Path]:
    """A format's table without the line that names its columns."""

    def without(made: Recording) -> Path:
        source = write(made)
        file = source / table if table else source
        file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
        return source

    return without


def rows_of_12(made: Recording) -> Path:
    return made.write("kitti.txt", "".join(f"{words(pose[:3])}\n" for pose in made.poses.values()))


def rows_of_16(made: Recording) -> Path:
    return made.write("flat.csv", "".join(words(pose).replace(" ", ",") + "\n" for pose in made.poses.values()))


def blocks(made: Recording, rows: int = 4) -> Path:
    file = made.root / f"blocks{rows}.txt"
    for pose in made.poses.values():
        write_matrix(made.root / "one.txt", pose[:rows])
        with file.open("a") as out:
            out.write((made.root / "one.txt").read_text() + "\n")
    return file


def json_list(made: Recording) -> Path:
    return made.write("list.json", json.dumps([pose.tolist() for pose in made.poses.values()], indent=1))


def json_names(made: Recording) -> Path:
    return made.write("names.json", json.dumps({stem: pose.ravel().tolist() for stem, pose in made.poses.items()}))


# each with the way frames are named, and whether it holds intrinsics
FORMATS: dict[str, tuple[Callable[..., Path], str, bool]] = {
    "folder of 4x4": (folder, "epic", False),
    "COLMAP text": (colmap_text, "epic", True),
    "COLMAP text without lines of points": (lambda made: colmap_text(made, points=False), "epic", True),
    "COLMAP binary": (colmap_binary, "epic", True),
    "EPIC-Fields": (epic, "epic", True),
    "EPIC-Fields, older": (epic_list, "epic", True),
    "nerfstudio": (nerfstudio, "epic", True),
    "TUM": (tum, "seconds", False),
    "TUM, frames by nanoseconds": (tum, "nanoseconds", False),
    "EuRoC": (euroc, "nanoseconds", True),
    "TUM without a header": (headless(tum), "seconds", False),
    "EuRoC without a header": (headless(euroc, "state_groundtruth_estimate0/data.csv"), "nanoseconds", True),
    "EuRoC, frames by seconds": (euroc, "line", True),
    "3x4 in a row each": (rows_of_12, "epic", False),
    "4x4 in a row each": (rows_of_16, "epic", False),
    "4x4 one after the other": (blocks, "epic", False),
    "3x4 one after the other": (lambda made: blocks(made, 3), "epic", False),
    "JSON list": (json_list, "epic", False),
    "JSON by name": (json_names, "epic", False),
}
NAMES = {
    "epic": (),
    "nanoseconds": tuple(str(stamp) for stamp in STAMPS),
    "seconds": tuple(f"{stamp / 1e9:.6f}" for stamp in STAMPS),
    "line": tuple(f"{stamp // 10**9}_{stamp % 10**9:09d}" for stamp in STAMPS),
}
