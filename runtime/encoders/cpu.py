"""What the CPU has for INT8, by the kernel's own list."""

import re
from pathlib import Path

__all__ = ["has_int8_dot_product"]

CPUINFO = Path("/proc/cpuinfo")
# x86: AVX-VNNI, AVX-512 VNNI, AMX; ARM: dot product and matrix multiplication
FEATURES = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}


def has_int8_dot_product() -> bool:
    """Whether products of bytes are one instruction; yes where the kernel does not say."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        return True
    return found is None or not FEATURES.isdisjoint(found[1].split())
