"""The sensors read in turn while something else works, and what they add up to between two moments."""

import bisect
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from ....runtime.memory.counters import counters
from ...watch import tree
from .sensors import BYTE, WATT, Sensor, hottest, total_rails

__all__ = ["Monitor", "Reading"]

LOG = logging.getLogger(__name__)
INTERVAL = 0.1


@dataclass(frozen=True)
class Reading:
    """A sensor's value at a moment of `time.perf_counter`; None where it was there before and is no longer."""

    moment: float
    sensor: str
    unit: str
    value: float | None


class Monitor:
    """Reads sensors in a thread of its own; a context manager, within which it does."""

    def __init__(
        self,
        sensors: list[Sensor],
        shared: Callable[[], float | None] | None = None,
        interval: float = INTERVAL,
    ):
        """Read nothing yet.

        Args:
            sensors: what to read; memory of the processes below this one is read too.
            shared: tells how much is in use of a memory that the GPU shares with the processors, bytes.
            interval: seconds from one reading to the next.
        """
        self._sensors, self._shared, self._interval = sensors, shared, interval
        self._before = shared() if shared else None
        self._rails = total_rails(sensors)
        # of each rail, moments and watts
        self._power: dict[str, tuple[list[float], list[float]]] = {}
        # moments, and what the GPU holds
        self._gpu: list[tuple[float, float]] = []
        self._readings: list[Reading] = []
        self._there: dict[tuple[str, str], bool] = {}
        self._last: dict[tuple[str, str], float | None] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)

    @property
    def rails(self) -> list[str]:
        """Names of the rails that add up to what the module takes."""
        return [sensor.name for sensor in self._rails]

    def hottest(self) -> float | None:
        """The highest temperature now, celsius."""
        return hottest(self._sensors)

    def sample(self) -> None:
        """Read all sensors once."""
        with self._lock:
            for sensor in self._sensors:
                value = sensor.read()
                self._note(sensor.name, sensor.unit, time.perf_counter(), value)
                if sensor.unit == BYTE and value is not None:
                    self._gpu.append((time.perf_counter(), value))
            used = [counters(process) for process in tree(os.getpid())[1:]]
            held = {
                name: float(sum(each.get(column, 0) for each in used for column in columns))
                for name, columns in {"anonymous": ("RssAnon",), "mapped": ("RssFile", "RssShmem")}.items()
            }
            for name, value in held.items():
                self._note(name, BYTE, time.perf_counter(), value)
            if self._shared and self._before is not None and (now := self._shared()) is not None:
                # what has been taken since, and is not the processes' own
                value = max(now - self._before - held["anonymous"], 0.0)
                self._note("gpu", BYTE, time.perf_counter(), value)
                self._gpu.append((time.perf_counter(), value))

    def note(self, name: str, unit: str, value: float) -> None:
        """Keep a reading that was made elsewhere, now."""
        with self._lock:
            self._note(name, unit, time.perf_counter(), value)

    def take(self) -> list[Reading]:
        """The readings since they were taken last; of a value that stays as it is the first, but of power all."""
        with self._lock:
            taken, self._readings = self._readings, []
        return taken

    def watts(self, begin: float, end: float) -> float | None:
        """Mean power between two moments, over the rails that add up to the module's; None where one is not known."""
        found = [self._energy(name, [(begin, end)]) for name in self.rails]
        known = [energy for energy in found if energy is not None]
        return sum(known) / (end - begin) if found and len(known) == len(found) and end > begin else None

    def joules(self, spans: Sequence[tuple[float, float]]) -> dict[str, float]:
        """Energy by rail over spans of time, joules; what was not read before, after and in between is left out."""
        energies = {name: self._energy(name, spans) for name in self._power}
        return {name: energy for name, energy in energies.items() if energy is not None}

    def total(self, joules: Mapping[str, float]) -> float | None:
        """What a module took, joules, from the energies of its rails; None where one of them is missing."""
        return sum(joules[name] for name in self.rails) if self.rails and set(self.rails) <= set(joules) else None

    def gpu_bytes(self, spans: Sequence[tuple[float, float]]) -> int | None:
        """Most that the GPU held by the readings within spans; None where there are none."""
        with self._lock:
            held = [value for moment, value in self._gpu if any(begin <= moment <= end for begin, end in spans)]
        return int(max(held)) if held else None

    def _energy(self, name: str, spans: Sequence[tuple[float, float]]) -> float | None:
        """Integral of a rail's power, by the trapezoidal rule, over spans that its readings enclose."""
        with self._lock:
            moments, watts = (list(values) for values in self._power.get(name, ([], [])))
        first, last = (min(begin for begin, _ in spans), max(end for _, end in spans)) if spans else (0.0, 0.0)
        if len(moments) < 2 or first < moments[0] or last > moments[-1]:
            return None
        # readings long before or after say nothing of what is between
        start, stop = bisect.bisect_right(moments, first) - 1, bisect.bisect_left(moments, last) + 1
        times, power = np.array(moments[start:stop]), np.array(watts[start:stop])
        if np.isnan(power).any():
            return None
        summed = np.concatenate([[0.0], np.cumsum(np.diff(times) * (power[1:] + power[:-1]) / 2)])
        edges = np.array(spans)
        place = np.clip(np.searchsorted(times, edges, side="right") - 1, 0, None)
        since = summed[place] + (edges - times[place]) * (power[place] + np.interp(edges, times, power)) / 2
        return float((since[:, 1] - since[:, 0]).sum())

    def _note(self, name: str, unit: str, moment: float, value: float | None) -> None:
        """Keep a reading; a sensor that was there and is no longer is None once, and said once."""
        there = self._there.get((name, unit))
        if value is None and not there:
            return
        if value is None:
            LOG.warning("sensor %s (%s) can no longer be read; what needs it is left out from now on", name, unit)
        self._there[name, unit] = value is not None
        # a clock or a memory that stays as it is fills no file
        if unit == WATT or self._last.get((name, unit)) != value:
            self._readings.append(Reading(moment, name, unit, value))
        self._last[name, unit] = value
        if unit == WATT:
            moments, watts = self._power.setdefault(name, ([], []))
            moments.append(moment)
            watts.append(np.nan if value is None else value)

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self.sample()

    def __enter__(self) -> "Monitor":
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
