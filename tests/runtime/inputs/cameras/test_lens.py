"""What lenses show, and straight pictures of it."""

import numpy as np
import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.cameras.lens import Lens, colmap_lens

SIZE = (160, 120)
LENSES = {
    "OPENCV": [110.0, 112, 78, 61, -0.25, 0.06, 0.002, -0.001],
    "FULL_OPENCV": [110.0, 112, 78, 61, 0.3, 0.01, 0.001, 0, 0.02, 0.35, 0.03, 0.001],
    "SIMPLE_RADIAL": [110.0, 78, 61, 0.08],
    "RADIAL": [110.0, 78, 61, -0.2, 0.05],
    "OPENCV_FISHEYE": [90.0, 91, 78, 61, 0.02, -0.01, 0.003, 0],
    "RADIAL_FISHEYE": [90.0, 78, 61, 0.02, -0.01],
}


def picture(rays: np.ndarray) -> np.ndarray:
    """A smooth picture of directions, uint8."""
    x, y = rays[..., 0], rays[..., 1]
    shades = [128 + 100 * np.sin(5 * x + 1), 128 + 100 * np.cos(4 * y), 128 + 60 * x + 50 * y]
    return np.stack(shades, axis=-1).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("model", LENSES)
def test_a_straightened_frame_shows_each_direction_where_a_pinhole_does(model: str) -> None:
    lens = colmap_lens(model, SIZE, LENSES[model], "lens")
    centres = np.stack(np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5), axis=-1)
    focal, middle = np.array([lens.fx, lens.fy]), np.array([lens.cx, lens.cy])
    straight = (centres - middle) / focal
    rays = straight.copy()
    for _ in range(200):  # the directions that the bent image shows
        rays += 0.5 * (straight - lens.bent(rays))
    assert np.abs(lens.bent(rays) - straight).max() < 1e-9
    shown, wanted = lens.straighten(picture(rays)).astype(int), picture(straight).astype(int)
    assert lens.bends("lens") > 2
    assert np.abs(picture(rays).astype(int) - wanted).max() > 10
    inside = slice(25, -25)
    assert np.abs(shown - wanted)[inside, inside].max() <= 3


@pytest.mark.parametrize(
    ("model", "values", "shown"),
    [
        ("OPENCV", [1.0, 1, 0, 0, -0.25, 0.06, 0.002, -0.001], (0.37545, -0.281275)),
        ("FULL_OPENCV", [1.0, 1, 0, 0, 0, 0, 0, 0, 0.64, 0, 0, 0.64], (0.4, -0.3)),
        ("OPENCV_FISHEYE", [1.0, 1, 0, 0, 0.02, 0, 0, 0], (0.3725128, -0.2793846)),
    ],
)
def test_bending_is_opencv_s(model: str, values: list[float], shown: tuple[float, float]) -> None:
    """Worked by hand for x/z 0.4 and y/z -0.3."""
    bent = colmap_lens(model, None, values, "lens").bent(np.array([0.4, -0.3]))
    assert bent == pytest.approx(shown, abs=1e-7)


def test_a_lens_at_another_size_bends_alike() -> None:
    lens = colmap_lens("OPENCV", (320, 240), [220.0, 224, 156, 122, -0.25, 0.06, 0, 0], "lens")
    half = lens.at((160, 120), "lens")
    assert (half.fx, half.fy, half.cx, half.cy) == (110, 112, 78, 61)
    assert half.bends("lens") == pytest.approx(lens.bends("lens") / 2, rel=0.02)


def test_parameters_that_are_no_lens() -> None:
    for words, values in (
        ("has 4 parameters .fx fy cx cy., found 3", [1.0, 2, 3]),
        ("focal lengths are -1", [-1.0, 2, 3, 4]),
        ("NaN or infinity", [np.nan, 2, 3, 4]),
    ):
        with pytest.raises(BadInput, match=f"model: .*{words}"):
            colmap_lens("PINHOLE", SIZE, values, "model")
    with pytest.raises(BadInput, match="have 0x5 pixels"):
        Lens(1, 1, 0, 0, (0, 5))
