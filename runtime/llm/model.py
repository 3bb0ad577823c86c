"""The language model on libllama: tokens and embeddings in, logits out, every call checked.

libllama aborts the process, reads past buffers or answers garbage on several kinds of misuse; each of them is an
exception here.
"""

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, DoesNotFit, StllmError
from .libllama import Context, Flag, apply_adapter, libllama, load_model
from .placement import KV_TYPES, check_kv

__all__ = ["LanguageModel"]

BATCH = 512
OUTPUTS_AT_ONCE = 64


class LanguageModel:
    """One sequence in one context.

    Attributes:
        vocabulary: rows of the logits.
        width: columns of an embedding.
        position: positions decoded so far.
        flag: set from another thread, it ends what is being decoded, until it is cleared.
    """

    _context: Any = None

    def __init__(
        self,
        path: Path,
        *,
        vocabulary: int,
        context: int,
        kv: str,
        flash_attention: bool | None,
        threads: int,
        gpu_layers: int = 0,
        micro_batch: int = BATCH,
        repack: bool = True,
        outputs: int = 1,
        adapter: Path | None = None,
        flag: Flag | None = None,
    ):
        """Map the weights and allocate the context.

        Args:
            path: GGUF file.
            vocabulary: rows of its embedding matrix.
            context: positions of prompt and answer.
            kv: type of keys and values, one of `KV_TYPES`.
            flash_attention: on, off, or None for libllama's own choice.
            threads: CPU threads.
            gpu_layers: layers on the GPU, -1 for all.
            micro_batch: positions evaluated at once; bounds the compute buffer.
            repack: let libllama copy weights into its CPU kernels' layout; takes as much memory again.
            outputs: last positions whose logits are kept.
            adapter: GGUF file of a LoRA adapter.
            flag: ends the loading too, when it is set meanwhile; by default one of its own.

        Raises:
            BadBundle, BadInput: libllama refuses the file, or the options or the adapter.
            DoesNotFit: the context cannot be allocated.
        """
        check_kv(kv, flash_attention)
        self.flag, self.position = flag or Flag(), 0
        self._llama, self._outputs, self.vocabulary, self._adapter = libllama(), outputs, vocabulary, adapter
        load = functools.partial(load_model, path, without_tokenizer(vocabulary), self.flag)
        self._model = load(n_gpu_layers=gpu_layers, use_extra_bufts=repack)
        self.width = int(self._llama.llama_model_n_embd_inp(self._model))
        self._allocate = functools.partial(allocate, self._model, outputs, kv, flash_attention, threads, micro_batch)
        with closed_on_error(self):
            self._open_context(context)

    def restart(self, context: int) -> None:
        """Forget all positions; a context for fewer positions than `context` is replaced by a larger one.

        Raises:
            DoesNotFit: the larger context cannot be allocated.
        """
        if self._context is not None and context <= self._context.capacity:
            self._context.forget(0)
            self._forget()
            return
        self._free_context()
        self._open_context(context)

    def reserve(self, context: int) -> None:
        """Room for at least so many positions; those decoded so far stay.

        Raises:
            DoesNotFit: the larger context cannot be allocated; all positions are forgotten then.
        """
        if self._context is None or context > self._context.capacity:
            state, position = self.state(), self.position
            self.restart(context)
            self.restore(state, position)

    def forget(self, position: int) -> None:
        """Forget all positions from one on."""
        self._context.forget(position)
        self.position = min(self.position, position)

    def state(self) -> np.ndarray:
        """Keys and values of all positions as libllama stores them, [bytes] uint8."""
        return np.asarray(self._context.state())

    def restore(self, state: np.ndarray, position: int) -> None:
        """Take keys and values of `state` of a model like this one, after so many positions.

        Raises:
            BadInput: they are not those of a model and a type of keys and values like these.
        """
        self._forget()
        self._context.restore(state, position)
        self.position = position

    def _open_context(self, context: int) -> None:
        self._context = self._allocate(context)
        if self._adapter is not None:
            apply_adapter(self._model, self._context.pointer, self._adapter)
        self.flag.watch(self._context.pointer)
        self._forget()

    def _forget(self) -> None:
        self.position = 0
        self._kept: list[np.ndarray] = []

    def _free_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def decode_tokens(self, ids: Sequence[int] | np.ndarray) -> None:
        """Append tokens; raises BadInput for an id outside the vocabulary."""
        tokens = np.ascontiguousarray(ids, np.int32)
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise BadInput(f"token id outside 0..{self.vocabulary - 1}: {tokens.min()}..{tokens.max()}")
        pointer = ctypes.POINTER(self._llama.llama_token)
        self._decode(tokens, lambda part: {"token": part.ctypes.data_as(pointer)})

    def decode_embeddings(self, embeddings: np.ndarray) -> None:
        """Append positions given by embeddings [L, width] float32.

        Raises:
            BadInput: another width, or values that are not finite.
        """
        # libllama reads other widths and types past their end, computes with NaN, and answers garbage
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise BadInput(f"embeddings of shape {list(embeddings.shape)}; this model takes [L, {self.width}]")
        values = np.ascontiguousarray(embeddings, np.float32)
        if not np.isfinite(values).all():
            raise BadInput("embeddings hold NaN or infinity; an encoder overflowed, try --precision fp32")
        pointer = ctypes.POINTER(ctypes.c_float)
        self._decode(values, lambda part: {"embd": part.ctypes.data_as(pointer)})

    def _decode(self, rows: np.ndarray, arguments: Any) -> None:
        # before the first batch: libllama refuses only the one that does not fit, with the others decoded
        if self.position + len(rows) > self._context.capacity:
            raise BadInput(
                f"the prompt and the answer need {self.position + len(rows)} positions, the context has "
                f"{self._context.capacity}; lower --frames or --max-new-tokens"
            )
        context, most = self._context.pointer, self._context.batch
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            every = {} if self._outputs == 1 else {"logits": (ctypes.c_int8 * len(part))(*[1] * len(part))}
            # without positions and flags it continues after the last position, and makes logits for the last row alone
            batch = self._llama.llama_batch(n_tokens=len(part), **arguments(part), **every)
            if code := self._llama.llama_decode(context, batch):
                # an interrupted batch leaves the parts of it that were done
                self.forget(self.position)
                raise StllmError(f"llama_decode returned {code} at position {self.position}")
            self.position += len(part)
            if every:
                self._keep(len(part))
        # on a GPU, decoding returns before it is done, and the time would count for whatever comes next
        self._llama.llama_synchronize(context)

    def logits(self) -> np.ndarray:
        """Logits after the last position, [vocabulary] float32."""
        # null where no output was asked for: as an array it would end the process
        pointer = self._llama.llama_get_logits_ith(self._context.pointer, -1)
        if not pointer:
            raise StllmError("libllama holds no logits; decode something first")
        # the next decode overwrites libllama's own
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()

    def last_logits(self) -> np.ndarray:
        """Logits after the last positions, [P, vocabulary] float32; P is `outputs` or, if fewer, all positions."""
        return self.logits()[None] if self._outputs == 1 else np.concatenate(self._kept)

    def _keep(self, count: int) -> None:
        """Copy the logits of the positions just decoded, and drop what is older than the last `outputs`."""
        pointer = self._llama.llama_get_logits(self._context.pointer)
        self._kept.append(np.ctypeslib.as_array(pointer, (count, self.vocabulary)).copy())
        surplus = sum(map(len, self._kept)) - self._outputs
        while surplus > 0:
            dropped = min(surplus, len(self._kept[0]))
            self._kept[0] = self._kept[0][dropped:].copy()
            surplus -= dropped
            if not len(self._kept[0]):
                del self._kept[0]

    def close(self) -> None:
        """Free the context and the model."""
        self._free_context()
        if self._model is not None:
            self._llama.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> "LanguageModel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def closed_on_error(model: LanguageModel) -> Iterator[None]:
    """Free a model whose making fails."""
    try:
        yield
    except BaseException:
        model.close()
        raise


