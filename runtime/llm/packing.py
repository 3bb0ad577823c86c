"""Whether libllama's packed copy of the weights is worth its memory: measured once a machine, build and model.

libllama can copy quantised weights into a layout that some of its CPU kernels run faster on, and others slower: with
AVX-512, reading a prompt takes 1.6 times as long with the copy. Which it is cannot be told from the outside. So one
layer of the model is timed both ways, and the rates are remembered.
"""

import functools
import hashlib
import json
import logging
import time
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..bundle.files import atomic_path, cache_folder
from ..errors import StllmError
from ..memory.counters import available
from .excerpt import ROWS, layer_file
from .libllama import libllama
from .model import LanguageModel

__all__ = ["Rates", "pays_to_pack"]

LOG = logging.getLogger(__name__)
# the mapped weights, a packed copy of them, and the rest
ROOM = 2.5
# what a question of 32 frames reads and writes
PROMPT, ANSWER = 6850, 64
# the copy has to be paid for with memory, and with its making each time that the model is loaded
EARNS = 1.05
# positions read at once: with fewer, kernels that take them in blocks do not show what they can do
POSITIONS, STEPS = 256, 4
LEAST_ROUNDS, SECONDS = 2, 1.0
# of the time that a prompt takes, at most this part is spent on the measurement
SHARE = 0.1
MOST_REMEMBERED = 64
# lines of /proc/cpuinfo that tell processors apart, on x86 and on ARM; others change from one moment to the next
PROCESSOR = {"model name", "stepping", "flags", "Features", *(f"CPU {x}" for x in ("implementer", "part", "variant"))}


@dataclass(frozen=True)
class Rates:
    """How fast one layer is.

    Attributes:
        prefill: positions of a prompt, a second.
        decode: tokens one by one, a second.
    """

    prefill: float
    decode: float

    @property
    def seconds(self) -> float:
        """That a layer takes for a question."""
        return PROMPT / self.prefill + ANSWER / self.decode


def pays_to_pack(path: Path, *, layers: int, positions: int, threads: int) -> bool:
    """Whether to let libllama pack a model's weights; the reason is logged.

    They are not packed where memory is short: two and a half times the file's size has to be free. Otherwise the rates
    of `measure` decide, for a question of 32 frames. A prompt that is read in less than ten times what measuring takes
    is not worth it, and gets the weights as they are mapped, which load at once.

    Args:
        path: GGUF file.
        layers: of the model, that run on the CPU.
        positions: of prompt and answer.
        threads: CPU threads.
    """
    free, size = available(), path.stat().st_size
    if free is not None and free <= ROOM * size:
        LOG.info("weights are used as they are mapped: there is no memory for a packed copy")
        return False
    key = fingerprint(path, threads)
    rates, known = recall(key), "measured before"
    if rates is None:
        if SHARE * positions * layers < 2 * LEAST_ROUNDS * POSITIONS:
            LOG.info("weights are used as they are mapped: the prompt is too short for a packed copy to matter")
            return False
        try:
            rates, known = measure(path, threads), "measured now, and remembered"
        except (StllmError, OSError) as error:
            LOG.info("weights are used as they are mapped: a packed copy could not be timed (%s)", error)
            return False
        remember(key, rates)
    mapped, packed = rates
    pays = EARNS * packed.seconds < mapped.seconds
    LOG.info(
        "weights are %s: a layer reads %.0f and writes %.0f positions a second from them as they are mapped, "
        "%.0f and %.0f from a packed copy (%s)",
        "packed" if pays else "used as they are mapped",
        *astuple(mapped),
        *astuple(packed),
        known,
    )
    return pays


def measure(path: Path, threads: int) -> tuple[Rates, Rates]:
    """Rates of a layer with its weights as they are mapped, and packed.

    The two take turns for a second, since a machine is not equally fast at all times, and the best of each counts.

    Raises:
        StllmError: libllama cannot run the layer.
        OSError: the layer cannot be copied.
    """
    with ExitStack() as stack:
        load = functools.partial(
            LanguageModel,
            stack.enter_context(layer_file(path)),
            vocabulary=ROWS,
            context=POSITIONS + STEPS,
            kv="f16",
            flash_attention=None,
            threads=threads,
        )
        models = [stack.enter_context(load(repack=repack)) for repack in (False, True)]
        prompt = np.random.default_rng(0).standard_normal((POSITIONS, models[0].width), np.float32)
        best = [[np.inf, np.inf], [np.inf, np.inf]]
        begin, rounds = time.perf_counter(), 0
        while rounds < LEAST_ROUNDS or time.perf_counter() - begin < SECONDS:
            for model, fastest in zip(models, best, strict=True):
                model.restart(POSITIONS + STEPS)
                fastest[:] = np.minimum(fastest, time_once(model, prompt))
            rounds += 1
    mapped, packed = (Rates(float(POSITIONS / read), float(STEPS / written)) for read, written in best)
    return mapped, packed


def time_once(model: LanguageModel, prompt: np.ndarray) -> tuple[float, float]:
    """Seconds for a prompt, and for single positions after it."""
    begin = time.perf_counter()
    model.decode_embeddings(prompt)
    between = time.perf_counter()
    for position in prompt[:STEPS]:
        model.decode_embeddings(position[None])
    return between - begin, time.perf_counter() - between


def fingerprint(path: Path, threads: int) -> str:
    """SHA-256 over all that the rates depend on: processors, libllama, and the model's file."""
    llama = libllama()
    library = Path(llama.llama_cpp.__file__).parent / "lib"
    build = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(library.glob("*ggml*"))]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processors = sorted({line for line in lines if line.partition("\t")[0] in PROCESSOR})
    model = path.name, path.stat().st_size
    described = [processors, threads, llama.__version__, llama.llama_print_system_info().decode(), build, model]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def recall(key: str) -> tuple[Rates, Rates] | None:
    """Rates that were remembered; None when there are none that can be read."""
    try:
        mapped, packed = (Rates(*map(float, rates)) for rates in json.loads(memory().read_text())[key])
        usable = all(0 < rate < np.inf for rate in (*astuple(mapped), *astuple(packed)))
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return (mapped, packed) if usable else None


def remember(key: str, rates: tuple[Rates, Rates]) -> None:
    """Keep rates beside those that are known; without a folder for them, they are measured each time."""
    try:
        known = json.loads(memory().read_text())
    except (OSError, ValueError):
        known = {}
    kept = dict(list(known.items())[-MOST_REMEMBERED:]) if isinstance(known, dict) else {}
    try:
        with atomic_path(memory()) as temporary:
            temporary.write_text(json.dumps({**kept, key: [astuple(rate) for rate in rates]}, indent=1))
    except OSError as error:
        LOG.info("rates are not remembered: %s", error)


def memory() -> Path:
    """Where rates are kept; raises OSError where the user has no home."""
    return cache_folder() / "packing.json"
