"""The encoders of a session: each in a process of its own, started ahead of its use, or all kept loaded in this one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .local import ChildEncoder, Encoder, load

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
    ):
        """Load nothing yet.

        Args:
            files: graph or engine of each encoder.
            threads: of the CPU.
            providers: ONNX Runtime's execution providers, the preferred one first.
            literal: keep every rounding of the graphs; slow.
            resident: load encoders in this process and keep them, instead of in processes of their own.
            outputs_kept: encoders whose output stays where it was computed, if they are resident.
        """
        self._files, self._choice = files, (threads, literal, tuple(providers))
        self.resident, self._outputs_kept = resident, outputs_kept
        self._kept = ExitStack()
        self._loaded: dict[str, Encoder] = {}
        self._started: dict[str, ChildEncoder] = {}

    def start(self, *names: str) -> None:
        """Let the processes of these encoders load while this one computes; nothing where they are resident."""
        if self.resident:
            return
        for name in names:
            if name not in self._started:
                self._started[name] = ChildEncoder(self._files[name], *self._choice)

    @contextmanager
    def use(self, name: str) -> Iterator[Encoder]:
        """An encoder, loaded; its process, if it has one, ends with the block."""
        if self.resident:
            if name not in self._loaded:
                encoder = load(self._files[name], *self._choice, name in self._outputs_kept)
                self._loaded[name] = self._kept.enter_context(encoder)
            yield self._loaded[name]
            return
        self.start(name)
        with self._started.pop(name) as encoder:
            yield encoder

    def close(self) -> None:
        """Free what is loaded and end what was started; it is loaded again when it is used."""
        self._loaded.clear()
        self._kept.close()
        while self._started:
            self._started.popitem()[1].__exit__()
