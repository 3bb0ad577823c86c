"""Where the encoders run, chosen and said why: TensorRT engines, or ONNX Runtime on TensorRT, CUDA or the CPU."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..bundle.manifest import CPU, TENSORRT, Bundle
from ..errors import BadInput, MissingDependency, StllmError
from .engines import Engine, find_engines
from .gpu import find_gpu
from .local import CPU_PROVIDER, onnx_runtime

__all__ = ["DEVICES", "Placement", "place"]

LOG = logging.getLogger(__name__)
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
TENSORRT_PROVIDER, CUDA_PROVIDER = "TensorrtExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Placement:
    """Where and how the encoders run.

    Attributes:
        name: for logs and reports, with the reason where there is one.
        graphs: whose graphs ONNX Runtime loads; None takes what `Options.provider` says.
        providers: ONNX Runtime's execution providers, the preferred one first.
        engines: TensorRT engines by encoder; ONNX Runtime is not used where there are any.
        shared: whether the GPU's memory is the system's.
    """

    name: str
    graphs: str | None = None
    providers: tuple[str, ...] = (CPU_PROVIDER,)
    engines: dict[str, Engine] = field(default_factory=dict)
    shared: bool = True

    @property
    def on_gpu(self) -> bool:
        return bool(self.engines) or self.providers[0] != CPU_PROVIDER


def place(device: str, strict: bool, bundle: Bundle, precision: str) -> Placement:
    """The best placement that a device allows; a warning says when it is not the first choice, and why.

    Args:
        device: one of `DEVICES`.
        strict: whether something else than the first choice is an error; for `auto` with a GPU, that is engines.
        bundle: may hold engines.
        precision: of the encoders.

    Raises:
        BadInput: the device is not known.
        StllmError: strict, and the first choice is not available.
    """
    if device not in DEVICES:
        raise BadInput(f"--device {device}: unknown; known are {', '.join(DEVICES)}")
    refused: list[str] = []
    for candidate in candidates(device):
        try:
            placement = candidate(bundle, precision)
        except StllmError as error:
            if strict:
                raise type(error)(f"--device {device} --strict: {error}") from None
            refused.append(str(error))
            continue
        if refused:
            LOG.warning("--device %s: encoders run on %s instead: %s", device, placement.name, "; ".join(refused))
        return placement
    raise AssertionError("the CPU is always a candidate")


def candidates(device: str) -> Sequence[Callable[[Bundle, str], Placement]]:
    """What to try for a device, in order."""
    if device == "auto":
        return (engines, cuda, cpu) if find_gpu() else (no_gpu,)
    return {"cpu": (cpu,), "cuda": (cuda, cpu), "tensorrt": (engines, onnx_tensorrt, cuda, cpu)}[device]


def engines(bundle: Bundle, precision: str) -> Placement:
    """The bundle's own engines."""
    gpu = find_gpu()
    if gpu is None:
        raise MissingDependency("TensorRT engines need a GPU, and the CUDA driver finds none")
    from .tensorrt import INSTALL, installed_versions

    versions = installed_versions()
    if not versions:
        raise MissingDependency(f"TensorRT is not installed; {INSTALL['tensorrt']}")
    found = find_engines(bundle, precision, gpu.capability, versions)
    return Placement(f"TensorRT engines, {gpu.name}", engines=found, shared=gpu.shared)


def onnx_tensorrt(bundle: Bundle, precision: str) -> Placement:
    """ONNX Runtime's TensorRT provider, which builds engines of its own as it goes."""
    require_provider(TENSORRT_PROVIDER)
    # nodes that TensorRT refuses fall to CUDA, and then to the CPU
    return Placement("ONNX Runtime with TensorRT", TENSORRT, (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER))


def cuda(bundle: Bundle, precision: str) -> Placement:
    """ONNX Runtime's CUDA provider, which knows the fused operators of the CPU's graphs."""
    require_provider(CUDA_PROVIDER)
    return Placement("ONNX Runtime with CUDA", CPU, (CUDA_PROVIDER, CPU_PROVIDER))


def cpu(bundle: Bundle, precision: str) -> Placement:
    """ONNX Runtime on the CPU."""
    return Placement("the CPU")


def no_gpu(bundle: Bundle, precision: str) -> Placement:
    """The CPU, where there is nothing else."""
    unused = f" for the bundle's engines ({', '.join(bundle.engines)})" if bundle.engines else ""
    return Placement(f"the CPU: there is no GPU{unused}")


def require_provider(name: str) -> None:
    """Raise MissingDependency when ONNX Runtime was built without a provider, or there is no GPU for it."""
    if name not in onnx_runtime().get_available_providers():
        raise MissingDependency(f"this ONNX Runtime has no {name}; install onnxruntime-gpu in its place")
    if find_gpu() is None:
        raise MissingDependency(f"{name} needs a GPU, and the CUDA driver finds none")
