"""One picture of what was understood."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.fit.fit import examine
from stllm_edge.runtime.fit.picture import WAY, axes_from_above, write_picture


def test_a_picture_shows_cloud_way_and_frames(recording: Any, tmp_path: Path) -> None:
    fit = examine(recording.scene, recording.selection())
    write_picture(tmp_path / "check.png", fit)
    with Image.open(tmp_path / "check.png") as picture:
        colours = {colour: count for count, colour in picture.getcolors(2**24)}
        assert picture.width > 1000
    assert colours[WAY] > 50
    assert len(colours) > 1000


def test_the_map_looks_down_where_cameras_are_upright(recording: Any) -> None:
    right, up, towards = axes_from_above(np.stack(recording.poses))
    assert towards @ [0, 0, 1] > 0.9
    assert np.cross(right, up) == pytest.approx(towards)


@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames_are_enough(recording: Any, tmp_path: Path, frames: int) -> None:
    write_picture(tmp_path / "check.png", examine(recording.scene, recording.selection(frames)))
    assert (tmp_path / "check.png").stat().st_size > 1000


def test_where_it_cannot_be_written(recording: Any, tmp_path: Path) -> None:
    fit = examine(recording.scene, recording.selection())
    with pytest.raises(BadInput, match=r"--picture check\.gif: expected the name of a \.png file"):
        write_picture(Path("check.gif"), fit)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"--picture .*: cannot be written"):
        write_picture(tmp_path / "file" / "check.png", fit)
