"""Streams of video files: equal pixels however a frame is reached, times, turns, and files that are damaged."""

import logging
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_clip

WIDTH, HEIGHT = 64, 48


def moving(place: int) -> np.ndarray:
    """A picture that no other of the video is like, and that is not made of its neighbours alone."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin((x * (c + 1) + y * 2 + 5 * place) / 7) + np.sin((y - 3 * place) / (4 + c)) for c in range(3)]
    return np.clip(np.stack(waves, axis=2) * 60 + 128, 0, 255).astype(np.uint8)


def write(
    path: Path,
    codec: str = "libx264",
    count: int = 60,
    *,
    pts: Sequence[int] | None = None,
    tick: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    change: Callable[[av.VideoStream], object] = lambda stream: None,
    **context: int,
) -> Path:
    """A video with a keyframe every dozen frames, shown at `pts` ticks."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = tick
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        change(stream)
        for place in range(count):
            frame = av.VideoFrame.from_ndarray(moving(place), "rgb24")
            frame.pts, frame.time_base = pts[place] if pts else place, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(f"file:{path}") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


UNEVEN = np.cumsum(np.random.default_rng(1).integers(1, 200, 60)).tolist()
OPEN = {"x264-params": "open-gop=1:scenecut=0:b-pyramid=normal", "bf": "3"}
OPEN_HEVC = {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=3:scenecut=0"}
KINDS: dict[str, dict] = {
    "H.264.mp4": {"options": {"bf": "3"}},
    "open.mp4": {"options": OPEN},
    "open.mkv": {"options": OPEN},
    "open.ts": {"options": OPEN},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:scenecut=0"}},
    "refresh.ts": {"options": {"x264-params": "intra-refresh=1:scenecut=0"}},
    "HEVC.mp4": {"codec": "libx265", "options": OPEN_HEVC},
    "HEVC.mkv": {"codec": "libx265", "options": OPEN_HEVC},
    "uneven.mp4": {"options": {"bf": "3"}, "pts": UNEVEN, "tick": Fraction(1, 1000)},
    "uneven.mkv": {"options": {"bf": "3"}, "pts": UNEVEN, "tick": Fraction(1, 1000)},
    "cut.mp4": {"options": {"bf": "3"}, "pts": range(-20, 40)},
    "late.ts": {"pts": range(500, 560)},
    "MPEG-4.avi": {"codec": "mpeg4", "max_b_frames": 2},
    "MPEG-2.mkv": {"codec": "mpeg2video", "max_b_frames": 2},
    "MPEG-2.mpg": {"codec": "mpeg2video", "max_b_frames": 2},
    "hidden.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"}},
    "VP9.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "6"}},
    "stream.h264": {"options": {"bf": "3"}},
    "B in.avi": {"options": {"bf": "3"}},
    "12:30:05.mp4": {},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_a_linear_decode_however_they_are_reached(tmp_path, name: str) -> None:
    path = write(tmp_path / name, **KINDS[name])
    whole = decoded(path)
    clip = load_clip(path)
    assert len(clip) == len(whole)
    for places in ([5], [13], [len(whole) - 1], [2, 2, 25, 26, 39], list(range(0, len(whole), 7))):
        for place, frame in zip(places, clip.read(places), strict=True):
            assert np.array_equal(frame, whole[place]), place


def test_a_late_frame_is_sought(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "clip.mp4")
    clip, last = load_clip(path), decoded(path)[-1]
    monkeypatch.setattr("stllm_edge.runtime.inputs.video.decode_all", count := Counting())
    (frame,) = clip.read([59])
    assert np.array_equal(frame, last)
    assert count.frames <= 12


class Counting:
    """The real decoder, which counts its frames."""

    frames = 0

    def __call__(self, container, stream):
        for frame in container.decode(stream):
            self.frames += 1
            yield frame


