"""The devices that engines are built for, and what builds for them."""

from dataclasses import dataclass

from ...runtime.encoders.gpu import Gpu, find_gpu
from ...runtime.encoders.tensorrt import installed_versions
from ...runtime.errors import BadInput

__all__ = ["BACKENDS", "RTX", "TARGETS", "Target", "choose_backend", "dotted", "find_target", "this_device"]

# TensorRT builds on the device itself; TensorRT for RTX ahead of time, on any machine, for these capabilities. It knows
# 7.5 too, but has no FP32 matrix products there
BACKENDS = TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
AHEAD_OF_TIME = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
GIB = 2**30
SHARED_PART = 8
# firmware keeps a part of a board's memory to itself
RESERVED = 0.8


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        name: as `--target` takes it.
        capability: CUDA compute capability, major and minor.
        backends: what builds for it, the usual one first.
        memory: bytes of the smallest such device.
        shared: whether the GPU's memory is the system's.
    """

    name: str
    capability: tuple[int, int]
    backends: tuple[str, ...]
    memory: int
    shared: bool

    @property
    def workspace(self) -> int:
        """Bytes that the builder and a layer may use as scratch; a small part of what a device shares with its CPU."""
        return self.memory // SHARED_PART if self.shared else self.memory // 2

    @property
    def nearest(self) -> tuple[int, int]:
        """Capability that TensorRT for RTX knows and that comes closest, for checks away from the device."""
        return min(AHEAD_OF_TIME, key=lambda known: abs(number(known) - number(self.capability)))


def jetson(name: str, capability: tuple[int, int], gib: int) -> Target:
    return Target(name, capability, (TENSORRT,), gib * GIB, True)


def card(name: str, capability: tuple[int, int], gib: int) -> Target:
    return Target(name, capability, (RTX, TENSORRT), gib * GIB, False)


TARGETS = {
    target.name: target
    for target in (
        jetson("orin-nano", (8, 7), 8),
        jetson("orin-nx", (8, 7), 16),
        jetson("orin", (8, 7), 32),
        jetson("thor", (11, 0), 128),
        card("rtx-ampere", (8, 6), 8),
        card("rtx-ada", (8, 9), 8),
        card("rtx-blackwell", (12, 0), 8),
    )
}


def find_target(name: str) -> Target:
    """A target by name; raises BadInput with the known ones."""
    if name not in TARGETS:
        raise BadInput(f"--target {name}: unknown; known are {', '.join(TARGETS)}")
    return TARGETS[name]


def this_device() -> Target:
    """The kind of device that this machine is; raises BadInput when it has no GPU."""
    gpu = find_gpu()
    if gpu is None:
        raise BadInput(f"--target: there is no GPU here to build for; name one of {', '.join(TARGETS)}, or add --check")
    return target_of(gpu)


def target_of(gpu: Gpu) -> Target:
    """The largest known kind of device that a GPU is at least; for one that is not known, a kind of its own."""
    alike = [target for target in TARGETS.values() if dotted(target.capability) == gpu.capability]
    if not alike:
        major, _, minor = gpu.capability.partition(".")
        return Target(f"sm{major}{minor}", (int(major), int(minor)), (TENSORRT,), gpu.memory, gpu.shared)
    fitting = [target for target in alike if target.memory * RESERVED <= gpu.memory]
    return max(fitting, key=lambda target: target.memory) if fitting else min(alike, key=lambda target: target.memory)


def choose_backend(target: Target, asked: str | None) -> str:
    """What builds for a target on this machine.

    Args:
        target: kind of device.
        asked: `tensorrt` or `tensorrt-rtx`; None for the first of the target's that is installed.

    Raises:
        BadInput: it does not build for the target, or not here.
    """
    backend = asked or next((name for name in target.backends if name in installed_versions()), target.backends[0])
    if backend not in target.backends:
        raise BadInput(f"--backend {backend}: does not build for {target.name}; {' and '.join(target.backends)} does")
    if backend == TENSORRT:
        require_device(target)
    return backend


def require_device(target: Target) -> None:
    """Raise BadInput anywhere but on the target."""
    gpu = find_gpu()
    if gpu is None or gpu.capability != dotted(target.capability):
        here = "there is no GPU" if gpu is None else f"{gpu.name} has {gpu.capability}"
        raise BadInput(
            f"--target {target.name}: TensorRT builds on the device itself, compute capability "
            f"{dotted(target.capability)}, and here {here}; run it there, or add --check to compile for a near one"
        )


def dotted(capability: tuple[int, int]) -> str:
    """A compute capability as CUDA writes it, `8.7`."""
    return "{}.{}".format(*capability)


def number(capability: tuple[int, int]) -> int:
    """A compute capability as one number, 87."""
    major, minor = capability
    return 10 * major + minor
