"""What measuring costs, against stllm-run in turns."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.process import overhead
from stllm_edge.benchmarks.latency.workload import of_recording
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.errors import StllmError
from stllm_edge.runtime.options import Options, Recording


def test_it_alternates_and_prints_the_ratio_with_its_pairs(
    tiny_bundle: Path, sample: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def measured(*given: Any) -> float:
        asked.append("measured")
        # as long as stllm-run made it
        assert given[-1] == 3
        return 2.2

    def bare(*given: Any) -> tuple[float, int]:
        asked.append("bare")
        return 2.0 if len(asked) > 1 else 50.0, 3

    monkeypatch.setattr(overhead, "ask_measured", measured)
    monkeypatch.setattr(overhead, "ask_bare", bare)
    options = ["--frames", "2", "--quant", "Q8_0", "-n", "3", "--pairs", "2"]
    sources = ["--bundle", str(tiny_bundle), "--scene", str(sample[0]), "--video", str(sample[1])]
    monkeypatch.setattr(sys, "argv", ["overhead", *sources, "-q", "Where is the cup?", *options])
    overhead.main()
    told = json.loads(capsys.readouterr().out)
    # the first warms up
    assert asked == ["bare", "measured", "bare", "bare", "measured"]
    assert told["ratio"] == told["of_the_least"] == pytest.approx(1.1)
    assert told["pairs"] == [[2.2, 2.0]] * 2


def test_both_answer_the_same_question_in_about_the_same_time(tiny_bundle: Path, sample: tuple[Path, Path]) -> None:
    bundle, options = Bundle(tiny_bundle), Options(quant="Q8_0", threads=1)
    (question,) = of_recording(Recording(*sample), ["Where is the cup?"], frames=2, new_tokens=3).questions
    bare, tokens = overhead.ask_bare(bundle, options, question, 2, 3)
    assert 1 <= tokens <= 3
    measured = overhead.ask_measured(bundle, options, question, 2, tokens)
    assert 0.1 < measured / bare < 10


def test_an_error_of_stllm_run_is_said(tiny_bundle: Path, sample: tuple[Path, Path]) -> None:
    (question,) = of_recording(Recording(*sample), ["Where?"], frames=2, new_tokens=3).questions
    with pytest.raises(StllmError, match="stllm-run ended with status 2"):
        overhead.ask_bare(Bundle(tiny_bundle), Options(quant="Q2_K"), question, 2, 3)
