"""Sensors of three boards, of a PC and of a card, found and read; what is absent is None."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.machine.sensors import Sensor, find_sensors, hottest, total_rails, used_memory

READINGS = {
    "orin-nano": {
        ("VDD_IN", "watt"): 6.0,
        ("VDD_CPU_GPU_CV", "watt"): 2.0,
        ("VDD_SOC", "watt"): 1.5,
        ("cpu-thermal", "celsius"): 48.5,
        ("gpu-thermal", "celsius"): 47.0,
        ("tj-thermal", "celsius"): 49.1,
        ("cv0-thermal", "celsius"): None,
        ("cpu0", "hertz"): 1.728e9,
        ("cpu4", "hertz"): 1.344e9,
        ("gpu", "hertz"): 1.02e9,
    },
    "agx-orin": {
        ("VDD_GPU_SOC", "watt"): 3.0,
        ("VDD_CPU_CV", "watt"): 1.0,
        ("VIN_SYS_5V0", "watt"): 5.0,
        ("VDDQ_VDD2_1V8AO", "watt"): 1.0,
        ("CPU-therm", "celsius"): 51.0,
        ("GPU-therm", "celsius"): 48.0,
        ("tj-therm", "celsius"): 51.5,
        ("cpu0", "hertz"): 2.2016e9,
        ("gpu", "hertz"): 1.3005e9,
    },
    "thor": {
        ("VDD_GPU", "watt"): 24.0,
        ("VDD_CPU_SOC_MSS", "watt"): 7.2,
        ("VIN_SYS_5V0", "watt"): 6.0,
        ("VIN", "watt"): 45.6,
        ("cpu-thermal", "celsius"): 53.7,
        ("soc012-thermal", "celsius"): 55.1,
        ("tj-thermal", "celsius"): 55.2,
        ("gpu-thermal", "celsius"): None,
        ("cpu0", "hertz"): 2.601e9,
        ("gpu", "hertz"): 1.575e9,
        ("memory", "hertz"): 4.266e9,
    },
}
TOTALS = {
    "orin-nano": ["VDD_IN"],
    "agx-orin": ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"],
    "thor": ["VIN"],
}


def readings(sensors: list[Sensor]) -> dict[tuple[str, str], float | None]:
    return {(sensor.name, sensor.unit): sensor.read() for sensor in sensors}


@pytest.mark.parametrize("name", READINGS)
def test_all_sensors_of_a_board_are_read(name: str, board: Callable[..., Path]) -> None:
    found = find_sensors(board(name))
    assert readings(found) == pytest.approx(READINGS[name])
    assert [sensor.name for sensor in total_rails(found)] == TOTALS[name]
    assert hottest(found) == max(value for (_, unit), value in READINGS[name].items() if unit == "celsius" and value)


def test_a_machine_without_sensors_has_none(tmp_path: Path) -> None:
    assert find_sensors(tmp_path) == total_rails([]) == []
    assert hottest([]) is None
    assert used_memory(tmp_path) is None


@pytest.mark.parametrize("now", [None, "", "abc", "-256000"])
def test_a_sensor_that_says_nothing_is_none_and_not_zero(now: str | None, board: Callable[..., Path]) -> None:
    zone = "sys/class/thermal/thermal_zone0/temp"
    root = board("orin-nano")
    sensors = find_sensors(root)
    board("orin-nano", {zone: now})
    assert readings(sensors)["cpu-thermal", "celsius"] is None
    assert readings(sensors)["gpu-thermal", "celsius"] == 47.0


def test_a_rail_without_current_is_none(board: Callable[..., Path]) -> None:
    root = board("orin-nano", {"sys/class/hwmon/hwmon1/curr1_input": None})
    assert readings(find_sensors(root))["VDD_IN", "watt"] is None


def test_memory_that_the_gpu_shares_is_what_the_kernel_says_is_used(board: Callable[..., Path]) -> None:
    root = board("orin-nano")
    read = used_memory(root)
    assert read is not None
    assert read() == (7_802_880 - 6_000_000) * 1024
    board("orin-nano", {"proc/meminfo": None})
    assert read() is None


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None, float], float | None]:
    """The watts that a package's counter makes, at a number of microjoules and a moment."""
    folder = tmp_path / "sys/class/powercap"
    for name, said in {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "name").write_text(said)
        (folder / name / "max_energy_range_uj").write_text("10000000")
    (sensor,) = find_sensors(tmp_path)
    assert (sensor.name, sensor.unit) == ("package-0", "watt")
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def read(energy: int | None, moment: float) -> float | None:
        clock[0] = moment
        file = folder / "intel-rapl:0/energy_uj"
        file.unlink(missing_ok=True)
        if energy is not None:
            file.write_text(str(energy))
        return sensor.read()

    return read


def test_a_counter_of_energy_gives_the_mean_power_since_the_reading_before(rapl: Any) -> None:
    told = [rapl(*at) for at in ((1_000_000, 1.0), (4_000_000, 2.0), (2_000_000, 3.0), (None, 4.0), (3_000_000, 5.0))]
    # at first there is nothing to compare with, and at its end the counter begins again
    assert told == [None, pytest.approx(3.0), pytest.approx(8.0), None, None]


class Refused(Exception):
    pass


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """NVIDIA's library with one card, whose driver does not tell its power."""
    library = ModuleType("pynvml")

    def refuse(handle: str) -> float:
        raise Refused

    for name, value in {
        "NVMLError": Refused,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda place: f"card {place}",
        "nvmlDeviceGetPowerUsage": refuse,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetTemperature": lambda handle, kind: 60,
        "NVML_CLOCK_SM": 1,
        "nvmlDeviceGetClockInfo": lambda handle, kind: 1500,
        "nvmlDeviceGetMemoryInfo": lambda handle: type("Memory", (), {"used": 2**30}),
    }.items():
        setattr(library, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_a_card_tells_what_its_driver_knows(card: ModuleType) -> None:
    found = {unit: value for (name, unit), value in readings(find_sensors()).items() if name == "gpu0"}
    assert found == {"watt": None, "celsius": 60.0, "hertz": 1.5e9, "byte": 2**30}


@pytest.mark.parametrize("missing", ["library", "driver"])
def test_without_nvidia_s_library_or_driver_there_is_no_card(
    missing: str, card: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise Refused

    if missing == "library":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        card.nvmlInit = fail  # type: ignore[attr-defined]
    assert not [sensor for sensor in find_sensors() if sensor.name == "gpu0"]