def without_tokenizer(vocabulary: int) -> dict[str, int | str]:
    """Metadata with which libllama leaves out the tokenizer and so loads a model in a fifth of the time.

    Ids are all that goes in and comes out here. But libllama takes the number of rows from the tokenizer, and so has to
    be given it; it compares the number with the matrices, and refuses a wrong one.
    """
    return {"tokenizer.ggml.model": "none", "qwen2.vocab_size": vocabulary}


def allocate(
    model: Any,
    outputs: int,
    kv: str,
    flash: bool | None,
    threads: int,
    micro_batch: int,
    context: int,
    sequences: int = 1,
) -> Context:
    """A context for so many positions; raises DoesNotFit where it cannot be allocated."""
    # logits of a whole batch are held twice
    largest = max(BATCH, micro_batch) if outputs == 1 else OUTPUTS_AT_ONCE
    try:
        return Context(
            model,
            n_ctx=context,
            n_batch=largest,
            n_ubatch=min(micro_batch, largest),
            # several share the context's memory
            n_seq_max=sequences,
            kv_unified=sequences > 1,
            # a row of logits is read, of a sequence; a row of each position would take 300 MB at Qwen2's vocabulary
            n_outputs_max=sequences if outputs == 1 else largest,
            n_threads=threads,
            n_threads_batch=threads,
            type_k=KV_TYPES[kv],
            type_v=KV_TYPES[kv],
            flash_attn_type=-1 if flash is None else int(flash),
        )
    except MemoryError:
        raise DoesNotFit(f"a context of {context} positions with --kv {kv} could not be allocated") from None
