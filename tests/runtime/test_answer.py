"""Answers: streamed, counted, ended, closed."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Options, Session, StllmError, load_clip, load_scene
from stllm_edge.runtime.llm.model import LanguageModel
from stllm_edge.runtime.llm.vocabulary import Vocabulary

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
STAGES = {"scene", "prompt", "voxels", "maps", "rays", "video", "vision", "points", "aligner", "prefill", "decode"}


def text(answer) -> str:
    return "".join(answer)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# answering


def test_an_answer_streams_and_keeps_what_it_said(session, seen) -> None:
    answer = session.answer(seen, "Where is the cup?", max_new_tokens=6)
    assert (answer.text, answer.token_ids, answer.logits_last_prompt) == ("", [], None)
    pieces = list(answer)
    assert answer.text == "".join(pieces)
    assert 1 <= len(answer.token_ids) <= 6
    assert answer.token_ids[0] == answer.logits_last_prompt.argmax()
    loads = {f"load_{name}" for name in ("vision", "points", "aligner", "llm")}
    assert STAGES <= set(answer.meter.peak_bytes) <= STAGES | loads
    # time alone is taken of what is done within a stage in microseconds
    assert set(answer.meter.milliseconds) == set(answer.meter.peak_bytes) | {"resize", "sampling", "detokenise"}
    assert all(spent >= 0 for spent in answer.meter.milliseconds.values())
    assert all(2**20 < peak < 2**36 for peak in answer.meter.peak_bytes.values())


def test_the_text_is_that_of_the_tokens(session, seen, tiny_bundle) -> None:
    answer = session.answer(seen, "What is on the table?", max_new_tokens=12)
    vocabulary = Vocabulary(tiny_bundle / "llm" / "F32.gguf")
    shown = text(answer)
    pieces = (vocabulary.piece(token) for token in answer.token_ids)
    assert shown == b"".join(pieces).decode("utf-8", "replace")


def test_the_prompt_s_length_is_its_tokens_plus_prefix_plus_video(session, seen) -> None:
    answer = session.answer(seen, "Where is the cup?", max_new_tokens=1)
    assert answer.prompt_tokens == len(answer.prompt.token_ids) - 2 + 8 + 4 * 2 * 3
    assert answer.prefix_tokens.shape == (8, 256)


def test_ask_is_look_and_answer(session, inputs) -> None:
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    asked = session.ask(scene, clip, "Where?", frames=2, max_new_tokens=4)
    answered = session.answer(session.look(scene, clip, frames=2), "Where?", max_new_tokens=4)
    assert text(asked) == text(answered)
    assert np.array_equal(asked.logits_last_prompt, answered.logits_last_prompt)


def test_several_questions_about_one_view_do_not_disturb_each_other(session, seen) -> None:
    first = session.answer(seen, "Where is the cup?", max_new_tokens=4)
    list(first)
    list(session.answer(seen, "Turn left?", max_new_tokens=4))
    again = session.answer(seen, "Where is the cup?", max_new_tokens=4)
    list(again)
    assert again.token_ids == first.token_ids


def test_the_question_changes_the_prefix(session, seen) -> None:
    one, other = (session.answer(seen, question, max_new_tokens=1) for question in ("Left?", "Where is the red cup?"))
    assert difference(one.prefix_tokens, other.prefix_tokens) > 1e-4


def test_the_scene_changes_the_prefix_and_the_clip_changes_the_tokens(session, seen, inputs) -> None:
    other = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=3)
    one, two = (session.answer(view, "Where?", time_instruction=False, max_new_tokens=1) for view in (seen, other))
    assert difference(one.prefix_tokens, two.prefix_tokens) > 1e-4
    assert difference(seen.video_tokens[:3], other.video_tokens) > 1e-3


def test_the_time_instruction_follows_the_bundle_unless_told(session, seen) -> None:
    line = "The video lasts for 1.00 seconds, and 4 frames are uniformly sampled from it."
    by_default, off = (
        session.answer(seen, "Where?", time_instruction=value, max_new_tokens=1).prompt.text for value in (None, False)
    )
    assert line in by_default
    assert "located at 0.10s,0.37s,0.60s,0.87s.Please answer" in by_default
    assert line not in off


def test_without_a_frame_rate_the_time_instruction_can_be_left_out(session, inputs) -> None:
    (inputs.video / "clip.json").unlink()
    view = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
    with pytest.raises(BadInput, match="--no-time-instruction"):
        session.answer(view, "Where?")
    answer = session.answer(view, "Where?", time_instruction=False, max_new_tokens=2)
    list(answer)
    assert answer.token_ids


def test_answers_end_at_a_stop_id_which_is_not_text(edit_manifest, seen, session) -> None:
    answer = session.answer(seen, "Where is the cup?", max_new_tokens=5)
    list(answer)
    stop = answer.token_ids[2]
    stopping = Session(edit_manifest(lambda manifest: manifest.update(stop_ids=[stop])), EXACT)
    stopped = stopping.answer(seen, "Where is the cup?", max_new_tokens=5)
    list(stopped)
    kept = answer.token_ids.index(stop)
    assert stopped.token_ids == answer.token_ids[: kept + 1]
    vocabulary = Vocabulary(session.bundle.file(session.setup.llm.file))
    shown = b"".join(vocabulary.piece(token) for token in stopped.token_ids[:-1])
    assert stopped.text == shown.decode("utf-8", "replace")


def test_a_seed_decides_an_answer_above_temperature_0(session, seen) -> None:
    def draw(seed: int) -> list[int]:
        answer = session.answer(seen, "Where?", max_new_tokens=8, temperature=2.0, seed=seed)
        list(answer)
        return answer.token_ids

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": -3},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"seed": -1, "temperature": 1.0},
    ],
)
def test_options_of_an_answer_that_cannot_be(session, seen, options: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        list(session.answer(seen, "Where?", **options))


@pytest.mark.parametrize("question", ["", " ", "What is <image>?", "<pointcloud>"])
def test_questions_that_cannot_be(session, seen, question: str) -> None:
    with pytest.raises(BadInput, match="the question"):
        session.answer(seen, question)


@pytest.mark.parametrize("wrong", [{"question": ""}, {"question": "<image>"}, {"max_new_tokens": 0}, {"seed": -1}])
def test_requests_are_checked_before_anything_is_computed(
    session, inputs, monkeypatch, wrong: dict[str, object]
) -> None:
    monkeypatch.setattr(Session, "look", lambda *_, **__: pytest.fail("looked before it checked"))
    with pytest.raises(BadInput):
        session.ask(load_scene(inputs.scene), load_clip(inputs.video), **{"question": "Where?", **wrong})


def test_a_missing_frame_rate_is_noticed_before_anything_is_computed(session, inputs, monkeypatch) -> None:
    monkeypatch.setattr(Session, "look", lambda *_, **__: pytest.fail("looked before it checked"))
    (inputs.video / "clip.json").unlink()
    with pytest.raises(BadInput, match="--no-time-instruction"):
        session.ask(load_scene(inputs.scene), load_clip(inputs.video), "Where?", frames=2)


def test_more_positions_than_the_model_was_made_for(session, seen) -> None:
    with pytest.raises(BadInput, match="the model was made for 32768; lower --frames or --max-new-tokens"):
        list(session.answer(seen, "Where?", max_new_tokens=40_000))


def test_dump_names_all_stages_of_an_answer(session, seen) -> None:
    answer = session.answer(seen, "Where?", max_new_tokens=2)
    list(answer)
    extra = set(answer.stages()) - set(seen.stages())
    assert extra == {"prefix_tokens", "prompt_token_ids", "aligner_token_ids", "logits_last_prompt", "token_ids"}
    assert answer.stages()["token_ids"].tolist() == answer.token_ids
    assert sorted(answer.stages()["prompt_token_ids"][answer.stages()["prompt_token_ids"] < 0]) == [-300, -200]


# what an answer owns


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[LanguageModel]:
    """Language models that are loaded and not closed."""
    models: list[LanguageModel] = []

    class Model(LanguageModel):
        def __init__(self, *arguments: object, **choice: object):
            super().__init__(*arguments, **choice)
            models.append(self)

        def close(self) -> None:
            super().close()
            if self in models:
                models.remove(self)

    monkeypatch.setattr("stllm_edge.runtime.setup.LanguageModel", Model)
    return models


@pytest.fixture
def apart(tiny_bundle: Path) -> Iterator[Session]:
    """A session that keeps nothing loaded."""
    with Session(tiny_bundle, replace(EXACT, resident=False)) as session:
        yield session


def test_read_to_its_end_an_answer_has_no_model(apart, seen, loaded) -> None:
    answer = apart.answer(seen, "Where?", max_new_tokens=3)
    pieces = iter(answer)
    next(pieces)
    assert len(loaded) == 1
    list(pieces)
    assert answer.finished
    assert not loaded
    assert list(answer) == []


def test_closed_an_answer_has_no_model_and_keeps_what_it_said(apart, seen, loaded) -> None:
    with apart.answer(seen, "Where?", max_new_tokens=8) as answer:
        pieces = iter(answer)
        said = next(pieces)
        assert len(loaded) == 1
    assert not loaded
    assert answer.text == said
    assert not answer.finished
    for further in (pieces, answer):
        with pytest.raises(StllmError, match="the answer, or its session, was closed before it was read to its end"):
            list(further)


def test_a_closed_session_frees_what_unfinished_answers_hold(tiny_bundle, seen, loaded) -> None:
    session = Session(tiny_bundle, replace(EXACT, resident=False))
    answers = [session.answer(seen, "Where?", max_new_tokens=8) for _ in range(3)]
    begun = [iter(answer) for answer in answers]
    for pieces in begun:
        next(pieces)
    assert len(loaded) == 3
    session.close()
    assert not loaded


def test_a_dropped_answer_frees_its_model_at_once(apart, seen, loaded) -> None:
    """Without the collector of cycles, which comes late."""
    gc.disable()
    try:
        answer = apart.answer(seen, "Where?", max_new_tokens=8)
        next(iter(answer))
        assert len(loaded) == 1
        known = weakref.ref(answer)
        del answer
        assert known() is None
        assert not loaded
    finally:
        gc.enable()


def test_an_answer_that_was_begun_goes_on_where_it_was(session, seen) -> None:
    whole = text(session.answer(seen, "Where is the cup?", max_new_tokens=6))
    answer = session.answer(seen, "Where is the cup?", max_new_tokens=6)
    first = next(iter(answer))
    assert first + text(answer) == whole == answer.text


def test_arrays_of_an_answer_that_was_not_read_are_refused_in_words(session, seen) -> None:
    answer = session.answer(seen, "Where?", max_new_tokens=2)
    with pytest.raises(StllmError, match=r"the answer has not been read yet.*iterate over it first"):
        answer.stages()
