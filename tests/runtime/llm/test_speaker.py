"""The language model of a session, for one answer or for all of them."""

from typing import Any

import pytest
from stllm_edge.runtime import BadBundle, StllmError
from stllm_edge.runtime.llm.speaker import CONTEXT_STEP, Speaker
from stllm_edge.runtime.memory.holdings import Holdings


class Model:
    """In the language model's place."""

    def __init__(self, context: int):
        self.contexts, self.closed = [context], 0

    def restart(self, context: int) -> None:
        self.contexts.append(context)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Vocabulary:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Stage:
    """A speaker, and all that it loaded."""

    def __init__(self, resident: bool):
        self.models: list[Model] = []
        self.vocabularies: list[Vocabulary] = []
        self.speaker = Speaker(self.load, self.read, resident=resident, holdings=Holdings())

    def load(self, context: int, flag: object) -> Any:
        self.models.append(Model(context))
        return self.models[-1]

    def read(self) -> Any:
        self.vocabularies.append(Vocabulary())
        return self.vocabularies[-1]


@pytest.mark.parametrize("positions", [1, CONTEXT_STEP, CONTEXT_STEP + 1])
def test_contexts_are_whole_steps_with_room_for_all_positions(positions: int) -> None:
    model: Any = Stage(resident=False).speaker.load(positions)
    (context,) = model.contexts
    assert context % CONTEXT_STEP == 0
    assert positions <= context < positions + CONTEXT_STEP


def test_without_resident_each_answer_has_a_model_that_ends_with_it() -> None:
    stage = Stage(resident=False)
    with stage.speaker.model(10) as (_, first_turn), stage.speaker.model(10) as (_, second_turn):
        first_turn()
        second_turn()
    assert [model.closed for model in stage.models] == [1, 1]


def test_a_resident_model_is_restarted_and_has_one_turn_at_a_time() -> None:
    stage = Stage(resident=True)
    with stage.speaker.model(10) as (_, first_turn):
        first_turn()
        with stage.speaker.model(300) as (_, second_turn):
            second_turn()
            with pytest.raises(StllmError, match="another answer was begun"):
                first_turn()
    (model,) = stage.models
    assert model.contexts == [CONTEXT_STEP, 2 * CONTEXT_STEP]
    assert model.closed == 0
    stage.speaker.close()
    assert model.closed == 1
    with pytest.raises(StllmError, match="or the session closed"):
        second_turn()


@pytest.mark.parametrize("prepared", [False, True])
def test_the_vocabulary_is_read_once_whether_prepared_or_not(prepared: bool) -> None:
    stage = Stage(resident=False)
    if prepared:
        stage.speaker.prepare()
        stage.speaker.prepare()
    assert stage.speaker.vocabulary is stage.speaker.vocabulary
    stage.speaker.close()
    (vocabulary,) = stage.vocabularies
    assert vocabulary.closed == 1


def test_a_vocabulary_that_was_prepared_for_nothing_is_closed_too() -> None:
    stage = Stage(resident=False)
    stage.speaker.prepare()
    stage.speaker.close()
    assert [vocabulary.closed for vocabulary in stage.vocabularies] == [1]


def test_a_vocabulary_that_cannot_be_read_says_so_when_it_is_needed() -> None:
    def fail() -> Any:
        raise BadBundle("damaged")

    speaker = Speaker(Stage(resident=False).load, fail, resident=False, holdings=Holdings())
    speaker.prepare()
    with pytest.raises(BadBundle, match="damaged"):
        _ = speaker.vocabulary
    speaker.prepare()
    speaker.close()
