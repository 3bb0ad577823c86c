"""What measuring costs, against stllm-run in turns."""

import json
import sys
from pathlib import Path

import pytest
from stllm_edge.benchmarks.latency.process import overhead


def test_it_alternates_and_prints_the_ratio_with_its_pairs(
    tiny_bundle: Path, sample: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    for name in ("ask_measured", "ask_bare"):
        ask = getattr(overhead, name)
        monkeypatch.setattr(overhead, name, lambda *given, ask=ask, name=name: (asked.append(name), ask(*given))[1])
    options = ["--frames", "2", "--quant", "Q8_0", "-n", "3", "--pairs", "1"]
    sources = ["--bundle", str(tiny_bundle), "--scene", str(sample[0]), "--video", str(sample[1])]
    monkeypatch.setattr(sys, "argv", ["overhead", *sources, "-q", "Where is the cup?", *options])
    overhead.main()
    told = json.loads(capsys.readouterr().out)
    # the first pair warms up
    assert asked == ["ask_bare", "ask_measured"] * 2
    ((measured, bare),) = told["pairs"]
    assert told["ratio"] == told["of_the_least"] == pytest.approx(measured / bare)
    assert 0.2 < told["ratio"] < 5
