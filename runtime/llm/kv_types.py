"""Types of the language model's keys and values."""

from ..errors import BadInput

__all__ = ["KV_TYPES", "check_kv"]

# by the numbers that GGML gives them
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


def check_kv(kv: str, flash_attention: bool | None) -> None:
    """Raise BadInput for a type of keys and values that is not known, or that flash attention is needed for."""
    if kv not in KV_TYPES:
        raise BadInput(f"--kv {kv}: unknown; known are {', '.join(KV_TYPES)}")
    if kv == "q8_0" and flash_attention is False:
        raise BadInput("--kv q8_0 needs flash attention; leave out --no-flash-attention or use --kv f16")
