"""Reading a prompt as this runtime does, and as `llama-bench` does by default, in turns.

    python -m stllm_edge.benchmarks.latency.process.prefill --bundle BUNDLE --quant Q4_K_M --positions 2048 --pairs 5

The other side is libllama's own calls with llama-bench's defaults: batches of 2,048 and micro-batches of 512 positions,
flash attention and weights as libllama has them, all cores. What is printed is the ratio of its time to ours, with a
95 % interval over pairs; above 1 we are ahead. With `--calls 2048`, calls of so many positions are read in turns with
calls of 512, as this runtime has them, with the same micro-batch; above 1, smaller calls are quicker.
"""

import argparse
import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.bundle.manifest import Bundle
from ....runtime.llm.libllama import Context, Flag, libllama, load_model
from ....runtime.llm.model import LanguageModel
from ....runtime.options import Options
from ....runtime.session import decide
from ..statistics import bootstrap

__all__ = ["compare", "compare_calls", "main"]

BATCH, MICRO_BATCH = 2048, 512
# positions of a call of this runtime
OURS = 512
# the choice is that for a prompt of 32 frames, also where a shorter one is timed
PROMPT = 7168


def main() -> None:
    """Measure so many pairs as the arguments say and print one JSON object."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--quant")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls", type=int)
    given = parser.parse_args()
    sizes = (given.bundle, given.quant, given.positions, given.pairs)
    print(json.dumps(compare(*sizes) if given.calls is None else compare_calls(*sizes, given.calls)))


def compare(bundle: Path, quant: str | None, positions: int, pairs: int) -> dict[str, Any]:
    """Ratios of the bare calls' time to ours, and how ours were run."""
    setup = decide(Bundle(bundle), Options(quant=quant, device="cpu"))
    chosen = setup.pace(PROMPT, Flag())
    file = setup.bundle.file(setup.llm.file)
    with setup.load_llm(positions, chosen=chosen) as model, Bare(file, positions) as bare:
        rows = np.random.default_rng(0).standard_normal((positions, model.width), np.float32)
        # the first reads the weights, and does not count
        seconds = [(bare.read(rows), ours(model, rows)) for _ in range(pairs + 1)][1:]
    ratio = bootstrap([[theirs / mine] for theirs, mine in seconds])
    return {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "pairs": seconds, "ours": chosen.to_json()}


def compare_calls(bundle: Path, quant: str | None, positions: int, pairs: int, calls: int) -> dict[str, Any]:
    """Ratios of the time of calls of so many positions to that of `OURS`, all else being the same."""
    setup = decide(Bundle(bundle), Options(quant=quant, device="cpu"))
    file = setup.bundle.file(setup.llm.file)
    with Bare(file, positions, calls) as other, Bare(file, positions, OURS) as mine:
        rows = np.random.default_rng(0).standard_normal((positions, setup.llm.embedding.columns), np.float32)
        seconds = []
        for number in range(pairs + 1):
            # who is first takes turns too
            timed = {side: side.read(rows) for side in ((other, mine) if number % 2 else (mine, other))}
            seconds.append((timed[other], timed[mine]))
    ratio = bootstrap([[theirs / ours] for theirs, ours in seconds[1:]])
    return {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "pairs": seconds[1:]}


def ours(model: LanguageModel, rows: np.ndarray) -> float:
    """Seconds of this runtime."""
    model.restart(len(rows))
    begin = time.perf_counter()
    model.decode_embeddings(rows)
    return time.perf_counter() - begin


class Bare:
    """A model as llama-bench loads it; as a context manager, it is freed."""

    def __init__(self, file: Path, positions: int, batch: int = BATCH):
        """Load it with room for so many positions, of which a call takes `batch`."""
        self._llama, cores = libllama(), len(os.sched_getaffinity(0))
        self._model = load_model(file, n_gpu_layers=0)
        sizes = {"n_ctx": positions, "n_batch": batch, "n_ubatch": MICRO_BATCH}
        self._context = Context(self._model, **sizes, n_threads=cores, n_threads_batch=cores)

    def read(self, rows: np.ndarray) -> float:
        """Seconds for a prompt [L, width] float32."""
        self._context.forget(0)
        begin = time.perf_counter()
        for start in range(0, len(rows), self._context.batch):
            part = rows[start : start + self._context.batch]
            pointer = part.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            if self._llama.llama_decode(
                self._context.pointer, self._llama.llama_batch(n_tokens=len(part), embd=pointer)
            ):
                raise RuntimeError("llama_decode failed")
        self._llama.llama_synchronize(self._context.pointer)
        return time.perf_counter() - begin

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()
        self._llama.llama_model_free(self._model)


if __name__ == "__main__":
    main()
