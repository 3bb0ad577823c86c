"""The language model on libllama: tokens and embeddings in, logits out, every call checked.

libllama aborts the process, reads past buffers or answers garbage on several kinds of misuse; each of them is an
exception here.
"""

import ctypes
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.manifest import Embedding
from ..errors import BadBundle, BadInput, DoesNotFit, MissingDependency, StllmError

__all__ = ["KV_TYPES", "LanguageModel", "Vocabulary", "embedding_rows", "offloads"]

LOG = logging.getLogger(__name__)
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
BATCH = 512
Q8_0_BLOCK = 32


class Vocabulary:
    """The tokenizer inside a GGUF file, loaded without the weights."""

    def __init__(self, path: Path):
        """Load the vocabulary; raises BadBundle when libllama refuses the file."""
        self._llama = libllama()
        self._model = load_model(self._llama, path, vocab_only=True)
        self._vocab = self._llama.llama_model_get_vocab(self._model)

    def __len__(self) -> int:
        return int(self._llama.llama_vocab_n_tokens(self._vocab))

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are recognised; raises BadInput when it is not valid UTF-8."""
        self._require_open()
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput(f"{text!r} is not valid UTF-8 text") from None
        ids = (self._llama.llama_token * max(len(data), 1))()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, True)
        if count < 0:
            raise StllmError(f"libllama could not tokenise {text[:40]!r}")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for special tokens."""
        self._require_open()
        buffer = ctypes.create_string_buffer(64)
        count = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def close(self) -> None:
        """Free the vocabulary."""
        if self._model is not None:
            self._llama.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> "Vocabulary":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _require_open(self) -> None:
        """Raise StllmError once the vocabulary has been freed; libllama would read freed memory."""
        if self._model is None:
            raise StllmError("the vocabulary was closed; ask again")


