"""Names in the order that their author meant, the numbers and times in them, and names that say two things."""

import random

import pytest
from stllm_edge.runtime.inputs.names.reading import UnreadNames, read_names

# names in their right order; what counts them, if a number does
ORDERED: dict[str, tuple[list[str], tuple[int, ...] | None]] = {
    "padded": (["frame_0000000003", "frame_0000000005", "frame_0000000012"], (3, 5, 12)),
    "natural": (["f9", "f10", "f100"], (9, 10, 100)),
    "brackets": (["img (1)", "img (3)", "img (12)"], (1, 3, 12)),
    "any case": (["IMG_9", "img_10", "Img_11"], (9, 10, 11)),
    "one": (["frame_7"], (7,)),
    "a constant camera": (["000000_cam0", "000003_cam0", "000007_cam0"], (0, 3, 7)),
    "a camera before": (["cam0_0001", "cam1_0002", "cam0_0003"], (1, 2, 3)),
    "a camera behind": (["000000_cam1", "000003_cam0", "000007_cam2"], (0, 3, 7)),
    "an exposure": (["frame_00012_exp3", "frame_00013_exp1", "frame_00014_exp2"], (12, 13, 14)),
    "a word behind": (["frame-000000.color", "frame-000001.color"], (0, 1)),
    "one of a pair": (["left_9", "left_12", "left_100"], (9, 12, 100)),
    "pairs in turn": (["f_1_left", "f_2_right", "f_3_left", "f_4_right"], (1, 2, 3, 4)),
    "a hash": (["frame_2_0b1fc2", "frame_5_99f1c2", "frame_7_123456", "frame_12_a3f9c2"], (2, 5, 7, 12)),
    "a hash before": (["9f1a0b2c_1", "0b1fc2d3_2", "a3f9c2e4_3"], (1, 2, 3)),
    "a UUID": (["1a1b2c3d-1111-2222-3333-444455556666_4", "0a1b2c3d-1111-2222-3333-444455556666_5"], (4, 5)),
    "two that agree": (["clip_0001_frame_0340", "clip_0002_frame_0350"], (340, 350)),
    "takes": (["take1_05", "take1_07", "take2_01"], None),
    "a constant date": (["20210305_0009", "20210305_0010"], (9, 10)),
    "a counter that began anew": (["20210305_101112_9999", "20210305_101113_0001", "20210305_101114_0002"], None),
    "nanoseconds of no epoch": (["42183410083", "42381410083"], (42183410083, 42381410083)),
}
# names in their right order; seconds of each since the first
TIMED: dict[str, tuple[list[str], list[float]]] = {
    "microseconds": (["1502345678.301742", "1502345678.905764", "1502345680.000001"], [0, 0.604022, 1.698259]),
    "floats": (["1502345678.25", "1502345678.5", "1502345679.125"], [0, 0.25, 0.875]),
    "nanoseconds": (["1502345678_301742000", "1502345679_001742000"], [0, 0.7]),
    "not padded": (["1502345678_9742000", "1502345678_301742000", "1502345679_1742"], [0, 0.292, 0.990259742]),
    "not padded behind a point": (
        ["1502345678.9742000", "1502345678.301742000", "1502345679.1742"],
        [0, 0.292, 0.990259742],
    ),
    "whole milliseconds": (["1502345678301", "1502345678401"], [0, 0.1]),
    "whole microseconds": (["n015__CAM_FRONT__1532402927112460", "n015__CAM_FRONT__1532402927612460"], [0, 0.5]),
    "whole nanoseconds": (["1403636579763555584", "1403636579813555584"], [0, 0.05]),
    "Windows": (["132487654321234567", "132487654321934567"], [0, 0.07]),
    "seconds of a recording": (["42444499_3813.956", "42444499_3814.356"], [0, 0.4]),
    "a clock of a simulation": (["9_901742000", "12_301742000", "12_901742000"], [0, 2.4, 3.0]),
    "ISO": (
        ["2021-03-05T10:11:12.023Z", "2021-03-05T10:11:12.123Z", "2021-03-05T10:12:12.003Z"],
        [0, 0.1, 59.98],
    ),
    "ISO across days": (["2021-02-28 23-59-59", "2021-03-01 00-00-01"], [0, 2]),
    "a phone": (["PXL_20210305_101112345", "PXL_20210305_101113005"], [0, 0.66]),
    "one number": (["DJI_20210305101112_0001_W", "DJI_20210305101113_0002_W"], [0, 1]),
    "a time of day": (["10-11-59", "10-12-00", "10-12-01"], [0, 1, 2]),
    "a screen": (["Screenshot 2021-03-05 at 10.11.12", "Screenshot 2021-03-05 at 10.11.13"], [0, 1]),
    "an index before": (["00012-1502345678.3017", "00013-1502345678.4017"], [0, 0.1]),
}
AMBIGUOUS = {
    "two numbers": ["1_10", "2_9", "3_8"],
    "a grid": ["0_0", "0_1", "1_0", "1_1"],
    "a number before": ["1_05", "1_07", "2_01"],
    "a counter that may have begun anew": ["DSC_9998", "DSC_9999", "DSC_0001", "DSC_0002"],
    "a point": ["12.9", "12.11", "12.8"],
    "an index against a time": ["0_1502345679.5", "1_1502345678.5"],
}
UNREAD = {
    "have the same number": ["frame_5", "frame_0005"],
    "no one pattern": ["frame_1", "frame_2", "img_1", "img_2"],
    "no one pattern or have the same number": ["f-0.color", "f-1.color", "f-0.depth", "f-1.depth"],
    "no one pattern (": ["frame_1", "thumbnail"],
}


