"""How to run a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .bundle.manifest import CPU
from .errors import BadInput
from .llm.kv_types import check_kv

__all__ = ["ALL_LAYERS", "Options"]

ALL_LAYERS = -1
# libllama's own limit
MOST_THREADS = 512


@dataclass(frozen=True)
class Options:
    """How to run; None lets the session decide, and what it decided is logged.

    Attributes:
        precision: of the encoders, fp32 or fp16.
        quant: of the language model, as the bundle names it.
        threads: CPU threads.
        kv: type of the language model's keys and values, f16, q8_0 or f32.
        flash_attention: on, off, or libllama's own choice.
        device: where the encoders run, auto, cpu, cuda or tensorrt.
        strict: whether running elsewhere than on that device is an error.
        gpu_layers: layers of the language model on the GPU, -1 for all; None for none with the device cpu, else all.
        resident: keep the encoders and the language model loaded in this process until the session is closed, instead
            of encoders in short-lived processes: quicker from the second question on, and takes more memory.
        check_digests: hash the bundle's files even if they look unchanged.
        provider: whose graphs run on ONNX Runtime's CPU provider: its own, or the portable ones.
        repack: let libllama keep a packed copy of the weights for its CPU kernels; None does where the memory is free
            and a measurement says that it pays.
        literal: keep every rounding of the graphs, which ONNX Runtime's optimiser leaves out where it can; slow.
    """

    precision: str | None = None
    quant: str | None = None
    threads: int | None = None
    kv: str = "f16"
    flash_attention: bool | None = None
    device: str = "auto"
    strict: bool = False
    gpu_layers: int | None = None
    resident: bool = False
    check_digests: bool = False
    provider: str = CPU
    repack: bool | None = None
    literal: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Options":
        """The options among named values, as a command has them; others keep their defaults."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def check(self) -> None:
        """Raise BadInput when a value is not known, or when two contradict each other."""
        check_kv(self.kv, self.flash_attention)
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise BadInput(f"--threads {self.threads}: expected 1 to {MOST_THREADS}")
        if self.gpu_layers is not None and self.gpu_layers < ALL_LAYERS:
            raise BadInput(f"--gpu-layers {self.gpu_layers}: expected a number of layers, or {ALL_LAYERS} for all")
