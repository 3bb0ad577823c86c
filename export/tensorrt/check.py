"""Whether engines could be built: every graph parsed and compiled ahead of time, on any machine; nothing is kept."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ...runtime.bundle.manifest import ENCODERS, TENSORRT
from ...runtime.errors import StllmError
from .builder import Builder
from .engines import Engines
from .operators import count_operators, matrix_source, unsupported
from .targets import RTX, TARGETS, dotted

__all__ = ["Check", "Finding"]

LOG = logging.getLogger(__name__)
DEFAULT_TARGET = "orin"


@dataclass(frozen=True)
class Finding:
    """What a check found out about one graph.

    Attributes:
        precision: as the bundle names it.
        encoder: vision, points or aligner.
        operators: how often each occurs.
        refused: what the library's parser refuses, one line a node, or why it could not compile what it parsed.
        unsupported: what TensorRT 10.3's published matrix does not hold.
        engine_bytes: size of the engine; 0 when it was refused.
        activation_bytes: device memory for activations at the largest profile.
        seconds: of the build.
    """

    precision: str
    encoder: str
    operators: dict[str, int]
    refused: list[str]
    unsupported: list[str]
    engine_bytes: int = 0
    activation_bytes: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.refused and not self.unsupported

    def __str__(self) -> str:
        operators = ", ".join(f"{name} {count}" for name, count in self.operators.items())
        outcome = (
            f"engine {self.engine_bytes / 1e6:.1f} MB, activations {self.activation_bytes / 1e6:.1f} MB, "
            f"{self.seconds:.1f} s"
        )
        faults = [*(f"refused: {line}" for line in self.refused), *(f"10.3: {line}" for line in self.unsupported)]
        mark = "✓" if self.passed else "✗"
        return f"{mark} {self.precision} {self.encoder:8} {'; '.join(faults) or outcome} ({operators})"


class Check:
    """Every graph of a bundle, parsed and compiled for the nearest capability that TensorRT for RTX knows."""

    def __init__(self, engines: Engines):
        """Load the library; raises MissingDependency when TensorRT for RTX is not installed."""
        target = engines.target or TARGETS[DEFAULT_TARGET]
        self._engines = engines
        self._builder = Builder(RTX, target.nearest, target.workspace, engines.progress)
        self.description = {
            "target": target.name,
            "backend": RTX,
            "version": self._builder.version,
            "capability": dotted(target.nearest),
            "matrix": f"{matrix_source()}; TensorRT 10.3 itself was not run",
            "profiles": [str(profile) for profile in engines.profiles],
        }

    def findings(self) -> Iterator[Finding]:
        """What becomes of each graph, one after the other."""
        LOG.info("{backend} {version}, compute capability {capability}".format(**self.description))
        LOG.info("10.3: %s", self.description["matrix"])
        self._engines.log_profiles()
        for precision in self._engines.precisions:
            for encoder in ENCODERS:
                yield examine(self._engines, self._builder, encoder, precision)


def examine(engines: Engines, builder: Builder, encoder: str, precision: str) -> Finding:
    """What becomes of one graph."""
    graph = engines.bundle.file(engines.bundle.graph(encoder, precision, TENSORRT).file)
    operators, missing = count_operators(graph), unsupported(graph)
    if refused := builder.refusals(graph):
        return Finding(precision, encoder, operators, refused, missing)
    start = time.perf_counter()
    try:
        compiled = builder.compile(graph, engines.shapes(encoder))
    except StllmError as error:
        return Finding(precision, encoder, operators, [str(error)], missing)
    spent = time.perf_counter() - start
    size = memoryview(compiled.engine).nbytes
    return Finding(precision, encoder, operators, [], missing, size, compiled.activation_bytes, spent)
