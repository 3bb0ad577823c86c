"""The language model of a session: loaded for each answer, or kept, and then for one answer at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from ..errors import StllmError
from ..memory.holdings import Holdings
from .libllama import Flag
from .model import LanguageModel
from .vocabulary import Vocabulary

__all__ = ["LLM", "Opened", "Speaker"]

# a language model, and a check that raises StllmError once a later answer has taken it over
Opened = tuple[LanguageModel, Callable[[], None]]

CONTEXT_STEP = 256
# its name in the memory plan
LLM = "llm"


class Speaker:
    """Hands out the vocabulary, and the language model with an empty context."""

    def __init__(
        self,
        load: Callable[[int, Flag], LanguageModel],
        vocabulary: Callable[[], Vocabulary],
        *,
        resident: bool,
        holdings: Holdings,
    ):
        """Load nothing yet.

        Args:
            load: gives the language model with a context of so many positions; the flag ends it.
            vocabulary: gives the tokenizer.
            resident: whether one language model is kept for all answers.
            holdings: where the memory of a kept one is counted.
        """
        self._load, self._load_vocabulary, self._resident, self._holdings = load, vocabulary, resident, holdings
        self._model: LanguageModel | None = None
        self._vocabulary: Vocabulary | None = None
        self._loading: Future[Vocabulary] | None = None
        self._turn: object = None

    def prepare(self) -> None:
        """Load the vocabulary in a thread of its own; what goes wrong is raised by `vocabulary`."""
        if self._vocabulary is None and self._loading is None:
            self._loading = ThreadPoolExecutor(1, "vocabulary").submit(self._load_vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, loaded on first use."""
        if self._vocabulary is None:
            loading, self._loading = self._loading, None
            self._vocabulary = self._load_vocabulary() if loading is None else loading.result()
        return self._vocabulary

    def load(self, positions: int, flag: Flag | None = None) -> LanguageModel:
        """A language model of the caller's own, with a context for at least so many positions; the flag ends it."""
        return self._load(whole_steps(positions), flag or Flag())

    @contextmanager
    def model(self, positions: int, flag: Flag | None = None) -> Iterator[Opened]:
        """The language model with an empty context, and a check that no later answer has taken it over.

        Setting the flag ends its loading, if it is loaded.
        """
        if not self._resident:
            with self.load(positions, flag) as model:
                yield model, lambda: None
            return
        if self._model is None:
            self._model = self._holdings.work(LLM, self.load, positions, flag)
        else:
            self._holdings.work(LLM, self._model.restart, whole_steps(positions))
        turn = self._turn = object()

        def require_turn() -> None:
            if self._turn is not turn:
                raise StllmError(
                    "another answer was begun, or the session closed, before this one was read to its end; "
                    "a resident session has one language model"
                )

        yield self._model, require_turn

    def close(self) -> None:
        """Free what is kept; it is loaded again when it is used."""
        if self._loading is not None and self._loading.exception() is None:
            self._vocabulary = self._loading.result()
        model, vocabulary = self._model, self._vocabulary
        self._model = self._vocabulary = self._turn = self._loading = None
        if model is not None:
            model.close()
        if vocabulary is not None:
            vocabulary.close()


def whole_steps(positions: int) -> int:
    """Positions rounded up to what libllama allocates in one piece."""
    return -(-positions // CONTEXT_STEP) * CONTEXT_STEP
