"""The first layer of a language model by itself: what the keys and values of the second layer are made of.

Keys and values of the first layer are those of a position alone; from the second on they depend on what stands before.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..errors import StllmError
from .libllama import Context, Flag, libllama, load_model
from .model import without_tokenizer
from .pace.excerpt import ROWS, first_layer_file

__all__ = ["EarlyLayer"]

AT_ONCE = 512
# without this, libllama would make one embedding of a whole sequence
NO_POOLING = 0


class EarlyLayer:
    """One layer, cut out of a model's file and kept in memory; as a context manager, it frees itself."""

    def __init__(self, path: Path, *, threads: int, packed: bool, on_gpu: bool, flag: Flag):
        """Cut it out and load it.

        Args:
            path: GGUF file.
            threads: of the CPU.
            packed: let libllama copy the weights into its CPU kernels' layout.
            on_gpu: whether it runs on the GPU.
            flag: ends the loading, and what runs, when it is set.

        Raises:
            BadBundle: the file has no second layer, or libllama refuses it.
            StllmError: there is no room for a copy of the layer.
        """
        self._llama, self._threads = libllama(), threads
        self._stack = ExitStack()
        try:
            file = self._stack.enter_context(first_layer_file(path))
            options = {"n_gpu_layers": -1 if on_gpu else 0, "use_extra_bufts": packed}
            self._model = load_model(file, without_tokenizer(ROWS), flag, **options)
            self._stack.callback(self._llama.llama_model_free, self._model)
        except OSError as error:
            self._stack.close()
            raise StllmError(f"{path}: its first layer cannot be copied ({error}); leave out --recompute") from None
        except BaseException:
            self._stack.close()
            raise

    def outputs(self, rows: np.ndarray, begin: int, flag: Flag) -> np.ndarray:
        """What the second layer takes of the positions from `begin` on, [L - begin, width] float32.

        Args:
            rows: [L, width] float32, embeddings of a prompt's positions.
            begin: first position that is wanted.
            flag: ends the work when it is set.

        Raises:
            StllmError: libllama fails, or the flag was set.
        """
        context = Context(
            self._model,
            n_ctx=len(rows),
            n_batch=AT_ONCE,
            n_ubatch=AT_ONCE,
            n_outputs_max=AT_ONCE,
            n_threads=self._threads,
            n_threads_batch=self._threads,
            embeddings=True,
            pooling_type=NO_POOLING,
        )
        try:
            flag.watch(context.pointer)
            parts = [self._decode(context, rows[at : at + context.batch]) for at in range(0, len(rows), context.batch)]
        finally:
            context.close()
        return np.concatenate(parts)[begin:]

    def _decode(self, context: Context, rows: np.ndarray) -> np.ndarray:
        context.decode(np.ascontiguousarray(rows, np.float32), outputs=True)
        found = self._llama.llama_get_embeddings(context.pointer)
        return np.ctypeslib.as_array(found, rows.shape).copy()

    def close(self) -> None:
        """Free it."""
        self._stack.close()

    def __enter__(self) -> "EarlyLayer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
