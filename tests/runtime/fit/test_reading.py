"""What a user says of units and intrinsics, and conventions of poses."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.fit.reading import Reading, meant
from stllm_edge.runtime.inputs.cameras import POSE_CONVENTIONS, to_pose


def test_words_are_read() -> None:
    assert Reading.of() == Reading()
    assert Reading.of("0.001") == Reading(scale=(0.001, 0.001))
    assert Reading.of("0.001,1", "1920x1080") == Reading(scale=(0.001, 1.0), frame=(1920, 1080))
    assert Reading.of("auto", "auto") == Reading(auto=frozenset({"--scale", "--intrinsics-of"}))


@pytest.mark.parametrize("scale", ["", "mm", "0", "-1", "nan", "inf", "1,2,3"])
def test_other_scales_are_refused(scale: str) -> None:
    with pytest.raises(BadInput, match=f"--scale {scale}: expected metres a unit"):
        Reading.of(scale)


@pytest.mark.parametrize("size", ["", "640", "x480", "0x480", "640x-1", "6.4x4.8", "²x²"])
def test_other_sizes_are_refused(size: str) -> None:
    with pytest.raises(BadInput, match=r"--intrinsics-of .*expected the frames' size"):
        Reading.of(None, size)


@pytest.mark.parametrize("convention", POSE_CONVENTIONS)
@pytest.mark.parametrize("given", POSE_CONVENTIONS)
def test_a_pose_read_by_one_convention_can_be_meant_by_another(given: str, convention: str) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    raw = np.eye(4)
    raw[:3, :3], raw[:3, 3] = turn * np.linalg.det(turn), [1, 2, 3]
    read, expected = to_pose(raw, "pose", given), to_pose(raw, "pose", convention)
    assert np.allclose(meant(read[None], given, convention)[0], expected)
