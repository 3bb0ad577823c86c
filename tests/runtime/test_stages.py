"""What a resident session keeps loaded, and that others keep nothing."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import (
    Answer,
    Bundle,
    Cancelled,
    DoesNotFit,
    Options,
    Session,
    StllmError,
    View,
    load_clip,
    load_scene,
    setup,
)
from stllm_edge.runtime.bundle.table import CLOCKED
from stllm_edge.runtime.control.control import Control
from stllm_edge.runtime.encoders import encoder
from stllm_edge.runtime.encoders.local import LocalEncoder
from stllm_edge.runtime.encoders.providers import Placement
from stllm_edge.runtime.llm.libllama import Flag
from stllm_edge.runtime.llm.model import LanguageModel
from stllm_edge.runtime.llm.pace.bench import Pace
from stllm_edge.runtime.llm.pace.choose import Asked, Chosen, Subject
from stllm_edge.runtime.memory.meter import Meter
from stllm_edge.runtime.stages import Stages

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
QUESTIONS = ("Where is the cup?", "Left?", "Where is the cup?")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each graph, and the language model, is loaded in this process."""
    counted: Counter[str] = Counter()

    class Encoder(LocalEncoder):
        def __init__(self, path: Path, *choice: object):
            counted[path.name.partition(".")[0]] += 1
            super().__init__(path, *choice)

    class Model(LanguageModel):
        def __init__(self, *arguments: object, **choice: object):
            counted["llm"] += 1
            super().__init__(*arguments, **choice)

        def close(self) -> None:
            counted["closed"] += 1
            super().close()

    monkeypatch.setattr(encoder, "LocalEncoder", Encoder)
    monkeypatch.setattr(setup, "LanguageModel", Model)
    return counted


@pytest.fixture
def view(inputs, tiny_bundle) -> View:
    return look(Session(tiny_bundle, EXACT), inputs)


def look(session: Session, inputs, frames: int = 1) -> View:
    return session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=frames)


def read(answer: Answer) -> tuple[list[int], bytes]:
    list(answer)
    return answer.token_ids, answer.logits_last_prompt.tobytes()


def test_a_resident_session_loads_each_stage_once_and_answers_the_same(tiny_bundle, inputs, loads) -> None:
    with Session(tiny_bundle, EXACT) as session:
        kept = [read(session.answer(look(session, inputs), question, max_new_tokens=4)) for question in QUESTIONS]
        assert loads == {"vision": 1, "points": 1, "aligner": 1, "llm": 1}
    assert loads["closed"] == 1
    for question, answer in zip(QUESTIONS, kept, strict=True):
        with Session(tiny_bundle, EXACT) as fresh:
            assert read(fresh.answer(look(fresh, inputs), question, max_new_tokens=4)) == answer
    assert kept[0] == kept[2] != kept[1]


def test_a_longer_answer_gets_a_larger_context_of_the_same_model(tiny_bundle, view, loads) -> None:
    with Session(tiny_bundle, EXACT) as session, Session(tiny_bundle, EXACT) as fresh:
        list(session.answer(view, "Where?", max_new_tokens=2))
        long = "Where is the red cup that I put down? " * 20
        assert read(session.answer(view, long, max_new_tokens=4)) == read(fresh.answer(view, long, max_new_tokens=4))
        assert loads["llm"] == 2


def test_without_resident_nothing_stays(tiny_bundle, view, loads) -> None:
    session = Session(tiny_bundle, replace(EXACT, resident=False))
    for question in QUESTIONS[:2]:
        list(session.answer(view, question, max_new_tokens=2))
    assert loads == {"llm": 2, "closed": 2}


