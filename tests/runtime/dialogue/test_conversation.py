"""Follow-ups read their own tokens and answer as a fresh run of the transcript."""

from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Cancelled, Session, load_clip, load_scene

QUESTIONS = ("Where is the cup?", "And the red one?", "Left?")
SHORT = {"max_new_tokens": 4}


def ask(conversation: Any, question: str, **how: Any) -> tuple[list[int], bytes]:
    answer = conversation.ask(question, **{**SHORT, **how})
    list(answer)
    return answer.token_ids, answer.logits_last_prompt.tobytes()


def test_follow_ups_equal_a_fresh_run_of_the_transcript(either: Session, inputs) -> None:
    view = either.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
    with either.converse(view) as talk:
        said = [ask(talk, question) for question in QUESTIONS]
        turns = list(talk.turns)
        talk.ask("Over?", **SHORT).close()
    assert [turn.question for turn in turns] == list(QUESTIONS[:2])
    assert said[0][0] == read(either.answer(view, QUESTIONS[0], **SHORT))
    for number, answer in enumerate(said[1:], 1):
        with either.converse(view, turns[:number]) as fresh:
            again = ask(fresh, QUESTIONS[number])
        assert again[0] == answer[0]
        ours, theirs = (np.frombuffer(logits, np.float32) for logits in (answer[1], again[1]))
        assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


def read(answer: Any) -> list[int]:
    list(answer)
    return answer.token_ids


def test_a_follow_up_reads_its_own_tokens_alone(session: Session, view) -> None:
    with session.converse(view) as talk:
        first = talk.ask(QUESTIONS[0], **SHORT)
        count = len(read(first))
        second = talk.ask(QUESTIONS[1], **SHORT)
        read(second)
        assert set(second.meter.milliseconds) == {"load_llm", "prefill", "decode", "sampling", "detokenise"}
        known = second.meter.reused["prefill"]
        # the last token of an answer is not read before the next question
        assert known["hits"] == first.prompt_tokens + count - 1
        assert known["misses"] == second.prompt_tokens - known["hits"] < 40


def test_a_conversation_outgrows_its_context(session: Session, view) -> None:
    long = "Where is the red cup that I put down? " * 60
    with session.converse(view) as talk:
        ask(talk, QUESTIONS[0])
        grown, turns = ask(talk, long), talk.turns[:1]
        assert talk.model.position > 512
    with session.converse(view, turns) as fresh:
        assert ask(fresh, long)[0] == grown[0]


def test_another_answer_in_between_changes_nothing(session: Session, view) -> None:
    with session.converse(view) as talk:
        ask(talk, QUESTIONS[0])
        turns = list(talk.turns) or None
        list(session.answer(view, "Something else?", **SHORT))
        between = ask(talk, QUESTIONS[1])
    with session.converse(view) as plain:
        ask(plain, QUESTIONS[0])
        assert ask(plain, QUESTIONS[1])[0] == between[0]
    assert turns is None or len(turns) == 1


def test_a_question_that_was_ended_before_its_first_token_never_was(session: Session, view) -> None:
    with session.converse(view) as talk, session.converse(view) as plain:
        with pytest.raises(Cancelled):
            list(talk.ask("Never?", max_time=1e-4, **SHORT))
        ask(talk, QUESTIONS[0])
        ended = talk.ask("Where is it? " * 1000, **SHORT)
        ended.cancel()
        with pytest.raises(Cancelled):
            list(ended)
        after = ask(talk, QUESTIONS[1])
        ask(plain, QUESTIONS[0])
        assert ask(plain, QUESTIONS[1])[0] == after[0]
        assert [turn.question for turn in talk.turns] == [QUESTIONS[0]]


def test_an_answer_that_was_cut_counts_as_far_as_it_was_read(session: Session, view) -> None:
    with session.converse(view) as talk:
        answer = talk.ask(QUESTIONS[0], max_new_tokens=8)
        next(iter(answer))
        answer.close()
        said = ask(talk, QUESTIONS[1])
        assert talk.turns[0].ids == tuple(answer.token_ids)
    with session.converse(view, talk.turns[:1]) as fresh:
        assert ask(fresh, QUESTIONS[1])[0] == said[0]


def test_a_reset_conversation_begins_anew(session: Session, view) -> None:
    with session.converse(view) as talk:
        first = ask(talk, QUESTIONS[0])
        ask(talk, QUESTIONS[1])
        talk.reset()
        assert talk.turns == []
        assert ask(talk, QUESTIONS[0]) == first


def test_a_transcript_longer_than_the_model_is_refused_and_the_conversation_goes_on(session: Session, view) -> None:
    with session.converse(view) as talk:
        first = ask(talk, QUESTIONS[0])
        with pytest.raises(BadInput, match="positions, the model was made for 32768"):
            talk.ask("Where?", max_new_tokens=40_000)
        assert ask(talk, QUESTIONS[1])[0]
        talk.reset()
        assert ask(talk, QUESTIONS[0]) == first
