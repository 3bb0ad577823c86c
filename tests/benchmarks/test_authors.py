"""The model run its authors' way: what it takes is predicted from sizes."""

import pytest
from stllm_edge.benchmarks.authors import bytes_needed
from stllm_edge.benchmarks.checkpoints import FULL, TINY

TEXT = 176


def test_the_released_model_takes_what_its_sizes_say() -> None:
    needed = bytes_needed(FULL, 32, 30_000, TEXT)
    # 12 heads times 6,480 rows times 30,000 points, scores and softmax
    assert needed["aligner"] == pytest.approx(2 * 12 * 6480 * 30_000 * 4, rel=0.1)
    # 7.6 billion weights, 6,928 rows of logits, and a layer's feed-forward part
    assert needed["llm"] == pytest.approx(4 * (7.6e9 + 6928 * (152_064 + 3 * 18_944)), rel=0.03)
    assert 2e9 < needed["vision"] < 5e9


@pytest.mark.parametrize("part", ["vision", "aligner", "llm"])
def test_fewer_frames_take_less(part: str) -> None:
    sizes = [bytes_needed(FULL, frames, 20_000, TEXT)[part] for frames in (1, 2, 8, 32)]
    assert sizes == sorted(set(sizes))


def test_more_voxels_take_more_of_points_and_aligner_alone() -> None:
    small, large = (bytes_needed(TINY, 2, voxels, TEXT) for voxels in (1000, 100_000))
    assert {part for part in small if large[part] > small[part]} == {"points", "aligner"}
