"""The same scene and clip through every format: the same voxels, rays and answer."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import Options, Session, load_clip, load_scene
from stllm_edge.runtime.inputs.writing import write_matrix, write_poses
from stllm_edge.runtime.options import Recording as Inputs
from stllm_edge.runtime.options import Request
from stllm_edge.runtime.request import answers

from ..clouds.conftest import glb_bytes, las, named, packed_colours, pcd_bytes, ply_bytes, saved
from ..recordings.bags import KINDS, recorded
from ..written import FORMATS, NAMES, Recording

Arrays = dict[str, np.ndarray]
LAS_STEP = 1e-8


@dataclass(frozen=True)
class Room:
    """A room as depth frames, which all other formats are written from: its recording, points and colours."""

    made: Recording
    scene: Path
    points: np.ndarray
    colours: np.ndarray

    @property
    def inputs(self) -> Inputs:
        """The plain form."""
        root = self.made.root
        return Inputs(self.scene, self.made.video, root / "poses", root / "K.txt", first_frame=1)


def make_room(root: Path) -> Room:
    """Six frames around a place, with depth frames of a quarter of their size."""
    draw, stems = np.random.default_rng(2), tuple(f"frame_{number:010d}" for number in range(1, 7))
    poses, (down, across) = {}, np.mgrid[:48, :64]
    for folder in ("video", "depth/depth"):
        (root / folder).mkdir(parents=True)
    for place, stem in enumerate(stems):
        waves = [np.sin(across / 9 + place + phase) + np.sin(down / 7 + phase) for phase in (0, 1, 2)]
        frame = (127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)
        Image.fromarray(frame).save(root / "video" / f"{stem}.png")
        depth = draw.integers(1200, 2600) + 200 * np.sin(across[::4, ::4] / 9 + place)
        Image.fromarray(depth.astype(np.uint16)).save(root / "depth/depth" / f"{stem}.png")
        turn = np.pi / 3 * place
        poses[stem] = np.eye(4)
        poses[stem][:3, :3] = [[np.sin(turn), 0, np.cos(turn)], [-np.cos(turn), 0, np.sin(turn)], [0, -1, 0]]
        poses[stem][:3, 3] = [0.1 * place, 0.2, 1.2]
    made = Recording(root, stems, poses, np.array([[50.0, 0, 31], [0, 52, 25], [0, 0, 1]]))
    write_poses(root / "poses", poses)
    write_matrix(root / "K.txt", made.intrinsics)
    clip = load_clip(made.video, first_frame=1)
    scene = load_scene(root / "depth", poses=root / "poses", intrinsics=root / "K.txt", clip=clip)
    return Room(made, root / "depth", scene.points, scene.colours.astype(np.uint8))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return make_room(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Iterator[Session]:
    with Session(tiny_bundle, Options(quant="F32", resident=True, threads=1)) as session:
        yield session


def asked(session: Session, inputs: Inputs) -> tuple[Arrays, list[int]]:
    """What the model got, and the ids of the answer."""
    request = Request(frames=4, time_instruction=False, max_new_tokens=4)
    for answer in answers(session, inputs, request, ["Where is the cup?"], quiet=True):
        list(answer)
        found = dict(answer.stages()), list(answer.token_ids)
    return found


@pytest.fixture(scope="module")
def right(session: Session, room: Room) -> tuple[Arrays, list[int]]:
    """By the depth frames."""
    return asked(session, room.inputs)


def same(found: tuple[Arrays, list[int]], right: tuple[Arrays, list[int]]) -> None:
    (arrays, ids), (wanted, right_ids) = found, right
    for name in ("voxel_coords", "voxel_feats", "pcd_viewdirs", "img_rays_pooled", "video_tokens"):
        assert np.array_equal(arrays[name], wanted[name]), name
    assert ids == right_ids


def rows(room: Room, separator: str = " ") -> str:
    table = np.hstack([room.points, room.colours])
    return "".join(separator.join(f"{number:.9g}" for number in row) + "\n" for row in table)


def packed(room: Room) -> Arrays:
    return dict(zip("xyz", room.points.T, strict=True)) | {"rgb": packed_colours(room.colours)}


def plain(room: Room) -> Arrays:
    return named(room.points, room.colours)


CLOUDS: dict[str, Callable[[Room], bytes]] = {
    "ascii.ply": lambda room: ply_bytes(plain(room), form="ascii"),
    "little.ply": lambda room: ply_bytes(plain(room)),
    "big.ply": lambda room: ply_bytes(plain(room), form="binary_big_endian"),
    "ascii.pcd": lambda room: pcd_bytes(packed(room), data="ascii"),
    "binary.pcd": lambda room: pcd_bytes(packed(room)),
    "compressed.pcd": lambda room: pcd_bytes(packed(room), data="binary_compressed"),
    "points.las": lambda room: las(room.points, room.colours, compressed=False, step=LAS_STEP),
    "points.laz": lambda room: las(room.points, room.colours, compressed=True, step=LAS_STEP),
    "rows.xyz": lambda room: rows(room).encode(),
    "named.csv": lambda room: ("x,y,z,red,green,blue\n" + rows(room, ",")).encode(),
    "scene.glb": lambda room: glb_bytes({"POSITION": room.points, "COLOR_0": room.colours}),
    "scene.gltf": lambda room: gltf(room),
    "table.npy": lambda room: saved(np.save, np.hstack([room.points, room.colours])),
    "named.npz": lambda room: saved(np.savez, points=room.points, colours=room.colours),
}


def gltf(room: Room) -> bytes:
    """A GLB's JSON with its bytes in it."""
    import base64
    import json

    content = CLOUDS["scene.glb"](room)
    length = int.from_bytes(content[12:16], "little")
    tree, binary = json.loads(content[20 : 20 + length]), content[28 + length :]
    tree["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps(tree).encode()


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds(name: str, room: Room, session: Session, right: Any, tmp_path: Path) -> None:
    if name.endswith((".las", ".laz")):
        pytest.importorskip("laspy")
    (tmp_path / name).write_bytes(CLOUDS[name](room))
    same(asked(session, replace(room.inputs, scene=tmp_path / name)), right)


@pytest.mark.parametrize("name", FORMATS)
def test_cameras(name: str, room: Room, session: Session, right: Any, tmp_path: Path) -> None:
    write, naming, lens = FORMATS[name]
    stems = NAMES[naming] or room.made.stems
    (tmp_path / "video").mkdir()
    for old, new in zip(room.made.stems, stems, strict=True):
        shutil.copy(room.made.video / f"{old}.png", tmp_path / "video" / f"{new}.png")
    poses = dict(zip(stems, room.made.poses.values(), strict=True))
    made = Recording(tmp_path, stems, poses, room.made.intrinsics)
    np.save(tmp_path / "points.npy", np.hstack([room.points, room.colours]))
    intrinsics = None if lens else room.made.root / "K.txt"
    inputs = Inputs(tmp_path / "points.npy", made.video, intrinsics=intrinsics, cameras=write(made))
    same(asked(session, inputs), right)


FRAMES = ("png", "bmp", "tiff", "webp", "mkv", "avi")


@pytest.mark.parametrize("suffix", FRAMES)
def test_frames(suffix: str, room: Room, session: Session, right: Any, tmp_path: Path) -> None:
    frames = [np.asarray(Image.open(room.made.video / f"{stem}.png")) for stem in room.made.stems]
    if suffix in ("mkv", "avi"):
        video = tmp_path / f"clip.{suffix}"
        with av.open(str(video), "w") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))
    else:
        video = tmp_path / "frames"
        video.mkdir()
        for stem, frame in zip(room.made.stems, frames, strict=True):
            Image.fromarray(frame).save(video / f"{stem}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    np.save(tmp_path / "points.npy", np.hstack([room.points, room.colours]))
    same(asked(session, replace(room.inputs, scene=tmp_path / "points.npy", video=video)), right)


@pytest.mark.parametrize("kind", KINDS)
def test_recordings(kind: str, room: Room, session: Session, right: Any, tmp_path: Path) -> None:
    with recorded(tmp_path, kind) as (robot, path):
        robot.send("/cloud", robot.cloud(0, room.points, room.colours, "map"), 0)
        robot.send("/camera_info", robot.info((64, 48), room.made.intrinsics), 0)
        for place, (stem, pose) in enumerate(room.made.poses.items()):
            frame = np.asarray(Image.open(room.made.video / f"{stem}.png"))
            robot.send("/image", robot.image(place / 10, frame), place / 10)
            robot.send("/tf", robot.tf(robot.transform(place / 10, "map", "eye", pose)), place / 10)
    same(asked(session, Inputs(bag=path)), right)
