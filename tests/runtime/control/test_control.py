"""Ending a question early, wherever it is."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import Cancelled, Options, Session, StllmError, load_clip, load_scene
from stllm_edge.runtime.bundle.table import CLOCKED
from stllm_edge.runtime.control.control import Control
from stllm_edge.runtime.encoders.child import ChildEncoder
from stllm_edge.runtime.encoders.local import LocalEncoder
from stllm_edge.runtime.inputs.scene import Scene
from stllm_edge.runtime.memory.meter import Meter

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
# seconds within which cancelled work has to end
PROMPT = 0.3


def test_work_that_goes_on_is_left_alone() -> None:
    control = Control()
    with control.stopping(lambda: pytest.fail("nothing was cancelled")):
        control.check()
    assert not control.cancelled


def test_a_cancelled_question_stays_cancelled_and_says_where_it_was() -> None:
    control = Control()
    control.stage = "vision"
    control.cancel()
    with pytest.raises(Cancelled, match="the question was ended during vision: it was cancelled"):
        control.check()
    with pytest.raises(Cancelled), control.stopping(lambda: None):
        pytest.fail("not begun")
    assert not control.timed_out


def test_what_runs_is_stopped_from_another_thread_and_its_error_becomes_cancelled() -> None:
    control, stopped = Control(), threading.Event()

    def work() -> None:
        threading.Timer(0.02, control.cancel).start()
        assert stopped.wait(5)
        raise StllmError("closed while its graph ran")

    with pytest.raises(Cancelled), control.stopping(stopped.set):
        work()


def test_an_error_of_work_that_was_not_cancelled_is_its_own() -> None:
    with pytest.raises(StllmError, match="the graph failed"), Control().stopping(lambda: None):
        raise StllmError("the graph failed")


def test_a_deadline_cancels_and_a_finished_question_has_none() -> None:
    late, done = Control(max_time=0.02), Control(max_time=0.02)
    done.finish()
    time.sleep(0.1)
    with pytest.raises(Cancelled, match=r"its 0.02 s \(--max-time\) are over"):
        late.check()
    assert (late.timed_out, done.cancelled) == (True, False)


@pytest.fixture(scope="module")
def session(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Its answers never stop by themselves."""
    bundle = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("endless") / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "stop_ids": []}))
    return Session(bundle, replace(EXACT, cache_memory=0))


def slow(cls: Any, monkeypatch: pytest.MonkeyPatch, begun: threading.Event) -> None:
    """Tell when an encoder's call begins."""
    call = cls.__call__

    def told(self: Any, **inputs: np.ndarray) -> Any:
        begun.set()
        return call(self, **inputs)

    monkeypatch.setattr(cls, "__call__", told)


def cancelled_after(session: Session, begun: threading.Event, work: Callable[[], Any], wait: float) -> float:
    """Seconds that work goes on for once it is cancelled, a moment after it begins."""
    told: list[float] = []

    def cancel() -> None:
        assert begun.wait(60)
        time.sleep(wait)
        told.append(time.monotonic())
        session.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        work()
    ended = time.monotonic()
    thread.join()
    return ended - told[0]


def large_scene(inputs: Any) -> Scene:
    """Enough voxels that the point encoder takes seconds."""
    points = np.random.default_rng(0).uniform((-6, -6, 1), (6, 6, 13), (150_000, 3)).astype(np.float32)
    return replace(load_scene(inputs.scene), points=points, colours=np.full_like(points, 90.0))


@pytest.mark.parametrize("resident", [True, False])
def test_an_encoder_at_work_is_ended_and_the_session_answers_after_it(
    tiny_bundle, inputs, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    scene, clip, begun = load_scene(inputs.scene), load_clip(inputs.video), threading.Event()
    with Session(tiny_bundle, replace(EXACT, resident=resident, cache_memory=0)) as session:
        whole = "".join(session.ask(scene, clip, "Where?", frames=1, max_new_tokens=4))
        slow(LocalEncoder if resident else ChildEncoder, monkeypatch, begun)
        large = large_scene(inputs)
        features = session.stages
        voxels = features.host.voxels(large)
        maps = features.host.maps(voxels)

        def ended_after() -> float:
            begun.clear()
            control = session._gate._control = Control()
            return cancelled_after(
                session, begun, lambda: features.points(voxels, maps, Meter(CLOCKED, control=control)), 0.1
            )

        # a machine that has other work delays one, but not most
        assert sorted(ended_after() for _ in range(3))[1] < PROMPT
        assert "".join(session.ask(scene, clip, "Where?", frames=1, max_new_tokens=4)) == whole


def test_prefill_and_decode_are_ended(session, inputs) -> None:
    view = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=1)
    whole = "".join(session.answer(view, "Where?", max_new_tokens=4))
    for stage, question, new_tokens in (("prefill", "Where is it? " * 2000, 4), ("decode", "Where?", 20_000)):
        begun = threading.Event()

        def listen(event: Any, stage: str = stage, begun: threading.Event = begun) -> None:
            if getattr(event, "stage", "") == stage:
                begun.set()

        answer = session.answer(view, question, max_new_tokens=new_tokens, listen=listen)
        assert cancelled_after(session, begun, lambda answer=answer: list(answer), 0.05) < PROMPT
        assert answer.meter.control.stage == stage
        with pytest.raises(StllmError, match="ask again"):
            list(answer)
    assert "".join(session.answer(view, "Where?", max_new_tokens=4)) == whole


def test_a_deadline_ends_an_answer_with_what_there_is_and_a_question_with_nothing(session, inputs) -> None:
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    view = session.look(scene, clip, frames=1)
    answer = session.answer(view, "Where?", max_new_tokens=20_000, max_time=0.5)
    assert "".join(answer) == answer.text
    assert (answer.ended, answer.finished) == ("time", True)
    assert 0 < len(answer.token_ids) < 20_000
    with pytest.raises(Cancelled, match="max-time"):
        session.ask(scene, clip, "Where?", frames=1, max_time=1e-6)
    assert len(list(session.answer(view, "Where?", max_new_tokens=2))) <= 2


def test_an_answer_can_be_cancelled_by_itself(session, inputs) -> None:
    view = session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=1)
    answer = session.answer(view, "Where?", max_new_tokens=8, max_time=60)
    pieces = iter(answer)
    next(pieces)
    answer.cancel()
    with pytest.raises(Cancelled):
        next(pieces)
