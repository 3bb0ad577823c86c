"""Where the language model runs, chosen and said why, libllama's GPU or CPU; and types of its keys and values."""

import logging

from ..errors import BadInput, MissingDependency
from .libllama import offloads

__all__ = ["ALL_LAYERS", "KV_TYPES", "check_kv", "gpu_layers"]

LOG = logging.getLogger(__name__)
ALL_LAYERS = -1
# by the numbers that GGML gives them
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


def gpu_layers(device: str, strict: bool, asked: int | None, has_gpu: bool) -> int:
    """Layers of the language model on the GPU, -1 for all; a warning says when libllama has none to put them on.

    Args:
        device: as `--device` takes it.
        strict: whether the CPU in the GPU's place is an error.
        asked: how many; None for none on the CPU and else all.
        has_gpu: whether the CUDA driver finds a GPU.

    Raises:
        MissingDependency: strict, and there is no GPU, or libllama was built without one.
    """
    on_cpu = device == "cpu" or (device == "auto" and not has_gpu)
    layers = asked if asked is not None else 0 if on_cpu else ALL_LAYERS
    if not layers:
        return 0
    if not offloads():
        reason = "llama-cpp-python was built for the CPU; docs/jetson.md builds it with CUDA"
    elif not has_gpu:
        reason = "the CUDA driver finds no GPU"
    else:
        return layers
    if strict:
        raise MissingDependency(f"--device {device} --strict: {reason}")
    LOG.warning("--device %s: the language model runs on the CPU instead: %s", device, reason)
    return 0


def check_kv(kv: str, flash_attention: bool | None) -> None:
    """Raise BadInput for a type of keys and values that is not known, or that flash attention is needed for."""
    if kv not in KV_TYPES:
        raise BadInput(f"--kv {kv}: unknown; known are {', '.join(KV_TYPES)}")
    if kv == "q8_0" and flash_attention is False:
        raise BadInput("--kv q8_0 needs flash attention; leave out --no-flash-attention or use --kv f16")
