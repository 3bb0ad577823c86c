"""Sensors as files of the kernel: rails, temperatures and clocks, of a Jetson or of a PC.

Rails are those of the INA3221 and INA238 monitors that Jetson boards have (Linux, Documentation/hwmon), on a PC those
of RAPL (Documentation/power/powercap). None of them is the wall.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "BYTE",
    "CELSIUS",
    "HERTZ",
    "SECOND",
    "WATT",
    "Sensor",
    "find_sensors",
    "hottest",
    "total_rails",
    "used_memory",
]

WATT, CELSIUS, HERTZ, BYTE, SECOND = "watt", "celsius", "hertz", "byte", "second"
MILLI, KILO, MICRO = 1e-3, 1e3, 1e-6
# zones of parts that are off read as -256 degrees, or as nothing at all
LEAST_CELSIUS, MOST_CELSIUS = -50.0, 200.0
# a rail that all others hang on, the first that is there; where none is, they are added up
INPUTS = ("VIN", "VDD_IN")
# of channels that add up others, or are not connected
NO_RAILS = re.compile(r"sum of|^NC$", re.IGNORECASE)
GPU_CLOCK, MEMORY_CLOCK = re.compile(r"gpu-gpc|\d+\.(gpu|ga10b|gv11b)$"), re.compile(r"bwmgr|emc")


@dataclass(frozen=True)
class Sensor:
    """Something that can be read again and again.

    Attributes:
        name: as the board calls it.
        unit: watt, celsius, hertz or byte.
        read: its value now, or None where there is none.
    """

    name: str
    unit: str
    read: Callable[[], float | None] = field(compare=False)


def find_sensors(root: Path = Path("/")) -> list[Sensor]:
    """All sensors of the tree of files below `root`, whether they can be read at the moment or not."""
    found = [*rails(root), *packages(root), *zones(root), *clocks(root)]
    if root == Path("/"):
        found += cards()
    return found


def total_rails(sensors: list[Sensor]) -> list[Sensor]:
    """The rails whose sum is what the module takes: the one that feeds all others, or else all of them."""
    of_board = [sensor for sensor in sensors if sensor.unit == WATT]
    return next(([sensor] for name in INPUTS for sensor in of_board if sensor.name == name), of_board)


def hottest(sensors: list[Sensor]) -> float | None:
    """The highest temperature, celsius."""
    readings = [sensor.read() for sensor in sensors if sensor.unit == CELSIUS]
    return max((value for value in readings if value is not None), default=None)


def rails(root: Path) -> Iterator[Sensor]:
    """Rails of hwmon's power monitors: voltage times current, or power where the monitor computes it."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        monitor = text(folder / "name") or ""
        if monitor.startswith("ina3221"):
            for label in sorted(folder.glob("in[123]_label")):
                name, channel = text(label), label.name[2]
                if name and not NO_RAILS.search(name):
                    files = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                    yield Sensor(name, WATT, product(files, MICRO))
        elif monitor.startswith("ina2"):
            # it has no labels; on Jetson boards it is at the input
            yield Sensor("VIN", WATT, product((folder / "power1_input",), MICRO))


def packages(root: Path) -> Iterator[Sensor]:
    """Packages of RAPL: watts are those since the reading before."""
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        # packages alone: cores and memory below them are counted in them
        if folder.name.count(":") == 1 and (name := text(folder / "name")):
            yield Sensor(name, WATT, Counter(folder).watts)


def zones(root: Path) -> Iterator[Sensor]:
    """Zones of the kernel's thermal framework."""
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if name := text(folder / "type"):
            yield Sensor(name, CELSIUS, plausible(product((folder / "temp",), MILLI)))


def clocks(root: Path) -> Iterator[Sensor]:
    """Clocks of processors, GPU and memory now."""
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        yield Sensor(f"cpu{folder.name.removeprefix('policy')}", HERTZ, product((folder / "scaling_cur_freq",), KILO))
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        for name, pattern in (("gpu", GPU_CLOCK), ("memory", MEMORY_CLOCK)):
            if pattern.search(folder.name):
                yield Sensor(name, HERTZ, product((folder / "cur_freq",), 1.0))


def cards() -> Iterator[Sensor]:
    """Cards that NVIDIA's management library knows, where its Python package is installed and the library is there."""
    try:
        import pynvml
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return
    for place, handle in enumerate(handles):
        yield from card(pynvml, handle, f"gpu{place}")


def card(library: Any, handle: Any, name: str) -> Iterator[Sensor]:
    """Power, temperature, clock and memory of a card; what its driver does not tell is None."""
    asked: dict[str, Callable[[], float]] = {
        WATT: lambda: library.nvmlDeviceGetPowerUsage(handle) * MILLI,
        CELSIUS: lambda: float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)),
        HERTZ: lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM) * 1e6,
        BYTE: lambda: float(library.nvmlDeviceGetMemoryInfo(handle).used),
    }
    for unit, ask in asked.items():

        def read(ask: Callable[[], float] = ask) -> float | None:
            try:
                return ask()
            except library.NVMLError:
                return None

        yield Sensor(name, unit, read)


def used_memory(root: Path) -> Callable[[], float | None] | None:
    """What reads how much of a memory that GPU and processors share is in use, bytes; None where they do not."""
    if not (root / "etc/nv_tegra_release").exists():
        return None

    def read() -> float | None:
        told = dict(
            re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", text(root / "proc/meminfo") or "", re.MULTILINE)
        )
        return (int(told["MemTotal"]) - int(told["MemAvailable"])) * 1024.0 if len(told) == 2 else None

    return read


class Counter:
    """A counter of microjoules that begins again at its end."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._last: tuple[float, int] | None = None

    def watts(self) -> float | None:
        """Mean since the reading before; None the first time, or where it cannot be read."""
        energy, now = integer(self._folder / "energy_uj"), time.perf_counter()
        before, self._last = self._last, None if energy is None else (now, energy)
        if energy is None or before is None or now == before[0]:
            return None
        gained = energy - before[1]
        if gained < 0:
            gained += integer(self._folder / "max_energy_range_uj") or 0
        return gained * MICRO / (now - before[0]) if gained >= 0 else None


def product(files: tuple[Path, ...], scale: float) -> Callable[[], float | None]:
    """What reads the product of the numbers in files, in some unit; None where one is gone."""

    def read() -> float | None:
        value = scale
        for file in files:
            number = integer(file)
            if number is None:
                return None
            value *= number
        return value

    return read


def plausible(read: Callable[[], float | None]) -> Callable[[], float | None]:
    """A temperature without the values that stand for none."""

    def checked() -> float | None:
        value = read()
        return value if value is not None and LEAST_CELSIUS < value < MOST_CELSIUS else None

    return checked


def integer(file: Path) -> int | None:
    """The number in a file; None where there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def text(file: Path) -> str | None:
    """What a file of the kernel says, without the zeros that end strings of the device tree; None where it is not."""
    try:
        return file.read_text(errors="replace").rstrip("\0\n ") or None
    except OSError:
        return None
