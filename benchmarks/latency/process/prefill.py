"""Reading a prompt as this runtime does, and as `llama-bench` does by default, in turns.

    python -m stllm_edge.benchmarks.latency.process.prefill --bundle BUNDLE --quant Q4_K_M --positions 2048 --pairs 5

The other side is libllama's own calls with llama-bench's defaults: batches of 2,048 and micro-batches of 512 positions,
flash attention and weights as libllama has them, all cores. What is printed is the ratio of its time to ours, with a
95 % interval over pairs; above 1 we are ahead. With `--calls 2048`, calls of so many positions are read in turns with
calls of 512, as this runtime has them, with the same micro-batch; above 1, smaller calls are quicker. With
`--tokens 64`, the other side has this runtime's own settings, and both write so many tokens after the prompt.
"""

import argparse
import ctypes
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.bundle.manifest import Bundle
from ....runtime.llm.libllama import Context, Flag, libllama, load_model
from ....runtime.llm.model import LanguageModel
from ....runtime.llm.pace.bench import Pace
from ....runtime.options import Options
from ....runtime.session import decide
from ..statistics import bootstrap

__all__ = ["compare", "compare_calls", "compare_loops", "main"]

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
    parser.add_argument("--tokens", type=int)
    given = parser.parse_args()
    sizes = (given.bundle, given.quant, given.positions, given.pairs)
    if given.tokens is not None:
        print(json.dumps(compare_loops(*sizes, given.tokens)))
        return
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


def compare_loops(bundle: Path, quant: str | None, positions: int, pairs: int, tokens: int) -> dict[str, Any]:
    """Ratios of bare calls' time to this runtime's, of a prompt and of tokens after it, with the same settings."""
    setup = decide(Bundle(bundle), Options(quant=quant, device="cpu"))
    chosen, room = setup.pace(PROMPT, Flag()), positions + tokens
    bare = Bare(setup.bundle.file(setup.llm.file), room, OURS, chosen.pace)
    seconds = []
    with setup.load_llm(room, chosen=chosen) as model, bare:
        rows = np.random.default_rng(0).standard_normal((positions, model.width), np.float32)
        for number in range(pairs + 1):
            timed: dict[str, tuple[float, float]] = {}
            for side in ("bare", "ours") if number % 2 else ("ours", "bare"):
                if side == "bare":
                    timed[side] = bare.read(rows), bare.write(tokens)
                else:
                    timed[side] = ours(model, rows), written(model, tokens)
            seconds.append((*timed["bare"], *timed["ours"]))
    ratios = [bootstrap([[row[stage] / row[stage + 2]] for row in seconds[1:]]) for stage in (0, 1)]
    found = {name: asdict(ratio) for name, ratio in zip(("prefill", "decode"), ratios, strict=True)}
    return {**found, "pairs": seconds[1:], "ours": chosen.to_json()}


def written(model: LanguageModel, tokens: int) -> float:
    """Seconds of this runtime for tokens, one after the other, each with its logits."""
    begin = time.perf_counter()
    for _ in range(tokens):
        model.decode_tokens([1])
        model.logits()
    return time.perf_counter() - begin


def ours(model: LanguageModel, rows: np.ndarray) -> float:
    """Seconds of this runtime."""
    model.restart(len(rows))
    begin = time.perf_counter()
    model.decode_embeddings(rows)
    return time.perf_counter() - begin


class Bare:
    """A model as llama-bench loads it; as a context manager, it is freed."""

    def __init__(self, file: Path, positions: int, batch: int = BATCH, pace: Pace | None = None):
        """Load it with room for so many positions, of which a call takes `batch`, and run it as `pace` says."""
        self._llama, cores = libllama(), pace.threads if pace else len(os.sched_getaffinity(0))
        # what is not given is llama-bench's default
        self._model = load_model(file, n_gpu_layers=0, use_extra_bufts=pace is None or pace.packed)
        run = {} if pace is None else settings_of(pace)
        sizes = {"n_ctx": positions, "n_batch": batch, "n_ubatch": MICRO_BATCH, **run}
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

    def write(self, tokens: int) -> float:
        """Seconds for tokens after it, one after the other, each with its logits."""
        token = (ctypes.c_int32 * 1)(1)
        begin = time.perf_counter()
        for _ in range(tokens):
            if self._llama.llama_decode(self._context.pointer, self._llama.llama_batch(n_tokens=1, token=token)):
                raise RuntimeError("llama_decode failed")
            self._llama.llama_synchronize(self._context.pointer)
            self._llama.llama_get_logits_ith(self._context.pointer, -1)
        return time.perf_counter() - begin

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()
        self._llama.llama_model_free(self._model)


def settings_of(pace: Pace) -> dict[str, int]:
    """A pace as fields of `llama_context_params`."""
    return {
        "n_ubatch": pace.micro_batch,
        "flash_attn_type": -1 if pace.flash_attention is None else int(pace.flash_attention),
    }


if __name__ == "__main__":
    main()
