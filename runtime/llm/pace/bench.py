"""One layer of a language model, timed."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..libllama import Context, Flag, libllama, load_model
from ..model import without_tokenizer
from ..placement import KV_TYPES
from .excerpt import ROWS, layer_file

__all__ = ["POSITIONS", "Bench", "Pace", "Rates"]

# positions read at once: with fewer, kernels that take them in blocks do not show what they can do
POSITIONS, STEPS = 256, 4
# what a question of 32 frames reads and writes
PROMPT, ANSWER = 6850, 64
FILLED_AT_ONCE = 512


@dataclass(frozen=True)
class Pace:
    """How a language model is run; answers are as exact with each, and the same to the bit without flash attention.

    Attributes:
        packed: from a copy of the weights in the layout of libllama's CPU kernels, else as they are mapped.
        threads: of the CPU.
        micro_batch: positions of a prompt that are evaluated at once.
        flash_attention: on, off, or None for libllama's own choice.
    """

    packed: bool
    threads: int
    micro_batch: int
    flash_attention: bool | None


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


class Bench:
    """A layer cut out of a model, in both layouts; as a context manager, it frees them."""

    def __init__(self, path: Path, kv: str, flag: Flag):
        """Cut it out.

        Args:
            path: GGUF file.
            kv: type of keys and values.
            flag: ends what runs when it is set.

        Raises:
            StllmError: libllama cannot run the layer.
            OSError: the layer cannot be copied.
        """
        self._llama, self._kv, self._flag = libllama(), kv, flag
        self._stack, self._models = ExitStack(), {}  # type: ExitStack, dict[bool, Any]
        try:
            self._file = self._stack.enter_context(layer_file(path))
            width = int(self._llama.llama_model_n_embd_inp(self._model(packed=False)))
        except BaseException:
            self._stack.close()
            raise
        self._rows = np.random.default_rng(0).standard_normal((POSITIONS, width), np.float32)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def rates(self, paces: Sequence[Pace], *, depth: int, rounds: int, seconds: float) -> list[Rates]:
        """Rates of each, which take turns, since a machine is not equally fast at all times; the best of each counts.

        Args:
            paces: ways to run the layer.
            depth: positions before those that are timed.
            rounds: least turns.
            seconds: least time for all turns.
        """
        best = np.full((len(paces), 2), np.inf)
        begin, turn = time.perf_counter(), 0
        while turn < rounds or time.perf_counter() - begin < seconds:
            for pace, fastest in zip(paces, best, strict=True):
                fastest[:] = np.minimum(fastest, self._once(pace, depth))
            turn += 1
        return [Rates(float(1 / position), float(1 / token)) for position, token in best]

    def _once(self, pace: Pace, depth: int) -> tuple[float, float]:
        """Seconds of a position of a prompt, and of a token after it."""
        count = max(POSITIONS, pace.micro_batch)
        context = Context(
            self._model(pace.packed),
            n_ctx=depth + count + STEPS,
            n_batch=max(count, FILLED_AT_ONCE),
            n_ubatch=pace.micro_batch,
            n_outputs_max=count,
            n_threads=pace.threads,
            n_threads_batch=pace.threads,
            type_k=KV_TYPES[self._kv],
            type_v=KV_TYPES[self._kv],
            flash_attn_type=-1 if pace.flash_attention is None else int(pace.flash_attention),
        )
        try:
            self._flag.watch(context.pointer)
            for start in range(0, depth, FILLED_AT_ONCE):
                # a last layer computes its feed-forward part for outputs alone, so keys and values are had for little
                self._decode(context, min(FILLED_AT_ONCE, depth - start), outputs=False)
            begin = time.perf_counter()
            self._decode(context, count, outputs=True)
            between = time.perf_counter()
            for _ in range(STEPS):
                self._decode(context, 1, outputs=True)
            return (between - begin) / count, (time.perf_counter() - between) / STEPS
        finally:
            context.close()

    def _decode(self, context: Context, count: int, *, outputs: bool) -> None:
        context.decode(np.resize(self._rows, (count, self._rows.shape[1])), outputs=outputs)
        self._llama.llama_synchronize(context.pointer)

    def _model(self, packed: bool) -> Any:
        if packed not in self._models:
            model = load_model(self._file, without_tokenizer(ROWS), n_gpu_layers=0, use_extra_bufts=packed)
            self._stack.callback(self._llama.llama_model_free, model)
            self._models[packed] = model
        return self._models[packed]
