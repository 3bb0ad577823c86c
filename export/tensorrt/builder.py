"""From a graph to a serialised engine: one way for TensorRT on a device and TensorRT for RTX ahead of time."""

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.files import atomic_path
from ...runtime.console import Progress
from ...runtime.encoders.engines import Shapes
from ...runtime.encoders.tensorrt import load_library
from ...runtime.errors import BadInput, StllmError
from .targets import RTX

__all__ = ["Builder", "Compiled"]

LOG = logging.getLogger(__name__)
ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+)")
ERRORS_SHOWN = 3
TOO_LARGE = "a layer needs more scratch than the workspace has, or the profile is too large: lower MAX of --profile"


@dataclass(frozen=True)
class Compiled:
    """A serialised engine.

    Attributes:
        engine: its bytes, as a buffer.
        activation_bytes: device memory for activations at the largest profile, from the builder's report.
    """

    engine: Any
    activation_bytes: int


class Builder:
    """TensorRT's builder for one compute capability."""

    def __init__(self, backend: str, capability: tuple[int, int], workspace: int, progress: Progress):
        """Load the library.

        Args:
            backend: `tensorrt` or `tensorrt-rtx`.
            capability: to build for; `tensorrt` builds for the GPU that is there.
            workspace: bytes of scratch that a layer may use.
            progress: where phases of a build are shown.

        Raises:
            MissingDependency: the library is not installed; the message names the package.
            StllmError: it does not start here.
        """
        self._trt = load_library(backend)
        self.backend, self.capability, self.workspace = backend, capability, workspace
        self._progress = progress
        self._report = report(self._trt)
        try:
            self._builder = self._trt.Builder(self._report)
        except TypeError as error:
            raise StllmError(f"{backend} does not start: {self._report.reason} ({error})") from None

    @property
    def version(self) -> str:
        return str(self._trt.__version__)

    def refusals(self, graph: Path) -> list[str]:
        """What the parser refuses in a graph, one line a node; empty when it takes it."""
        with interruptible():
            _, errors = self._parse(graph)
        return errors

    def compile(self, graph: Path, profiles: Sequence[Shapes], timing_cache: Path | None = None) -> Compiled:
        """Parse and build.

        Args:
            graph: strongly typed: computed in the types that it states.
            profiles: shapes of its inputs, one entry a bucket.
            timing_cache: measurements of kernels, kept from build to build.

        Raises:
            BadInput: the parser refuses the graph.
            StllmError: the build fails; the message has TensorRT's reason.
        """
        with interruptible() as interrupted:
            network, errors = self._parse(graph)
            if errors:
                shown = "; ".join(errors[:ERRORS_SHOWN])
                raise BadInput(f"{graph}: {self.backend} {self.version} refuses it: {shown}")
            config = self._configuration(profiles)
            with self._timings(config, timing_cache), self._progress.stage(graph.stem) as show:
                config.progress_monitor = monitor(self._trt, graph.stem, show, interrupted)
                self._report.begin()
                engine = self._builder.build_serialized_network(network, config)
        if engine is None:
            remedy = f"; {TOO_LARGE}" if "OutOfMemory" in self._report.reason else ""
            failure = f"{graph}: {self.backend} {self.version} could not build it"
            raise StllmError(f"{failure}: {self._report.reason}{remedy}")
        if not self._report.activation_bytes:
            LOG.warning("%s: the report of %s %s has no activation memory", graph, self.backend, self.version)
        return Compiled(engine, self._report.activation_bytes)

    def _parse(self, graph: Path) -> tuple[Any, list[str]]:
        """The network of a graph, and what the parser refuses in it, one line a node."""
        try:
            str(graph).encode()
        except UnicodeEncodeError:
            raise BadInput(f"{str(graph)!a}: TensorRT takes paths in UTF-8 only; rename the bundle") from None
        network = self._network()
        parser = self._trt.OnnxParser(network, self._report)
        if parser.parse_from_file(str(graph)):
            return network, []
        return network, [refusal(parser.get_error(index)) for index in range(parser.num_errors)]

    def _network(self) -> Any:
        """An empty network in which every tensor has the type that the graph states."""
        # where there is no such flag, all networks are of this kind
        flags = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return self._builder.create_network(0 if flags is None else 1 << int(flags))

    def _configuration(self, profiles: Sequence[Shapes]) -> Any:
        config = self._builder.create_builder_config()
        # by default it is all memory, which on a board is the host's too
        config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, self.workspace)
        # an FP32 graph is computed in FP32; for speed there is FP16
        config.clear_flag(self._trt.BuilderFlag.TF32)
        config.profiling_verbosity = self._trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        if self.backend == RTX:
            config.num_compute_capabilities = 1
            name = "SM{}{}".format(*self.capability)
            config.set_compute_capability(getattr(self._trt.ComputeCapability, name), 0)
        for shapes in profiles:
            profile = self._builder.create_optimization_profile()
            for name, bounds in shapes.items():
                profile.set_shape(name, *bounds)
            config.add_optimization_profile(profile)
        return config

    @contextmanager
    def _timings(self, config: Any, file: Path | None) -> Iterator[None]:
        """Use and renew a file of kernel timings, where this library times kernels while it builds."""
        if file is None or self.backend == RTX:
            yield
            return
        for kept in (file.read_bytes() if file.exists() else b"", b""):
            # held until the build has ended: the configuration does not keep it alive
            cache = config.create_timing_cache(kept)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                break
            LOG.warning("%s: is not of this device and version; kernels are timed again", file)
        yield
        if (measured := config.get_timing_cache()) is not None:
            with atomic_path(file) as temporary:
                temporary.write_bytes(memoryview(measured.serialize()))


def refusal(error: Any) -> str:
    """A parser's error as one line."""
    node = f"{error.node_operator()} {error.node_name()}".strip()
    return " ".join(f"{node}: {error.desc()}".split())


def report(trt: Any) -> Any:
    """A logger that keeps what matters of the verbose report: errors, and the memory for activations."""

    class Report(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.begin()

        def begin(self) -> None:
            """Forget what earlier builds said."""
            self.reason, self.activation_bytes = "no reason given", 0

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.reason = " ".join(message.split())
            elif severity == trt.ILogger.WARNING:
                LOG.debug("%s", message)
            # only a line of the verbose log says what activations take
            elif found := ACTIVATIONS.search(message):
                self.activation_bytes = max(self.activation_bytes, int(found.group(1)))

    return Report()


def monitor(trt: Any, title: str, show: Callable[[str], None], interrupted: threading.Event) -> Any:
    """A progress monitor that shows the step of each phase, and cancels the build after an interrupt."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            show(f"{title}: {phase}")

        def step_complete(self, phase: str, step: int) -> bool:
            show(f"{title}: {phase} {step + 1}/{self._steps.get(phase, step + 1)}")
            return not interrupted.is_set()

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Note an interrupt, and raise it at the end: the library swallows what is raised in its callbacks."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted.is_set():
            raise KeyboardInterrupt
