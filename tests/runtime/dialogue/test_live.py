"""A live view equals a fresh look at the same frames, and is ready when it is asked."""

import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Clip, Scene, Session, StllmError, load_scene
from stllm_edge.runtime.dialogue.live import LiveView

SHORT = {"max_new_tokens": 3}


@pytest.fixture
def scene(inputs) -> Scene:
    return load_scene(inputs.scene)


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 30, 40, 3), np.uint8))


def pose(place: float) -> np.ndarray:
    moved = np.eye(4)
    moved[0, 3] = 0.01 * place
    return moved


@pytest.fixture
def live(session: Session, scene: Scene) -> Iterator[LiveView]:
    with session.watch(scene, frames=3, window=5, max_new_tokens=3) as opened:
        yield opened


def feed(live: LiveView, given: list[np.ndarray], start: int = 0) -> None:
    for number, frame in enumerate(given, start):
        live.add(frame, pose(number), 100 + number / 10)


def fresh(session: Session, scene: Scene, given: list[np.ndarray], start: int) -> Any:
    numbers = range(start, start + len(given))
    clip = Clip.of(given, poses=[pose(n) for n in numbers], times=[(n - start) / 10 for n in numbers])
    return session.look(scene, clip, frames=3)


def test_a_live_view_is_a_fresh_look_at_its_window_to_the_bit(session: Session, scene: Scene, live) -> None:
    given = frames(8)
    for end in (3, 4, 8):
        start = len(live._taken) if end < 8 else 4
        feed(live, given[start:end], start)
        assert live.settle(30)
        begin = max(0, end - 5)
        expected = fresh(session, scene, given[begin:end], begin)
        view = live.view()
        assert view.selection.indices == expected.selection.indices
        ours, theirs = view.stages(), expected.stages()
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
        ours, theirs = live.ask("Where?", **SHORT), session.answer(expected, "Where?", **SHORT)
        assert ours.prompt.text == theirs.prompt.text
        # a resident session has one language model, which the second has now
        assert np.array_equal(ours.prefix_tokens, theirs.prefix_tokens)
        assert list(theirs)


def test_once_settled_a_question_runs_aligner_and_language_model_alone(live) -> None:
    feed(live, frames(5))
    assert live.settle(30)
    assert (live.waiting, live.passed_over) == (0, 0)
    answer = live.ask("Where?", **SHORT)
    list(answer)
    assert not {"vision", "points", "maps", "voxels", "rays", "video"} & set(answer.meter.milliseconds)


def test_it_can_be_asked_before_all_is_encoded(session: Session, scene: Scene, live) -> None:
    given = frames(5, seed=3)
    feed(live, given)
    view = live.view()
    assert np.array_equal(view.video_tokens, fresh(session, scene, given, 0).video_tokens)


def test_frames_beyond_the_backlog_are_passed_over_and_encoded_when_they_are_sampled(
    session: Session, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session.watch(scene, frames=3, window=12, backlog=2) as live:
        given = frames(12, seed=4)
        with live._work:
            feed(live, given)
            assert live.waiting <= 2
            assert live.passed_over >= 9
        assert live.settle(30)
        clip = Clip.of(given, poses=[pose(n) for n in range(12)], fps=10)
        assert np.array_equal(live.view().video_tokens, session.look(scene, clip, frames=3).video_tokens)


def test_the_camera_s_buffer_may_be_filled_again(session: Session, scene: Scene, live) -> None:
    given, buffer = frames(3, seed=5), np.zeros((30, 40, 3), np.uint8)
    for number, frame in enumerate(given):
        buffer[:] = frame
        live.add(buffer, pose(number), float(number))
    assert np.array_equal(live.view().video_tokens, fresh(session, scene, given, 0).video_tokens)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((9, 9, 3), np.uint8), np.eye(4), 1.0), "frame of shape [9, 9, 3]; those before are [30, 40, 3]"),
        ((np.zeros((30, 40), np.uint8), np.eye(4), 1.0), "expected an array [H, W, 3] uint8"),
        ((np.zeros((30, 40, 3), np.uint8), np.eye(3), 1.0), "poses[0]"),
        ((np.zeros((30, 40, 3), np.uint8), np.eye(4), None), "time: give one for each frame, or for none"),
        ((np.zeros((30, 40, 3), np.uint8), np.eye(4), 0.5), "time 0.5: comes after 0.5"),
    ],
)
def test_a_frame_that_cannot_be_is_refused_and_those_before_stay(live, arguments: Any, words: str) -> None:
    live.add(np.zeros((30, 40, 3), np.uint8), np.eye(4), 0.5)
    with pytest.raises(BadInput, match=re.escape(words)):
        live.add(*arguments)
    assert len(live.view().selection) == 3


def test_what_cannot_be_asked_is_said(session: Session, scene: Scene, live) -> None:
    with pytest.raises(BadInput, match="has no frame yet"):
        live.view()
    with pytest.raises(BadInput, match="window 2: is less than the 3 frames of a question"):
        session.watch(scene, frames=3, window=2)
    live.close()
    live.close()
    with pytest.raises(StllmError, match="was closed"):
        live.add(frames(1)[0], np.eye(4))


def test_closing_ends_the_thread_at_once(session: Session, scene: Scene) -> None:
    live = session.watch(scene, frames=3, window=5)
    feed(live, frames(5, seed=6))
    begin = time.monotonic()
    live.close()
    assert time.monotonic() - begin < 1
    assert not live._thread.is_alive()


def test_what_goes_wrong_in_the_background_is_told_with_the_next_question(live, monkeypatch) -> None:
    encode, wrong = live._encode, [StllmError("the encoder ended"), ValueError("odd")]

    def fail(clip: Clip, control: object) -> object:
        if wrong:
            raise wrong.pop(0)
        return encode(clip, control)

    monkeypatch.setattr(live, "_encode", fail)
    for number, words in enumerate(("the encoder ended", "odd")):
        live.add(frames(1, seed=number)[0], pose(number), float(number))
        assert live.settle(30)
        with pytest.raises((StllmError, ValueError), match=words):
            live.ask("Where?")
    live.add(frames(1, seed=7)[0], pose(7), 7.0)
    assert live.settle(30)
    assert len(live.view().selection) == 3
