"""Files that are no bags, or damaged ones: each is one line that says what mends it."""

import bz2
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag2.storage_mcap import zstd
from stllm_edge.runtime import BadInput, MissingDependency, load_recording
from stllm_edge.runtime.inputs.recordings import bag
from stllm_edge.runtime.inputs.recordings.bag import open_bag, unpack

from .bags import KINDS, PACKED, ROS1, recorded
from .conftest import Walk, same


@pytest.fixture(scope="module")
def bags(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bag of each kind."""
    made = {}
    for kind in KINDS:
        with recorded(tmp_path_factory.mktemp("bags") / kind, kind) as (robot, path):
            walk.all(robot)
        made[kind] = path
    return made


def stored(path: Path) -> Path:
    """The file that holds the messages of a bag."""
    return path if path.is_file() else next(file for file in path.iterdir() if file.suffix != ".yaml")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "an mcap cut off": ("bare", cut, "mcap recover FILE"),
    "an mcap in a folder cut off": ("mcap", lambda path: cut(stored(path)), "mcap recover FILE"),
    "a bag of ROS 1 cut off": ("bag", cut, "rosbag reindex FILE"),
    "a database cut off": ("sqlite3", lambda path: cut(stored(path)), "sqlite3 FILE .recover"),
    "an empty file": ("bare", lambda path: path.write_bytes(b""), "seems to be empty"),
    "another kind of file": ("bag", lambda path: path.write_bytes(b"a line\n"), "magic is invalid"),
    "no store": ("mcap", lambda path: stored(path).unlink(), "files are missing.*give the bag's whole folder"),
    "metadata of words": ("mcap", lambda path: (path / "metadata.yaml").write_text("nothing"), "Invalid bag metadata"),
    "metadata that is none": ("mcap", lambda path: (path / "metadata.yaml").write_text("{:"), "Could not load YAML"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_bags_are_one_line(name: str, bags: dict[str, Path], tmp_path: Path) -> None:
    kind, damage, words = DAMAGE[name]
    path = tmp_path / bags[kind].name
    (shutil.copytree if bags[kind].is_dir() else shutil.copy)(bags[kind], path)
    damage(path)
    with pytest.raises(BadInput, match=words) as caught:
        load_recording(path)
    assert str(caught.value).startswith(f"bag {path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_bags(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        load_recording(tmp_path / "none.mcap")
    with pytest.raises(BadInput, match=r"expected metadata.yaml .* or .bag files; found none of them"):
        load_recording(tmp_path)
    (tmp_path / "walk.txt").touch()
    with pytest.raises(BadInput, match=r"expected a .mcap, .db3 or .bag file"):
        load_recording(tmp_path / "walk.txt")


def test_a_folder_without_metadata_and_one_of_bags(bags: dict[str, Path], tmp_path: Path, caplog: Any) -> None:
    shutil.copy(bags["bare"], tmp_path / "walk.mcap")
    load_recording(tmp_path)
    assert "has no metadata.yaml, so that walk.mcap alone is read" in caplog.text
    shutil.copytree(bags["sqlite3"], tmp_path / "b")
    (tmp_path / "b/metadata.yaml").unlink()
    load_recording(tmp_path / "b")
    (tmp_path / "ros1").mkdir()
    shutil.copy(bags["bag"], tmp_path / "ros1")
    load_recording(tmp_path / "ros1")


def test_an_mcap_of_another_profile_says_so(tmp_path: Path) -> None:
    content = b"\x89MCAP0\r\n\x01" + (8).to_bytes(8, "little") + bytes(8)
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(BadInput, match="its channels are not those of ROS 2: convert it"):
        load_recording(tmp_path / "x.mcap")


def test_messages_of_another_type_than_is_said(bags: dict[str, Path], tmp_path: Path) -> None:
    content = bags["bare"].read_bytes()
    assert content.count(b"sensor_msgs/msg/PointCloud2")
    (tmp_path / "x.mcap").write_bytes(content.replace(b"sensor_msgs/msg/PointCloud2", b"sensor_msgs/msg/CameraInfo\0"))
    with pytest.raises(BadInput):
        load_recording(tmp_path / "x.mcap")


def test_damaged_bags_are_read_or_refused(bags: dict[str, Path], tmp_path: Path, survives_damage: Any) -> None:
    for kind, path in bags.items():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / f"{kind}{path.suffix}")
    survives_damage("bags", tmp_path, 10)


def test_without_the_library_its_extra_is_named(bags: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rosbags.typesys", None)
    with pytest.raises(MissingDependency, match=r"pip install 'stllm-edge\[ros\]'"), open_bag(bags["bare"]):
        pass


# compressed bags take no more than their bounds

STREAMS: dict[str, tuple[Any, Any]] = {
    "bz2": (bz2.compress, bz2.BZ2Decompressor),
    "lz4": (lz4.frame.compress, lz4.frame.LZ4FrameDecompressor),
    "zstd": (zstd.compress, zstd.ZstdDecompressor),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams(kind: str) -> None:
    pack, decompressor = STREAMS[kind]
    content = np.random.default_rng(0).integers(0, 9, 1_500_000, np.uint8).tobytes()
    assert unpack(decompressor, pack(content)) == content
    assert unpack(decompressor, pack(content) + pack(b"more")) == content + b"more"
    assert unpack(decompressor, pack(b"")) == unpack(decompressor, b"") == b""
    with pytest.raises(ValueError, match="compressed data is cut off"):
        unpack(decompressor, pack(content)[:-100])
    with pytest.raises(ValueError, match="compressed data is of over 256 streams"):
        unpack(decompressor, pack(b"") * 100_000)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_few_bytes_that_claim_many(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag, "ANY_BYTES", 1 << 21)
    pack, decompressor = STREAMS[kind]
    packed = pack(bytes(64 << 20))
    tracemalloc.start()
    most = 64 * len(packed) + (1 << 21)
    with pytest.raises(ValueError, match=f"{len(packed)} compressed bytes unpack to over {most}"):
        unpack(decompressor, packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * most + (8 << 20)


@pytest.mark.parametrize("kind", [*PACKED, *[kind for kind, form in ROS1.items() if form]])
def test_compressed_bags(kind: str, walk: Walk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(folder, kind) as (robot, path):
        walk.all(robot)
    same(walk, load_recording(path))
    monkeypatch.setattr(bag, "ANY_BYTES", 100)
    monkeypatch.setattr(bag, "MOST_FACTOR", 0)
    with pytest.raises(BadInput, match=f"bag {path}: cannot be read .* compressed bytes unpack to over 100"):
        load_recording(path)
