"""The loaded stages of a session: one after the other, or side by side until the session is closed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from .bundle.manifest import Bundle, Graph, Llm
from .encoders.local import ChildEncoder, Encoder, load
from .encoders.providers import Placement
from .errors import StllmError
from .llm.model import LanguageModel
from .llm.packing import pays_to_pack
from .llm.vocabulary import Vocabulary
from .memory.meter import Meter
from .options import ALL_LAYERS, Options

__all__ = ["Stages"]

CONTEXT_STEP = 256


class Stages:
    """Encoders and language model as they are needed; kept loaded when the options say resident."""

    def __init__(
        self,
        bundle: Bundle,
        graphs: Mapping[str, Graph],
        llm: Llm,
        placement: Placement,
        gpu_layers: int,
        threads: int,
        options: Options,
    ):
        """Load nothing yet; `graphs` are the encoders by name, which `placement` may have engines of."""
        self._bundle, self._graphs, self._llm = bundle, graphs, llm
        self._placement, self._gpu_layers, self._threads, self._options = placement, gpu_layers, threads, options
        self._kept = ExitStack()
        self._encoders: dict[str, Encoder] = {}
        self._model: LanguageModel | None = None
        self._vocabulary: Vocabulary | None = None
        self._speaker: object = None

    def close(self) -> None:
        """Free what is kept; it is loaded again when it is needed."""
        self._encoders.clear()
        self._model = self._vocabulary = self._speaker = None
        self._kept.close()

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, loaded on first use."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._bundle.file(self._llm.file))
            self._kept.callback(self._vocabulary.close)
        return self._vocabulary

    @contextmanager
    def encoder(self, name: str, meter: Meter) -> Iterator[Encoder]:
        """A loaded encoder; its time and memory count for the stage of its name.

        Loaded in this process, the point encoder leaves its output on the GPU, where the aligner reads it.
        """
        engine = self._placement.engines.get(name)
        file = engine.file if engine else self._bundle.file(self._graphs[name].file)
        choice = (file, self._threads, self._options.literal, self._placement.providers)
        with meter.measure(name):
            if self._options.resident:
                if name not in self._encoders:
                    keep = name == "points" and self._placement.on_gpu
                    self._encoders[name] = self._kept.enter_context(load(*choice, keep))
                yield self._encoders[name]
                return
            with ChildEncoder(*choice) as encoder:
                yield encoder
                meter.note(name, encoder.usage)

    @contextmanager
    def language_model(self, positions: int) -> Iterator[tuple[LanguageModel, Callable[[], None]]]:
        """The language model with an empty context, and a check that no later answer has taken it over."""
        if not self._options.resident:
            with self.load_llm(positions) as model:
                yield model, lambda: None
            return
        if self._model is None:
            self._model = self._kept.enter_context(self.load_llm(positions))
        else:
            self._model.restart(whole_steps(positions))
        speaker = self._speaker = object()

        def require_turn() -> None:
            if self._speaker is not speaker:
                raise StllmError(
                    "another answer was begun, or the session closed, before this one was read to its end; "
                    "a resident session has one language model"
                )

        yield self._model, require_turn

    def load_llm(self, positions: int) -> LanguageModel:
        """The language model with a context of its own; the caller closes it."""
        file, repack, layers = self._bundle.file(self._llm.file), self._options.repack, self._bundle.geometry.llm.layers
        if repack is None:
            on_cpu = 0 if self._gpu_layers == ALL_LAYERS else layers - self._gpu_layers
            repack = pays_to_pack(file, layers=on_cpu, positions=positions, threads=self._threads)
        return LanguageModel(
            file,
            vocabulary=self._llm.embedding.rows,
            context=whole_steps(positions),
            kv=self._options.kv,
            flash_attention=self._options.flash_attention,
            threads=self._threads,
            gpu_layers=self._gpu_layers,
            repack=repack,
        )


def whole_steps(positions: int) -> int:
    """Positions rounded up to what libllama allocates in one piece."""
    return -(-positions // CONTEXT_STEP) * CONTEXT_STEP