def test_uneven_times_are_those_of_the_file(tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        clip = load_clip(write(tmp_path / "clip.mp4", **KINDS["uneven.mp4"]))
    assert clip.times == pytest.approx([(pts - UNEVEN[0]) / 1000 for pts in UNEVEN], abs=1e-4)
    assert clip.seconds >= clip.times[-1]
    assert "times of their own" in caplog.text
    assert load_clip(tmp_path / "clip.mp4", fps=10).times == tuple(place / 10 for place in range(60))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_even_times_are_places_over_the_rate(tmp_path, name: str, caplog) -> None:
    clip = load_clip(write(tmp_path / name))
    assert (clip.times, clip.seconds) == (tuple(place / 25 for place in range(60)), 2.4)
    assert not caplog.records


def test_a_bare_stream_needs_a_rate(tmp_path) -> None:
    path = write(tmp_path / "a.h264")
    with pytest.raises(BadInput, match="give --fps"):
        load_clip(path).timing()
    assert load_clip(path, fps=30).timing()[1][30] == 1


def rotate(degrees: int) -> Callable[[av.VideoStream], object]:
    return lambda stream: stream.set_display_rotation(degrees)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied_and_said(tmp_path, degrees: int, turns: int, caplog) -> None:
    path = write(tmp_path / "a.mp4", count=14, change=rotate(degrees))
    with caplog.at_level(logging.INFO, "stllm_edge"):
        clip = load_clip(path)
    assert (clip.turns, clip.size) == (turns, (WIDTH, HEIGHT) if turns == 2 else (HEIGHT, WIDTH))
    (frame,) = clip.read([13])
    assert np.array_equal(frame, np.rot90(decoded(path)[13], turns))
    assert "as the file says; K is that of upright frames" in caplog.text


def test_mirrored_frames_are_shown_as_players_do(tmp_path) -> None:
    path = write(tmp_path / "a.mp4", count=2, change=lambda stream: stream.set_display_rotation(0, hflip=True))
    (frame,) = load_clip(path).read([1])
    assert np.array_equal(frame, decoded(path)[1][:, ::-1])


def test_a_cut_without_its_keyframe_begins_with_the_next(tmp_path, caplog) -> None:
    whole = write(tmp_path / "whole.mkv")
    path = tmp_path / "cut.mkv"
    with av.open(f"file:{whole}") as source, av.open(f"file:{path}", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for place, packet in enumerate(source.demux(video=0)):
            if place >= 5 and packet.size:
                packet.stream = stream
                target.mux(packet)
    clip = load_clip(path)
    assert len(clip) == 48
    assert all(np.array_equal(frame, decoded(whole)[12 + place]) for place, frame in enumerate(clip.read(range(48))))
    assert "begins without a keyframe; 7 frames cannot be decoded" in caplog.text
    assert clip.times[:3] == (0, 0.04, 0.08)


def faststart(path: Path) -> Path:
    """A copy whose index is before its frames."""
    moved = path.with_stem("moved")
    with av.open(f"file:{path}") as source, av.open(f"file:{moved}", "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return moved


def test_an_index_that_is_missing_is_named(tmp_path) -> None:
    path = write(tmp_path / "a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(BadInput, match=r"a\.mp4: the recording was not closed, .* index \(moov\) is missing; recover"):
        load_clip(path)


def test_a_file_that_is_cut_off_is_told_and_read_as_far_as_it_goes(tmp_path, caplog) -> None:
    path = faststart(write(tmp_path / "a.mp4"))
    whole, content = decoded(path), path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    clip = load_clip(path)
    assert 5 < len(clip) < 60
    assert "is cut off; frames at its end are missing" in caplog.text
    (frame,) = clip.read([len(clip) - 3])
    assert np.array_equal(frame, whole[len(clip) - 3])


def damaged(path: Path, number: int, start: float, filling: bytes) -> Path:
    """The file with other bytes in one of its packets, from a share of its length on."""
    content = bytearray(path.read_bytes())
    with av.open(f"file:{path}") as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        place = content.index(bytes(packet)) + int(start * packet.size)
    content[place : place + len(filling)] = filling
    path.write_bytes(content)
    return path


def test_a_frame_that_is_decoded_with_errors_is_told(tmp_path, caplog) -> None:
    clip = load_clip(damaged(write(tmp_path / "a.mkv", "mpeg4"), 25, 0.5, random.Random(1).randbytes(20)))
    assert len(list(clip.read(range(20, 36)))) == 16
    assert "frame 25: decoded with errors, the file is damaged there" in caplog.text


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path) -> None:
    clip = load_clip(damaged(write(tmp_path / "a.mkv"), 25, 0, bytes(40)))
    with pytest.raises(BadInput, match=r"ends before frame 25 of 60, or is damaged there; copy"):
        list(clip.read([3, 25]))
    assert len(list(clip.read([3, 40]))) == 2


def test_damaged_videos_are_read_or_refused(tmp_path, survives_damage) -> None:
    codecs = {"a.mp4": "libx264", "a.mkv": "mpeg4", "a.avi": "mpeg4", "a.ts": "libx264", "a.webm": "libvpx-vp9"}
    for name, codec in codecs.items():
        write(tmp_path / name, codec, 8)
    survives_damage("videos", tmp_path, 25)