def test_point_features_stay_where_they_are_computed_for_all_questions(
    tiny_bundle, inputs, loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, in the only memory here; a closed session, and one with processes of its own, read them too."""
    plain = Session(tiny_bundle, EXACT)
    expected = read(plain.answer(look(plain, inputs), QUESTIONS[0], max_new_tokens=4))[0]
    plain.close()

    class OnGpu(Placement):
        on_gpu = True

    monkeypatch.setattr("stllm_edge.runtime.session.place", lambda *_: OnGpu("a GPU"))
    loads.clear()
    with Session(tiny_bundle, EXACT) as session:
        view = look(session, inputs)
        assert not isinstance(view.points, np.ndarray)
        for _ in range(2):
            assert read(session.answer(view, QUESTIONS[0], max_new_tokens=4))[0] == expected
    assert loads == {"vision": 1, "points": 1, "aligner": 1, "llm": 1, "closed": 1}
    apart = Session(tiny_bundle, replace(EXACT, resident=False))
    assert read(apart.answer(view, QUESTIONS[0], max_new_tokens=4))[0] == expected
    assert isinstance(look(apart, inputs).points, np.ndarray)


def test_answers_of_a_resident_session_are_read_one_after_the_other(tiny_bundle, view) -> None:
    with Session(tiny_bundle, EXACT) as session:
        first, second = (session.answer(view, question, max_new_tokens=4) for question in QUESTIONS[:2])
        pieces = iter(first)
        next(pieces)
        next(iter(second))
        with pytest.raises(StllmError, match=r"another answer was begun.* before this one was read to its end"):
            list(pieces)


def test_a_closed_session_ends_an_answer_and_can_be_asked_again(tiny_bundle, view, loads) -> None:
    session = Session(tiny_bundle, EXACT)
    answer = session.answer(view, "Where?", max_new_tokens=4)
    pieces = iter(answer)
    next(pieces)
    session.close()
    with pytest.raises(StllmError, match="the answer, or its session, was closed before it was read to its end"):
        list(pieces)
    with session:
        assert read(session.answer(view, "Where?", max_new_tokens=4))[0][: len(answer.token_ids)] == answer.token_ids
    assert (loads["llm"], loads["closed"]) == (2, 2)


def test_memory_of_the_caller_s_own_is_not_free(tiny_bundle, inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a stage is loaded nor when all are."""
    array = np.ones(320 * 10**6, np.uint8)
    with Session(tiny_bundle, EXACT) as session:
        for _ in range(2):
            monkeypatch.setattr("stllm_edge.runtime.memory.plan.available", lambda: 50 * 10**6)
            with pytest.raises(DoesNotFit):
                look(session, inputs)
            monkeypatch.setattr("stllm_edge.runtime.memory.plan.available", lambda: 10**9)
            list(session.answer(look(session, inputs), "Where?", max_new_tokens=2))
    assert array.all()


SAYS_WHAT_IS_FREE = """
import re, sys
from stllm_edge.runtime import DoesNotFit, Options, Session, load_clip, load_scene
from stllm_edge.runtime.memory import plan

def free(session):
    plan.available = lambda: 0
    try:
        session.look(scene, clip, frames=1)
    except DoesNotFit as error:
        return int(re.search(r"(\\d+) MB are free", str(error))[1])

bundle, scene, video = sys.argv[1:]
scene, clip = load_scene(scene), load_clip(video)
for resident in (False, True):
    session, plan.available = Session(bundle, Options(quant="F32", resident=resident)), lambda: None
    list(session.answer(session.look(scene, clip, frames=1), "Where?", max_new_tokens=2))
    print(free(session))
    session.close()
print(free(session))
"""


def test_what_loaded_stages_hold_is_not_asked_for_again(tiny_bundle, inputs) -> None:
    """In a new process, since one that had loaded them before may have kept their memory."""
    command = [sys.executable, "-c", SAYS_WHAT_IS_FREE, tiny_bundle, inputs.scene, inputs.video]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    apart, resident, closed = map(int, done.stdout.split())
    assert apart == closed == 0
    # the weights of the encoders alone
    assert 4 < resident < 100


def test_several_sessions_may_be_read_in_turn(tiny_bundle, view) -> None:
    with Session(tiny_bundle, EXACT) as one, Session(tiny_bundle, EXACT) as other:
        first, second = (session.answer(view, "Where?", max_new_tokens=4) for session in (one, other))
        assert list(zip(first, second, strict=True))
        assert first.token_ids == second.token_ids


def test_the_language_model_is_run_as_it_was_chosen(tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ran: list[dict[str, Any]] = []
    pace = Pace(packed=True, threads=2, micro_batch=64, flash_attention=False)

    class Model(LanguageModel):
        def __init__(self, *arguments: Any, **choice: Any):
            ran.append(choice)
            super().__init__(*arguments, **choice)

    def choose(subject: Subject, decided: Asked, cores: int, flag: Flag) -> Chosen:
        asked.append((subject.layers, subject.on_gpu, subject.positions, decided, cores))
        return Chosen(pace, "by this test")

    monkeypatch.setattr(setup, "choose", choose)
    monkeypatch.setattr(setup, "LanguageModel", Model)
    made = setup.Setup(Bundle(tiny_bundle), "fp32", "F32", threads=1, kv="f32", repack=True, measure=True)
    with Stages(made) as stages, stages.speaker.load(300):
        assert stages.pace == Chosen(pace, "by this test")
    assert asked == [(2, False, 512, Asked(packed=True), 1)]
    assert [(one["repack"], one["threads"], one["micro_batch"], one["flash_attention"]) for one in ran] == [
        (True, 2, 64, False)
    ]


def test_loading_a_language_model_can_be_ended(tiny_bundle) -> None:
    control = Control()
    meter = Meter(CLOCKED, control=control)
    made = setup.Setup(Bundle(tiny_bundle), "fp32", "F32", threads=1)
    with Stages(made) as stages:
        load = stages.speaker._load

        def cancelled(positions: int, flag: Flag) -> LanguageModel:
            control.cancel()
            assert flag.is_set
            return load(positions, flag)

        stages.speaker._load = cancelled
        with pytest.raises(Cancelled):
            next(stages.generate([np.arange(3)], lambda logits: 0, 1, meter))
        assert list(Stages(made).generate([np.arange(3)], lambda logits: 0, 1))
