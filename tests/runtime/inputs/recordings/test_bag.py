"""Files that are no bags, or damaged ones: each is one line that says what mends it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, MissingDependency, load_recording
from stllm_edge.runtime.inputs.recordings.bag import open_bag

from .bags import KINDS, recorded
from .conftest import Walk


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
    survives_damage("bags", tmp_path, 25)


def test_without_the_library_its_extra_is_named(bags: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rosbags.typesys", None)
    with pytest.raises(MissingDependency, match=r"pip install 'stllm-edge\[ros\]'"), open_bag(bags["bare"]):
        pass
