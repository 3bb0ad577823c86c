"""Boards in their power modes, from `devices.toml`, in which every figure has its source."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...runtime.errors import BadInput
from ...runtime.memory.plan import Processes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["THIS", "DepthCost", "Device", "LayerRates", "Range", "Share", "cpu_shares", "find_device", "names", "table"]

TABLE = Path(__file__).with_name("devices.toml")
# this machine, measured
THIS = "this"
MEGA = 10**6


class Range(NamedTuple):
    """From low to high."""

    low: float
    high: float

    def __mul__(self, factor: Any) -> "Range":
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Share:
    """How much of a device a backend reaches at a stage.

    Attributes:
        compute: share of the throughput.
        bandwidth: share of the bandwidth.
        loading: bytes of weights a second, from the page cache until they can be used.
        fixed: milliseconds whatever the size is, such as the making of a session.
        call: milliseconds of each call of its graph, whatever the size is: a CPU's threads meet after every node.
        apart: whether arithmetic and traffic take turns, as they do on a CPU.
        source: where that comes from.
    """

    compute: Range
    bandwidth: Range
    loading: Range
    fixed: Range
    call: Range
    apart: bool
    source: str

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Share":
        """From its entry in the file."""
        return cls(
            compute=Range(*entry["compute"]),
            bandwidth=Range(*entry["bandwidth"]),
            loading=Range(*entry.get("loading_gb", (math.inf, math.inf))) * 1e9,
            fixed=Range(*entry.get("fixed_ms", (0.0, 0.0))),
            call=Range(*entry.get("call_ms", (0.0, 0.0))),
            apart=entry.get("apart", False),
            source=entry["source"],
        )


@dataclass(frozen=True)
class DepthCost:
    """Seconds that come to something for what lies before it: at some depths, and linear between and beyond.

    Attributes:
        depths: positions before, ascending; the first is 0.
        seconds: more than at depth 0, which is the first and so 0.
    """

    depths: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, depths: np.ndarray) -> np.ndarray:
        """Seconds at each depth, float64."""
        (before, last), (below, most) = self.depths[-2:], self.seconds[-2:]
        beyond = np.maximum(depths - last, 0) * (most - below) / (last - before)
        return np.interp(depths, self.depths, self.seconds) + beyond


@dataclass(frozen=True)
class LayerRates:
    """Seconds that a layer of the language model takes.

    Attributes:
        position: of a prompt, alone.
        token: of the answer, alone.
        prompt_depth: what comes to a position of a prompt for those before it.
        token_depth: what comes to a token for the positions before it.
    """

    position: float
    token: float
    prompt_depth: DepthCost
    token_depth: DepthCost


@dataclass(frozen=True)
class Device:
    """A board in a power mode.

    Attributes:
        name: `board@mode`.
        title: in words.
        visible: bytes of memory that the board reports.
        idle: bytes that an idle system takes, from low to high.
        bandwidth: of the memory, bytes a second.
        flops: dense operations a second by number format, fp32, fp16 and int8.
        gpu_process: bytes that the GPU's libraries take in a process, from low to high; zeros without a GPU.
        host: seconds a unit of the stages that the CPU computes: a voxel, a frame, a ray.
        start: milliseconds until a process has its libraries.
        shares: what backends reach, by stage.
        sources: where each figure comes from, by what it is.
        processes: what they take by themselves.
        fixed: seconds of the host's stages whatever the size is, where they were timed.
        layers: what a layer of the language model takes, by quantisation, where it was timed.
        mapping: bytes a second of a file that are mapped for the first time.
        clearing: bytes a second of memory that is touched for the first time.
    """

    name: str
    title: str
    visible: int
    idle: Range
    bandwidth: float
    flops: Mapping[str, float]
    gpu_process: Range
    host: Mapping[str, Range]
    start: Range
    shares: Mapping[str, Share]
    sources: Mapping[str, str]
    processes: Processes = field(default_factory=Processes)
    fixed: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, LayerRates] = field(default_factory=dict)
    mapping: float = math.inf
    clearing: float = math.inf

    @property
    def usable(self) -> int:
        """Bytes that a question may take when the idle system takes most."""
        return int(self.visible - self.idle.high)


@cache
def table() -> dict[str, Any]:
    """The file as it is."""
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def names() -> list[str]:
    """All devices as they are asked for."""
    return [f"{board}@{mode}" for board, entry in table()["boards"].items() for mode in entry["modes"]]


def find_device(name: str) -> Device:
    """A device by `board@mode`, or by its board where that has one mode.

    Raises:
        BadInput: there is no such board, or it has no such mode; the message lists what there is.
    """
    boards = table()["boards"]
    board, _, mode = name.partition("@")
    if board not in boards:
        raise BadInput(f"--device {name}: no such board; there are {', '.join(boards)}, and {THIS} for this machine")
    modes = boards[board]["modes"]
    if not mode and len(modes) == 1:
        (mode,) = modes
    if mode not in modes:
        found = f"{board} has no mode {mode}" if mode else "the power mode is missing"
        raise BadInput(f"--device {name}: {found}; its modes are {', '.join(modes)}: {board}@{next(iter(modes))}")
    return describe(f"{board}@{mode}", boards[board], modes[mode])


def describe(name: str, board: Mapping[str, Any], mode: Mapping[str, Any]) -> Device:
    """A device from its entries in the file."""
    memory, chip, process = board["memory"], table()["architectures"][board["architecture"]], table()["gpu_process"]
    host, shares = table()["host"], {**table()["efficiency"]["tensorrt"], **table()["efficiency"]["llamacpp-cuda"]}
    # a core of another kind does less or more a clock than the one that was measured
    slower = Range(*host["slower"]) * (host["cpu_mhz"] / mode["cpu_mhz"])
    return Device(
        name=name,
        title=board["title"],
        visible=memory["visible_mb"] * MEGA,
        idle=Range(*memory["idle_mb"]) * MEGA,
        # two transfers a clock
        bandwidth=mode["memory_mhz"] * 1e6 * 2 * memory["bus_bits"] / 8,
        flops={
            # INT8 towers are not reported faster than FP16 on these boards (arXiv 2607.08029): as fast at the best
            kind: chip[rate] * mode["sms"] * mode["gpu_mhz"] * 1e6
            for kind, rate in (("fp16", "fp16"), ("fp32", "fp32"), ("int8", "fp16"))
        },
        gpu_process=Range(*process["mb"]) * MEGA,
        host={
            stage: slower * (nanoseconds * 1e-9)
            for stage, nanoseconds in host["nanoseconds"].items()
            if stage != "source"
        },
        start=slower * host["start_ms"],
        shares={stage: Share.of(entry) for stage, entry in shares.items()},
        sources={
            "memory": memory["source"],
            "clocks": mode["source"],
            "operations a clock": chip["source"],
            "GPU libraries": process["source"],
            "host": host["source"],
            **{stage: entry["source"] for stage, entry in shares.items()},
        },
    )


def cpu_shares() -> dict[str, Share]:
    """What ONNX Runtime and llama.cpp reach on a CPU, of the rate of ONNX Runtime's matrix products there."""
    found = table()["efficiency"]
    return {
        stage: Share.of(entry) for kind in ("onnxruntime-cpu", "llamacpp-cpu") for stage, entry in found[kind].items()
    }
