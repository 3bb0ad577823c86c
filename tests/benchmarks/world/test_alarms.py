"""What is right is let pass, what is wrong is told, and both are counted."""

import logging
import sys
from pathlib import Path

import pytest
from stllm_edge.benchmarks.world import alarms
from stllm_edge.benchmarks.world.alarms import main, outcome
from stllm_edge.benchmarks.world.mistakes import MISTAKES, RIGHT, record


def test_outcomes() -> None:
    take = record(0)
    assert outcome(take) == ("silent", False)
    assert outcome(take.stored("w2c"), "--pose-convention w2c") == ("refused", True)
    assert outcome(take.stored("w2c"), "--scale") == ("refused", False)
    assert outcome(take.scaled(10, 10), "--scale") == ("warned", True)


def test_the_table(closet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, caplog) -> None:
    """One room, and the reference case in files."""
    caplog.set_level(logging.ERROR, "stllm_edge")
    monkeypatch.setattr(alarms, "RIGHT", {name: RIGHT[name] for name in ("as they are", "depth camera")})
    monkeypatch.setattr(alarms, "MISTAKES", [mistake for mistake in MISTAKES if mistake.kind == "millimetres"])
    files = [str(Path(closet.scene)), str(Path(closet.video))]
    monkeypatch.setattr(sys, "argv", ["alarms", "--rooms", "1", "--also", *files])
    main()
    assert capsys.readouterr().out.splitlines()[2:4] == [
        "| right: as they are | 2 | 0 | 0 | 2 |  |",
        "| right: depth camera | 2 | 0 | 1 | 1 |  |",
    ]
