"""The encoders of a session: each in a process of its own, started ahead of its use, or all kept loaded in this one."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..control.control import Control
from ..memory.counters import Usage
from ..memory.holdings import Holdings
from .child import ChildEncoder
from .encoder import Encoder, load

__all__ = ["EncoderPool"]


class EncoderPool:
    """Encoders by name, loaded when they are used or a little before."""

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        threads: int,
        providers: Sequence[str],
        literal: bool = False,
        resident: bool = False,
        outputs_kept: Collection[str] = (),
        holdings: Holdings,
    ):
        """Load nothing yet.

        Args:
            files: graph or engine of each encoder.
            threads: of the CPU.
            providers: ONNX Runtime's execution providers, the preferred one first.
            literal: keep every rounding of the graphs; slow.
            resident: load encoders in this process and keep them, instead of in processes of their own.
            outputs_kept: encoders whose output stays where it was computed, if they are resident.
            holdings: where the memory of resident encoders is counted.
        """
        self._files, self._choice = files, (threads, literal, tuple(providers))
        self._resident, self._outputs_kept, self._holdings = resident, outputs_kept, holdings
        self._kept = ExitStack()
        self._loaded: dict[str, Encoder] = {}
        self._started: dict[str, ChildEncoder] = {}

    def prepare(self, *names: str) -> None:
        """Start the processes of encoders, which import their libraries meanwhile; nothing where they are resident."""
        for name in names:
            if not self._resident and name not in self._started:
                self._started[name] = ChildEncoder(self._files[name], *self._choice)

    def load(self, name: str) -> None:
        """Let the process of an encoder load its graph while this one computes; nothing where it is resident."""
        self.prepare(name)
        if not self._resident:
            self._started[name].load()

    @contextmanager
    def use(
        self,
        name: str,
        count: Callable[[Usage], None],
        loading: Callable[[], AbstractContextManager[None]] = nullcontext,
        control: Control | None = None,
    ) -> Iterator[Callable[..., Any]]:
        """An encoder, loaded at the latest when it is called.

        Args:
            name: of the encoder.
            count: gets what its process used, if it has one, which ends with the block.
            loading: what to wait in until it is loaded.
            control: ends a call that is running when it is cancelled.
        """
        control = control or Control()
        if self._resident:
            if name not in self._loaded:
                kept = name in self._outputs_kept
                with loading():
                    encoder = self._holdings.work(name, load, self._files[name], *self._choice, kept)
                self._loaded[name] = self._kept.enter_context(encoder)
            kept_encoder = self._loaded[name]
            try:
                with control.stopping(kept_encoder.stop):
                    yield partial(self._holdings.work, name, kept_encoder)
            finally:
                kept_encoder.resume()
            return
        self.prepare(name)
        with self._started.pop(name) as child, control.stopping(child.kill):

            def encode(**inputs: Any) -> np.ndarray:
                if not child.loaded:
                    with loading():
                        child.wait()
                return child(**inputs)

            yield encode
            count(child.usage)

    def close(self) -> None:
        """Free what is loaded and end what was started; it is loaded again when it is used."""
        self._loaded.clear()
        self._kept.close()
        while self._started:
            self._started.popitem()[1].close()
