"""The devices that engines are built for."""

from dataclasses import dataclass

from ...runtime.errors import BadInput

__all__ = ["RTX", "TARGETS", "TENSORRT", "Target", "dotted", "find_target"]

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
GIB = 2**30
SHARED_PART = 8


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        name: as `--target` takes it.
        capability: CUDA compute capability, major and minor.
        backend: what builds for it: `tensorrt` on the device itself, `tensorrt-rtx` ahead of time on any machine.
        memory: bytes of the smallest such device.
        shared: whether the GPU's memory is the system's.
        nearest: capability that TensorRT for RTX knows and that comes closest, for checks away from the device.
    """

    name: str
    capability: tuple[int, int]
    backend: str
    memory: int
    shared: bool
    nearest: tuple[int, int]

    @property
    def workspace(self) -> int:
        """Bytes that the builder and a layer may use as scratch; a small part of what a device shares with its CPU."""
        return self.memory // SHARED_PART if self.shared else self.memory // 2


def jetson(name: str, capability: tuple[int, int], gib: int, nearest: tuple[int, int]) -> Target:
    return Target(name, capability, TENSORRT, gib * GIB, True, nearest)


def card(name: str, capability: tuple[int, int], gib: int) -> Target:
    return Target(name, capability, RTX, gib * GIB, False, capability)


TARGETS = {
    target.name: target
    for target in (
        jetson("orin-nano", (8, 7), 8, (8, 6)),
        jetson("orin-nx", (8, 7), 16, (8, 6)),
        jetson("orin", (8, 7), 32, (8, 6)),
        jetson("thor", (11, 0), 128, (12, 0)),
        card("rtx-turing", (7, 5), 8),
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


def dotted(capability: tuple[int, int]) -> str:
    """A compute capability as CUDA writes it, `8.7`."""
    return "{}.{}".format(*capability)
