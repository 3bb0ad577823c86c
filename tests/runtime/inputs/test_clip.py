"""Clips: times, lengths and sizes."""

import json

import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, load_clip

STEMS = ("frame_0000000003", "frame_0000000005", "frame_0000000009")


def test_options_win_over_the_description(inputs) -> None:
    clip = load_clip(inputs.video, fps=20, seconds=7)
    assert (clip.times, clip.seconds) == ((0.15, 0.25, 0.45), 7)


@pytest.mark.parametrize("description", [{}, {"fps": 5}, {"seconds": 5}, {"fps": 5, "author": "me"}])
def test_a_description_may_be_partial(inputs, description: dict[str, object]) -> None:
    (inputs.video / "clip.json").write_text(json.dumps(description))
    clip = load_clip(inputs.video)
    assert clip.times == ((0.6, 1, 1.8) if "fps" in description else None)
    assert clip.seconds == description.get("seconds", 0.6 if "fps" in description else None)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "5",
        '"fps"',
        '{"fps": "10"}',
        '{"fps": 0}',
        '{"fps": -1}',
        '{"fps": true}',
        '{"fps": null}',
        '{"fps": NaN}',
        '{"fps": Infinity}',
        '{"seconds": [1]}',
        '{"fps": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_nonsense_in_the_description(inputs, content: str) -> None:
    (inputs.video / "clip.json").write_text(content)
    with pytest.raises(BadInput, match=r"clip\.json"):
        load_clip(inputs.video)


def test_a_description_that_is_no_text(inputs) -> None:
    (inputs.video / "clip.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"clip\.json"):
        load_clip(inputs.video)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["fps", "seconds"])
def test_rates_and_lengths_are_positive(inputs, option: str, value: float) -> None:
    with pytest.raises(BadInput, match="expected a positive number"):
        load_clip(inputs.video, **{option: value})


def test_a_clip_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        load_clip(tmp_path / "nowhere")


def test_frames_of_another_size_are_refused(inputs) -> None:
    Image.new("RGB", (41, 30)).save(inputs.video / f"{STEMS[1]}.png")
    with pytest.raises(BadInput, match=r"frame_0000000005\.png: is 41x30"):
        list(load_clip(inputs.video).read(range(3)))
