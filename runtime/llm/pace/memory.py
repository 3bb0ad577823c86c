"""Rates of the language model that were measured before, in the user's cache folder."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle.files import atomic_path, cache_folder
from ..libllama import libllama

__all__ = ["fingerprint", "recall", "remember"]

LOG = logging.getLogger(__name__)
# another number is another way to measure
REVISION = 1
MOST_REMEMBERED = 64
# lines of /proc/cpuinfo that tell processors apart, on x86 and on ARM; others change from one moment to the next
PROCESSOR = {"model name", "stepping", "flags", "Features", *(f"CPU {x}" for x in ("implementer", "part", "variant"))}


def fingerprint(model: str, *measured: Any) -> str:
    """SHA-256 over all that rates depend on: processors, libllama, the model, and what is measured of it.

    Args:
        model: digest of the model's file.
        measured: values that JSON knows.
    """
    llama = libllama()
    library = Path(llama.llama_cpp.__file__).parent / "lib"
    build = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(library.glob("*ggml*"))]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processors = sorted({line for line in lines if line.partition("\t")[0] in PROCESSOR})
    machine = [processors, llama.__version__, llama.llama_print_system_info().decode(), build]
    return hashlib.sha256(json.dumps([REVISION, machine, model, measured]).encode()).hexdigest()


def recall(key: str) -> Any:
    """What was remembered under a key; None where nothing is, or nothing that can be read."""
    try:
        return json.loads(memory().read_text())[key]
    except (OSError, ValueError, TypeError, LookupError):
        return None


def remember(key: str, value: Mapping[str, Any]) -> None:
    """Keep a value beside those that are known; without a folder for them, it is measured each time."""
    try:
        known = json.loads(memory().read_text())
    except (OSError, ValueError):
        known = {}
    kept = dict(list(known.items())[-MOST_REMEMBERED:]) if isinstance(known, dict) else {}
    try:
        with atomic_path(memory()) as temporary:
            temporary.write_text(json.dumps({**kept, key: value}, indent=1))
    except OSError as error:
        LOG.info("rates are not remembered: %s", error)


def memory() -> Path:
    """Where rates are kept; raises OSError where the user has no home."""
    return cache_folder() / "pace.json"