def shuffled(names: list[str]) -> list[str]:
    return random.Random(len(names[0])).sample(names, len(names))


@pytest.mark.parametrize("kind", ORDERED)
def test_names_are_in_the_order_of_what_counts_them(kind: str) -> None:
    names, numbers = ORDERED[kind]
    reading = read_names(shuffled(names))
    assert reading.names == tuple(names)
    if numbers is not None:
        assert reading.numbers == numbers
    assert (reading.left_out, reading.doubt) == ((), "")


@pytest.mark.parametrize("kind", TIMED)
def test_names_tell_times(kind: str) -> None:
    names, seconds = TIMED[kind]
    reading = read_names(shuffled(names))
    assert reading.names == tuple(names)
    assert reading.stamps is not None
    assert [(stamp - reading.stamps[0]) / 1e9 for stamp in reading.stamps] == pytest.approx(seconds, abs=1e-9)
    assert "the time in them" in reading.words


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_two_ways_to_read_names_are_refused_with_both(kind: str) -> None:
    with pytest.raises(UnreadNames, match=r"two ways, by .* \(.*\) or by .* \(.*\)"):
        read_names(AMBIGUOUS[kind])


@pytest.mark.parametrize("words", UNREAD)
def test_names_without_an_order_are_refused(words: str) -> None:
    with pytest.raises(UnreadNames) as caught:
        read_names(UNREAD[words])
    assert words in str(caught.value)


@pytest.mark.parametrize("names", [["b", "a"], ["a3f9c2", "0b1fc2", "99f1c2"], ["x-a3f9c2", "x-0b1fc2", "x-99f1c2"]])
def test_names_without_numbers_are_taken_as_text_with_a_word(names: list[str]) -> None:
    reading = read_names(names)
    assert reading.names == tuple(sorted(names))
    assert "no number" in reading.doubt


def test_a_number_that_several_share_is_told() -> None:
    names = ["frame_1_exp0", "frame_1_exp1", "frame_2_exp0", "frame_2_exp1"]
    reading = read_names(shuffled(names))
    assert reading.names == tuple(names)
    assert "several share the number after frame and differ in the number after exp" in reading.doubt


@pytest.mark.parametrize("stray", ["thumbnail", "cover_1", "frame_3 (1)", "frame_9x", "2021-03-05"])
def test_a_name_unlike_the_others_is_left_out(stray: str) -> None:
    reading = read_names(["frame_1", "frame_4", stray, "frame_12", "frame_8"])
    assert reading.names == ("frame_1", "frame_4", "frame_8", "frame_12")
    assert reading.left_out == (stray,)


@pytest.mark.parametrize("seed", range(20))
def test_any_counter_with_gaps_is_read(seed: int) -> None:
    draw = random.Random(seed)
    numbers = sorted(draw.sample(range(5000), draw.randrange(2, 60)))
    prefix, suffix = draw.choice(["", "f", "img_", "cam2-", "a.b "]), draw.choice(["", "_rgb", ".color", " (1)"])
    names = [f"{prefix}{number:0{draw.choice([6])}d}{suffix}" for number in numbers]
    reading = read_names(shuffled(names))
    assert (reading.names, reading.numbers, reading.left_out) == (tuple(names), tuple(numbers), ())
