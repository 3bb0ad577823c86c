"""A session is one thread's at a time."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from stllm_edge.runtime import Cancelled, Session, StllmError, load_clip, load_scene


def elsewhere(work: Callable[[], Any]) -> BaseException | None:
    """What another thread's work raises."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return raised[0]


def test_a_second_thread_is_refused_until_the_answer_is_read(session: Session, view, inputs) -> None:
    answer = session.answer(view, "Where?", max_new_tokens=4)
    pieces = iter(answer)
    next(pieces)
    refused = elsewhere(lambda: session.answer(view, "Left?", max_new_tokens=2))
    assert isinstance(refused, StllmError)
    assert "at work in another thread; wait for its answer, cancel() it" in str(refused)
    assert isinstance(elsewhere(lambda: session.look(load_scene(inputs.scene), load_clip(inputs.video))), StllmError)
    list(pieces)
    assert elsewhere(lambda: list(session.answer(view, "Left?", max_new_tokens=2))) is None


def test_an_answer_that_was_dropped_or_whose_thread_ended_holds_nothing(session: Session, view) -> None:
    answer = session.answer(view, "Where?", max_new_tokens=4)
    next(iter(answer))
    del answer
    assert elsewhere(lambda: next(iter(session.answer(view, "Left?", max_new_tokens=2)))) is None
    assert len(list(session.answer(view, "Left?", max_new_tokens=2))) <= 2


def test_a_session_is_refused_while_a_stage_is_at_work(session: Session, view, monkeypatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    aligner = session.stages.aligner

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert leave.wait(30)
        return aligner(*arguments)

    monkeypatch.setattr(session.stages, "aligner", slow)
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.extend(session.answer(view, "Where?", max_new_tokens=2)))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(StllmError, match="at work in another thread"):
        session.answer(view, "Left?")
    leave.set()
    thread.join(30)
    monkeypatch.undo()
    assert told == list(session.answer(view, "Where?", max_new_tokens=2))


def test_closing_ends_what_is_at_work_and_waits_for_it(tiny_bundle, session, view) -> None:
    from stllm_edge.runtime import Options

    other = Session(tiny_bundle, Options(quant="F32", threads=1, resident=True))
    begun = threading.Event()

    def work() -> None:
        answer = other.answer(view, "Where is it? " * 1500, max_new_tokens=4, listen=lambda event: begun.set())
        list(answer)

    thread_error: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: thread_error.append(elsewhere(work)))
    thread.start()
    assert begun.wait(30)
    other.close()
    thread.join(30)
    assert isinstance(thread_error[0], Cancelled)
