"""Questions to a process of its own: where the time of each answer went, and how it ends when that process does."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stllm_edge.benchmarks.latency.process.asking import Asker, Timing
from stllm_edge.benchmarks.latency.workload import Workload, of_recording
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.options import Options, Recording

LOADS = {f"load_{name}" for name in ("vision", "points", "aligner", "llm")}
BEFORE = {"process", "imports", "open"}
LOOKED = {"scene", "voxels", "maps", "rays", "video", "resize", "vision", "points"}
ASKED = {"prompt", "aligner", "prefill", "decode", "sampling", "detokenise", "other", "first_token", "total"}
TOKENS, FRAMES = 6, 2


@pytest.fixture(scope="module")
def workload(sample: tuple[Path, Path]) -> Workload:
    return of_recording(
        Recording(*sample), ["Where is the cup?", "What is on the table?"], frames=FRAMES, new_tokens=TOKENS
    )


@pytest.fixture(scope="module", params=[True, False], ids=["resident", "apart"])
def asked(request: pytest.FixtureRequest, tiny_bundle: Path, workload: Workload) -> tuple[bool, list[Timing]]:
    """The first answer of a process, another look, and the other question about what was seen."""
    options = Options(precision="fp32", quant="Q8_0", threads=1, resident=request.param)
    question = workload.questions[0]
    with Asker(Bundle(tiny_bundle), options, FRAMES, TOKENS) as asker:
        return request.param, [asker.ask(question), asker.ask(question), asker.ask(question, again=True)]


def test_each_answer_has_the_stages_that_it_went_through(asked: tuple[bool, list[Timing]]) -> None:
    resident, (cold, warm, repeated) = asked
    assert set(cold.spans()) == BEFORE | LOADS | LOOKED | ASKED
    # what was looked at before is looked at anew; encoders that are kept are loaded once
    loads = {"load_llm"} if resident else LOADS
    assert set(warm.spans()) == LOOKED | ASKED | loads
    again = {"load_llm"} if resident else {"load_llm", "load_aligner", "rays"}
    assert set(repeated.spans()) == ASKED | again


def test_stages_sum_to_the_time_that_passed(asked: tuple[bool, list[Timing]]) -> None:
    for timing in asked[1]:
        spans = {stage: sum(end - begin for begin, end in parts) for stage, parts in timing.spans().items()}
        assert all(spent >= 0 for spent in spans.values())
        parts = sum(spent for stage, spent in spans.items() if stage not in ("first_token", "total"))
        assert parts == pytest.approx(spans["total"], rel=1e-9)
        assert spans["total"] == pytest.approx(timing.total)
        assert 0 < spans["first_token"] <= spans["total"]
        edges = sorted(
            edge for stage, parts in timing.spans().items() if stage not in ("first_token", "total") for edge in parts
        )
        # one stage after the other, without a gap
        assert edges[0][0] == timing.start
        assert all(after[0] == pytest.approx(before[1]) for before, after in itertools.pairwise(edges))


def test_answers_have_the_length_that_was_asked_for(asked: tuple[bool, list[Timing]]) -> None:
    for timing in asked[1]:
        assert (timing.new_tokens, timing.frames, timing.ended) == (TOKENS, FRAMES, "length")
        assert timing.reused_tokens == 0
        intervals = timing.intervals()
        assert [interval.index for interval in intervals] == list(range(1, TOKENS))
        assert [interval.depth for interval in intervals] == [
            timing.prompt_tokens + place for place in range(1, TOKENS)
        ]
        assert all(interval.seconds > 0 for interval in intervals)
        assert timing.items("decode") == (TOKENS - 1, "token")
        assert timing.items("vision") == (FRAMES, "frame")
        assert timing.items("prefill") == (timing.prompt_tokens, "position")
        assert timing.items("other") == (None, None)


def test_memory_is_told_by_stage(asked: tuple[bool, list[Timing]]) -> None:
    _resident, (cold, _, repeated) = asked
    assert all(used.peak > 2**24 for used in cold.usage.values())
    assert {"vision", "points", "aligner", "prefill"} <= set(cold.usage)
    # what was seen before is not told again
    assert "vision" not in repeated.usage


def test_an_error_of_the_session_is_raised_here(tiny_bundle: Path, workload: Workload) -> None:
    with Asker(Bundle(tiny_bundle), Options(threads=1, resident=True), 10_000, TOKENS) as asker:
        with pytest.raises(StllmError, match=r"frames of .* have a pose"):
            asker.ask(workload.questions[0])
        assert asker.pid is None


def test_a_process_that_is_killed_is_one_line(
    tiny_bundle: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Asker(Bundle(tiny_bundle), Options(threads=1, resident=True), FRAMES, TOKENS) as asker:
        asker.ask(workload.questions[0])
        assert asker.pid is not None
        os.kill(asker.pid, signal.SIGKILL)
        with pytest.raises(StllmError, match="was killed, most likely because memory ran out"):
            asker.ask(workload.questions[0])
        assert asker.pid is None


@pytest.fixture
def gone() -> Iterator[list[int]]:
    """Processes that must be gone at the end of a test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        start = time.monotonic()
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() - start < 10
            time.sleep(0.01)


def test_nothing_is_left_behind(tiny_bundle: Path, workload: Workload, gone: list[int]) -> None:
    with Asker(Bundle(tiny_bundle), Options(threads=1, resident=True), FRAMES, TOKENS) as asker:
        before = time.perf_counter()
        timing = asker.ask(workload.questions[0])
        passed = time.perf_counter() - before
        assert asker.pid is not None
        gone.append(asker.pid)
    # by a clock of this process: what passed before and after is a message between the two
    assert timing.total <= passed <= timing.total + 0.02 * timing.total + 0.05


def timing(*events: tuple[float, str], first: float | None = None) -> Timing:
    return Timing(0.0, 10.0, first, events, {}, 1, 1, 5, 0, "length", 2, "")


def test_what_no_stage_counts_is_other() -> None:
    found = timing(
        (1.0, "vision"), (2.0, "video"), (3.0, "vision"), (4.0, "other"), (6.0, "decode"), (9.0, "other")
    ).spans()
    seconds = {stage: sum(end - begin for begin, end in parts) for stage, parts in found.items()}
    assert seconds == {"vision": 2.0, "video": 1.0, "decode": 3.0, "other": 4.0, "total": 10.0}
    assert list(seconds)[-2:] == ["other", "total"]


def test_an_answer_without_text_has_no_first_text() -> None:
    assert "first_token" not in timing((1.0, "vision")).spans()
    assert timing((1.0, "vision"), first=5.0).spans()["first_token"] == [(0.0, 5.0)]