class LanguageModel:
    """One sequence in one context.

    Attributes:
        vocabulary: rows of the logits.
        width: columns of an embedding.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        kv: str,
        flash_attention: bool | None,
        threads: int,
        gpu_layers: int = 0,
        micro_batch: int = BATCH,
        repack: bool = True,
    ):
        """Map the weights and allocate the context.

        Args:
            path: GGUF file.
            context: positions that the prompt and the answer need.
            kv: type of keys and values, one of `KV_TYPES`.
            flash_attention: on, off, or None for libllama's own choice.
            threads: CPU threads.
            gpu_layers: layers on the GPU, -1 for all.
            micro_batch: positions evaluated at once; bounds the compute buffer.
            repack: let libllama copy weights into the layout that its CPU kernels run best; takes as much memory again.

        Raises:
            BadBundle: libllama refuses the file.
            BadInput: the options contradict each other.
            DoesNotFit: the context cannot be allocated.
        """
        check_kv(kv, flash_attention)
        self._llama = libllama()
        self._model = load_model(self._llama, path, n_gpu_layers=gpu_layers, use_extra_bufts=repack)
        self._allocate = functools.partial(
            self._new_context, kv=kv, flash=flash_attention, threads=threads, micro_batch=micro_batch
        )
        try:
            self._open_context(context)
        except BaseException:
            self.close()
            raise
        self.width = int(self._llama.llama_model_n_embd_inp(self._model))
        vocab = self._llama.llama_model_get_vocab(self._model)
        self.vocabulary = int(self._llama.llama_vocab_n_tokens(vocab))

    def restart(self, context: int) -> None:
        """Forget all positions; a context for fewer positions than `context` is replaced by a larger one.

        Raises:
            DoesNotFit: the larger context cannot be allocated.
        """
        if self._context is not None and context <= self._capacity:
            self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), True)
            self._position = 0
            return
        self._free_context()
        self._open_context(context)

    def _open_context(self, context: int) -> None:
        self._context = self._allocate(context)
        self._batch = int(self._llama.llama_n_batch(self._context))
        self._capacity = int(self._llama.llama_n_ctx(self._context))
        self._position = 0

    def _free_context(self) -> None:
        if getattr(self, "_context", None) is not None:
            self._llama.llama_free(self._context)
            self._context = None

    def _new_context(self, context: int, *, kv: str, flash: bool | None, threads: int, micro_batch: int) -> Any:
        parameters = self._llama.llama_context_default_params()
        assign(
            parameters,
            n_ctx=context,
            n_batch=BATCH,
            n_ubatch=min(micro_batch, BATCH),
            n_outputs_max=1,
            n_threads=threads,
            n_threads_batch=threads,
            type_k=KV_TYPES[kv],
            type_v=KV_TYPES[kv],
            flash_attn_type=-1 if flash is None else int(flash),
        )
        created = self._llama.llama_init_from_model(self._model, parameters)
        if not created:
            raise DoesNotFit(f"a context of {context} positions with --kv {kv} could not be allocated")
        return created

    @property
    def position(self) -> int:
        """Positions decoded so far."""
        return self._position

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
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise BadInput(f"embeddings of shape {list(embeddings.shape)}; this model takes [L, {self.width}]")
        values = np.ascontiguousarray(embeddings, np.float32)
        if not np.isfinite(values).all():
            raise BadInput("embeddings hold NaN or infinity; an encoder overflowed, try --precision fp32")
        pointer = ctypes.POINTER(ctypes.c_float)
        self._decode(values, lambda part: {"embd": part.ctypes.data_as(pointer)})

    def _decode(self, rows: np.ndarray, arguments: Any) -> None:
        if self._position + len(rows) > self._capacity:
            raise BadInput(
                f"the prompt and the answer need {self._position + len(rows)} positions, the context has "
                f"{self._capacity}; lower --frames or --max-new-tokens"
            )
        for start in range(0, len(rows), self._batch):
            part = rows[start : start + self._batch]
            batch = self._llama.llama_batch(n_tokens=len(part), **arguments(part))
            if code := self._llama.llama_decode(self._context, batch):
                raise StllmError(f"llama_decode returned {code} at position {self._position}")
            self._position += len(part)
        self._llama.llama_synchronize(self._context)

    def logits(self) -> np.ndarray:
        """Logits after the last position, [vocabulary] float32."""
        pointer = self._llama.llama_get_logits_ith(self._context, -1)
        if not pointer:
            raise StllmError("libllama holds no logits; decode something first")
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()

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


def check_kv(kv: str, flash_attention: bool | None) -> None:
    """Raise BadInput for a type of keys and values that is not known, or that flash attention is needed for."""
    if kv not in KV_TYPES:
        raise BadInput(f"--kv {kv}: unknown; known are {', '.join(KV_TYPES)}")
    if kv == "q8_0" and flash_attention is False:
        raise BadInput("--kv q8_0 needs flash attention; leave out --no-flash-attention or use --kv f16")


def sample(logits: np.ndarray, temperature: float, generator: np.random.Generator) -> int:
    """The best token at temperature 0, else a draw from the softmax."""
    if temperature == 0:
        return int(logits.argmax())
    below_best = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):
        weights = np.exp(np.where(below_best < 0, below_best / temperature, 0.0))
    return int(generator.choice(len(weights), p=weights / weights.sum()))


def embedding_rows(path: Path, embedding: Embedding, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows of the token embedding matrix, dequantised from the mapped file.

    Args:
        path: GGUF file.
        embedding: where the matrix lies.
        ids: [L] token ids.

    Returns:
        [L, columns] float32.

    Raises:
        BadInput: an id outside the vocabulary.
        BadBundle: the file does not hold the matrix.
    """
    ids = np.asarray(ids, np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < embedding.rows:
        raise BadInput(f"token id outside 0..{embedding.rows - 1}: {ids.min()}..{ids.max()}")
    columns = embedding.columns
    if embedding.type == "Q8_0":
        block: np.dtype[Any] = np.dtype([("scale", "<f2"), ("values", "i1", (Q8_0_BLOCK,))])
        rows = _map(path, embedding, block, columns // Q8_0_BLOCK)[ids]
        return (rows["scale"][..., None].astype(np.float32) * rows["values"]).reshape(len(ids), columns)
    if embedding.type == "BF16":
        bits = _map(path, embedding, np.dtype("<u2"), columns)[ids]
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    types: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
    if embedding.type not in types:
        raise BadBundle(f"{path}: embedding matrix of type {embedding.type}; known are F32, F16, BF16, Q8_0")
    return _map(path, embedding, types[embedding.type], columns)[ids].astype(np.float32)


def _map(path: Path, embedding: Embedding, dtype: np.dtype, columns: int) -> np.ndarray:
    try:
        return np.memmap(path, dtype, "r", embedding.offset, (embedding.rows, columns))
    except (ValueError, OverflowError):
        raise BadBundle(f"{path}: ends before the embedding matrix that the manifest describes; export again") from None


def decode_text(pieces: Iterator[bytes]) -> Iterator[str]:
    """Text of byte pieces as they come; a character cut between two pieces waits for its end."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def load_model(llama: Any, path: Path, **options: Any) -> Any:
    parameters = llama.llama_model_default_params()
    assign(parameters, **options)
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise BadBundle(f"{path}: libllama could not load it; the log (-v) has its reason")
    return model


def assign(parameters: ctypes.Structure, **values: Any) -> None:
    """Set fields of a C structure; plain assignment would accept any name and ignore it."""
    known = {entry[0] for entry in parameters._fields_}
    for name, value in values.items():
        if name not in known:
            raise MissingDependency(f"this llama-cpp-python has no {type(parameters).__name__}.{name}; install 0.3.36")
        setattr(parameters, name, value)


def offloads() -> bool:
    """Whether libllama was built for a GPU; raises MissingDependency when it is not installed."""
    return bool(libllama().llama_supports_gpu_offload())


def libllama() -> Any:
    """The bindings, loaded on first use, with libllama's log sent to ours."""
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingDependency(f"llama-cpp-python is not installed ({error}); pip install stllm-edge") from None
    global _LOG_CALLBACK
    if _LOG_CALLBACK is None:
        _LOG_CALLBACK = llama_cpp.llama_log_callback(_log)
        llama_cpp.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


# libllama keeps the pointer, so the callback has to outlive it
_LOG_CALLBACK: Any = None


def _log(level: int, text: bytes, _: Any) -> None:
    LOG.debug("libllama: %s", text.decode("utf-8", "replace").rstrip())
