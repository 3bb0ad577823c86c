"""Readings while something works: energy between two moments, and sensors that vanish midway."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stllm_edge.benchmarks.latency.machine.monitor import Monitor
from stllm_edge.benchmarks.latency.machine.sensors import Sensor, find_sensors, used_memory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, to be set."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def read_at(monitor: Monitor, clock: list[float], moments: list[float]) -> None:
    for moment in moments:
        clock[0] = moment
        monitor.sample()


def ramp(name: str, clock: list[float], slope: float) -> Sensor:
    """A rail whose power grows with time."""
    return Sensor(name, "watt", lambda: slope * clock[0])


def test_energy_is_the_integral_of_power(clock: list[float]) -> None:
    monitor = Monitor([ramp("VDD_IN", clock, 2.0), ramp("VDD_SOC", clock, 1.0)])
    read_at(monitor, clock, [0.0, 1.0, 2.0, 5.0])
    found = monitor.joules([(1.0, 2.0), (4.0, 5.0)])
    # of t between 1 and 2, and 4 and 5
    assert found == {"VDD_IN": pytest.approx(2 * 6.0), "VDD_SOC": pytest.approx(6.0)}
    # the others hang on the input, and are not added to it
    assert monitor.total(found) == found["VDD_IN"]
    assert monitor.watts(1.0, 3.0) == pytest.approx(4.0)


def test_rails_without_an_input_are_added_up(clock: list[float]) -> None:
    monitor = Monitor([ramp("VDD_GPU_SOC", clock, 2.0), ramp("VDD_CPU_CV", clock, 1.0)])
    read_at(monitor, clock, [0.0, 2.0])
    assert monitor.total(monitor.joules([(0.0, 2.0)])) == pytest.approx(6.0)
    assert monitor.watts(0.0, 2.0) == pytest.approx(3.0)


def test_what_was_not_read_around_a_moment_has_no_energy(clock: list[float]) -> None:
    monitor = Monitor([ramp("VDD_IN", clock, 2.0)])
    assert monitor.joules([(0.0, 1.0)]) == {}
    read_at(monitor, clock, [1.0, 2.0])
    assert monitor.joules([(0.5, 1.5)]) == monitor.joules([(1.5, 2.5)]) == {}
    assert monitor.total({}) is None
    assert monitor.watts(0.5, 1.5) is None


def test_a_rail_that_vanishes_is_said_once_and_has_no_energy_from_then_on(
    board: Callable[..., Path], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    root = board("orin-nano")
    monitor = Monitor(find_sensors(root))
    read_at(monitor, clock, [0.0, 1.0])
    before = monitor.joules([(0.0, 1.0)])
    assert monitor.total(before) == pytest.approx(6.0)
    board("orin-nano", {"sys/class/hwmon/hwmon1/curr1_input": None})
    with caplog.at_level(logging.WARNING):
        read_at(monitor, clock, [2.0, 3.0])
    assert caplog.text.count("sensor VDD_IN (watt) can no longer be read") == 1
    assert monitor.joules([(0.0, 1.0)]) == before
    after = monitor.joules([(0.5, 2.5)])
    assert set(after) == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    assert monitor.total(after) is None
    told = [reading.value for reading in monitor.take() if reading.sensor == "VDD_IN"]
    assert told == [6.0, 6.0, None]
    board("orin-nano")
    read_at(monitor, clock, [4.0, 5.0])
    assert monitor.total(monitor.joules([(4.0, 5.0)])) == pytest.approx(6.0)


def test_a_sensor_that_was_never_there_has_no_reading(board: Callable[..., Path]) -> None:
    monitor = Monitor(find_sensors(board("thor")))
    monitor.sample()
    assert "gpu-thermal" not in {reading.sensor for reading in monitor.take()}
    assert monitor.hottest() == pytest.approx(55.2)


def test_readings_are_taken_once(board: Callable[..., Path]) -> None:
    monitor = Monitor(find_sensors(board("thor")))
    monitor.sample()
    assert {reading.unit for reading in monitor.take()} == {"watt", "celsius", "hertz", "byte"}
    assert monitor.take() == []
    monitor.sample()
    # of what is as it was, power alone is read for its sum
    assert {reading.unit for reading in monitor.take()} <= {"watt", "byte"}
    board("thor", {"sys/class/thermal/thermal_zone0/temp": 60_000})
    monitor.sample()
    assert [reading.value for reading in monitor.take() if reading.unit == "celsius"] == [60.0]


def test_what_a_gpu_takes_of_shared_memory_is_the_growth_that_is_no_process_s(
    board: Callable[..., Path], clock: list[float]
) -> None:
    root = board("orin-nano")
    monitor = Monitor([], used_memory(root))
    read_at(monitor, clock, [1.0])
    board("orin-nano", {"proc/meminfo": "MemTotal: 7802880 kB\nMemAvailable: 5000000 kB\n"})
    read_at(monitor, clock, [2.0])
    assert monitor.gpu_bytes([(0.5, 1.5)]) == 0
    assert monitor.gpu_bytes([(0.5, 2.5)]) == pytest.approx(1_000_000 * 1024, rel=0.1)
    assert monitor.gpu_bytes([(2.5, 3.0)]) is None


def test_it_reads_by_itself_and_sees_the_memory_of_processes_below() -> None:
    # ready once it holds 64 MB
    program = "held = bytearray(b'1') * 2**26; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        with Monitor([], interval=0.01) as monitor:
            start = time.monotonic()
            while len(seen := [each for each in monitor.take() if each.sensor == "anonymous"]) < 1:
                assert time.monotonic() - start < 10
                time.sleep(0.01)
        child.stdin.close()
    assert seen[0].value is not None
    assert seen[0].value > 2**26
