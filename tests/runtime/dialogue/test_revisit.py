"""Further questions about a video whose keys and values are kept."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import Answer, BadInput, Cancelled, Options, Session, View, load_clip, load_scene
from stllm_edge.runtime.dialogue.revisit import RUNS, changed_most
from stllm_edge.runtime.llm.early import EarlyLayer

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1)
SHORT = {"max_new_tokens": 3, "time_instruction": False}
FIRST, SECOND = "Where is the cup?", "Which way is the door?"


@pytest.fixture
def opened(tiny_bundle: Path) -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def begin(**options: object) -> Session:
        sessions.append(Session(tiny_bundle, replace(EXACT, **options)))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def ask(session: Session, view: View, question: str) -> tuple[Answer, np.ndarray]:
    answer = session.answer(view.again(), question, **SHORT)
    list(answer)
    logits = answer.logits_last_prompt
    assert logits is not None
    return answer, logits


@pytest.mark.parametrize("resident", [True, False])
def test_the_video_is_kept_and_all_else_is_read_again(opened, view, resident: bool, caplog) -> None:
    session, exact = opened(resident=resident, reuse_video="approximate"), opened(resident=True)
    length = len(view.video)
    first, logits = ask(session, view, FIRST)
    assert first.approximate is None
    assert np.array_equal(logits, ask(exact, view, FIRST)[1])
    with caplog.at_level(logging.WARNING):
        second, logits = ask(session, view, SECOND)
    assert f"approximate: keys and values of {length} of {length} video positions" in caplog.text
    assert second.approximate == {"kept": length, "computed": 0}
    theirs = ask(exact, view, SECOND)[1]
    difference = np.linalg.norm(logits - theirs) / np.linalg.norm(theirs)
    assert 0 < difference < 0.5
    # what is kept is of the first question, and so exact for it
    assert np.allclose(ask(session, view, FIRST)[1], ask(exact, view, FIRST)[1], rtol=1e-4, atol=1e-4)


def test_the_more_is_read_again_the_closer_it_is(opened, view) -> None:
    exact = ask(opened(resident=True), view, SECOND)[1]
    differences = []
    for share in (0.0, 0.5, 0.999):
        session = opened(resident=True, reuse_video="approximate", recompute=share)
        ask(session, view, FIRST)
        answer, logits = ask(session, view, SECOND)
        assert answer.approximate["computed"] == round(share * len(view.video))
        differences.append(np.linalg.norm(logits - exact))
    assert differences[0] > differences[1] > differences[2]
    assert differences[2] < 1e-3 * np.linalg.norm(exact)


def test_another_clip_and_another_answer_meanwhile_are_read_anew(opened, view, inputs) -> None:
    session = opened(resident=True, reuse_video="approximate")
    ask(session, view, FIRST)
    other = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=3)
    assert ask(session, other, SECOND)[0].approximate is None
    assert ask(session, view, SECOND)[0].approximate is None
    with session.converse(view) as talk:
        list(talk.ask(FIRST, **SHORT))
    assert ask(session, view, SECOND)[0].approximate is None
    assert ask(session, view, FIRST)[0].approximate


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reuse_video": "exact"}, "--reuse-video exact: unknown; known is approximate"),
        ({"recompute": 0.15}, "--recompute goes with --reuse-video approximate"),
        ({"reuse_video": "approximate", "recompute": 1.0}, "--recompute 100%: expected 0% up to less than 100%"),
    ],
)
def test_what_cannot_be_is_refused(opened, options: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        opened(**options)


def test_the_positions_that_change_most_are_taken_in_a_few_runs() -> None:
    change = np.zeros(1000)
    change[[3, 4, 700]] = 1
    assert changed_most(change, 3) == [(3, 5), (700, 701)]
    runs = changed_most(np.random.default_rng(0).random(1000), 150)
    assert sum(last - first for first, last in runs) == 150
    assert len(runs) <= RUNS
    assert changed_most(change, 1000) == [(0, 1000)]


def test_a_question_is_ended_while_its_positions_are_chosen(opened, view, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(resident=True, reuse_video="approximate", recompute=0.2)
    ask(session, view, FIRST)
    outputs = EarlyLayer.outputs

    def cancelled(*arguments: object) -> np.ndarray:
        session.cancel()
        return outputs(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EarlyLayer, "outputs", cancelled)
        with pytest.raises(Cancelled):
            ask(session, view, SECOND)
    assert ask(session, view, SECOND)[0].approximate
