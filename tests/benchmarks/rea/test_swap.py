"""What is seen comes from the next room; what is asked does not."""

from typing import Any

import pytest
from stllm_edge.benchmarks.rea.dataset import by_clip
from stllm_edge.benchmarks.rea.swap import swap
from stllm_edge.runtime.errors import BadInput


def test_clouds_change_and_clips_stay(rea: Any) -> None:
    samples = rea.open().samples
    swapped = swap(samples, "cloud")
    for before, after in zip(samples, swapped, strict=True):
        assert (after.id, after.question, after.answer) == (before.id, before.question, before.answer)
        assert (after.video, after.c2ws, after.start) == (before.video, before.c2ws, before.start)
        assert after.pointcloud != before.pointcloud
    swapped[0].load()


def test_clips_change_with_their_poses_and_clouds_stay(rea: Any) -> None:
    samples = rea.open().samples
    swapped = swap(samples, "clip")
    for before, after in zip(samples, swapped, strict=True):
        assert after.pointcloud == before.pointcloud
        assert after.video != before.video
        assert after.video.name == after.c2ws.name
    assert len(by_clip(swapped)) == len(by_clip(samples))
    swapped[0].load()


def test_one_room_is_not_enough(rea: Any) -> None:
    samples = [sample for sample in rea.open().samples if sample.scene_id == "P01_11"]
    with pytest.raises(BadInput, match="--swap cloud: takes samples of two rooms at least, the subset has 1"):
        swap(samples, "cloud")
