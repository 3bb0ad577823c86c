"""A fixed piece of work: it takes time, and a machine that does nothing else takes about as long each time."""

from itertools import cycle

import pytest
from stllm_edge.benchmarks.latency.machine import spin as module
from stllm_edge.benchmarks.latency.machine.spin import restlessness, spin


def test_the_work_takes_time() -> None:
    assert 0 < spin() < 1


def test_restlessness_is_what_the_slowest_tenth_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    spent = cycle([0.0, 1.0] * 8 + [0.0, 1.5] * 2)

    def now() -> float:
        clock[0] += next(spent)
        return clock[0]

    monkeypatch.setattr(module.time, "perf_counter", now)
    assert restlessness() == pytest.approx(0.5)
