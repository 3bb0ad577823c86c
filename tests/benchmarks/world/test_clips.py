"""Clips: how the person moves, what is carried, and that answers follow from what is seen alone."""

from collections import Counter

import numpy as np
import pytest
from stllm_edge.benchmarks.world.clips import Clip, make_clip, render_clip
from stllm_edge.benchmarks.world.places import balance
from stllm_edge.benchmarks.world.room import Room, make_room


@pytest.fixture(scope="module")
def clips() -> list[tuple[Room, Clip]]:
    rooms = [make_room(8, index) for index in range(20)]
    return [(rooms[number // 2], make_clip(rooms[number // 2], 8, number, 3)) for number in range(40)]


def test_person_stands_free_looks_level_and_walks_to_the_target(clips: list[tuple[Room, Clip]]) -> None:
    for room, clip in clips:
        assert np.abs(clip.poses[:, 2, 0]).max() < 1e-12, "roll"
        heights = clip.poses[:, 2, 3]
        assert np.ptp(heights) == 0
        assert 1.45 <= heights[0] <= 1.55
        pitch = np.rad2deg(np.arcsin(clip.poses[0, 2, 2]))
        assert -12 <= pitch <= -2
        ends = clip.poses[[0, -1], :2, 3]
        assert (ends >= 0.3).all()
        assert (ends <= np.asarray(room.size) - 0.3).all()
        assert room.clearance(ends).min() >= 0.2
        target = room.furniture[clip.target]
        nearest, furthest = (0.5, 0.8) if target.kind in ("chair", "stool", "stand") else (0.9, 1.3)
        assert nearest <= target.clearance(ends[1:])[0] <= furthest
        turns = np.arccos(np.clip((clip.poses[1:, :2, 0] * clip.poses[:-1, :2, 0]).sum(axis=1), -1, 1))
        assert turns.sum() <= np.pi + 1e-9, "the short way"


def test_item_is_in_the_hand_and_then_on_the_target(clips: list[tuple[Room, Clip]]) -> None:
    room, clip = clips[0]
    frames = list(render_clip(room, clip, np.random.default_rng(0)))
    item = len(room.furniture)
    for frame in frames[:9]:
        rows = np.nonzero(frame.owner == item)[0]
        assert len(rows) > 60
        assert rows.min() >= 36
    held = frames[8].owner == item
    for frame in frames[9:]:
        assert 0 < (frame.owner == item).sum() < held.sum()
        assert not (held & (frame.owner == item)).all()


def test_clip_depends_on_seed_and_number_alone(clips: list[tuple[Room, Clip]]) -> None:
    _, clip = clips[5]
    again = make_clip(make_room(8, 2), 8, 5, 3)
    assert np.array_equal(clip.poses, again.poses)
    assert (clip.questions, clip.item, clip.target) == (again.questions, again.item, again.target)


def test_no_answer_is_common(clips: list[tuple[Room, Clip]]) -> None:
    answers: dict[str, Counter[str]] = {}
    for _, clip in clips:
        for question in clip.questions:
            answers.setdefault(question.question_type, Counter())[question.answer] += 1
    assert len(answers) == 5
    for question_type, counts in answers.items():
        assert max(counts.values()) <= 0.35 * sum(counts.values()), (question_type, counts)


@pytest.mark.slow
def test_words_tell_nothing_about_the_answer() -> None:
    """Chi-square of kind and colour against the answer, four standard deviations above its mean at most."""
    answers: dict[tuple[str, int], Counter[tuple[str, str]]] = {}
    for index in range(50):
        room = make_room(9, index)
        for number in range(4 * index, 4 * index + 4):
            for question in make_clip(room, 9, number, 3).questions:
                for piece in room.furniture:
                    if f" {piece.name} " in question.text.replace("?", " "):
                        for place, word in enumerate((piece.kind, piece.colour)):
                            counts = answers.setdefault((question.question_type, place), Counter())
                            counts[word, question.answer] += 1
    assert len(answers) == 4
    for (question_type, _), counts in answers.items():
        words, classes = (sorted(set(column)) for column in zip(*counts, strict=True))
        table = np.array([[counts[word, answer] for answer in classes] for word in words], np.float64)
        assert table.sum() > 550
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        freedom = (len(words) - 1) * (len(classes) - 1)
        assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom), question_type


def test_balance_makes_every_class_of_every_object_as_likely() -> None:
    generator = np.random.default_rng(0)
    classes = generator.choice(5, (2000, 3), p=[0.1, 0.5, 0.2, 0.1, 0.1]) - 1
    weights = balance(classes, 4)
    assert weights is not None
    assert weights[(classes < 0).any(axis=1)].max() == 0
    for column in classes.T:
        known = column >= 0
        assert np.abs(np.bincount(column[known], weights[known]) - 0.25).max() < 0.01


@pytest.mark.parametrize("classes", [[[0, 1], [1, 0], [2, 2]], [[-1, -1]], [[0, 0], [1, 1], [2, 2], [3, 3], [0, 1]]])
def test_balance_says_when_there_is_none(classes: list[list[int]]) -> None:
    """The last has every class of both objects, but no weights that make them uniform and use its last place."""
    weights = balance(np.array(classes), 4)
    assert weights is None or np.abs(weights - [0.25, 0.25, 0.25, 0.25, 0]).max() < 0.01
