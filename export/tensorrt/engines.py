"""Engines of a bundle: what they are built for, and building them, each with its sidecar."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import ENCODERS, TENSORRT, Bundle
from ...runtime.bundle.precisions import FP32, canonical, formats_of
from ...runtime.bundle.writer import BundleWriter
from ...runtime.console import Progress
from ...runtime.encoders.engines import Sidecar, graph_digest
from ...runtime.errors import BadBundle, BadInput
from .builder import Builder
from .profiles import plan_profiles
from .targets import BACKENDS, Target, choose_backend, dotted, find_target, this_device

__all__ = ["Engines"]

LOG = logging.getLogger(__name__)


class Engines:
    """A bundle, what engines are built for, and the library that builds them."""

    def __init__(
        self,
        path: Path,
        target: str | None,
        backend: str | None,
        precisions: Sequence[str],
        profile: Sequence[str],
        measured: Path | None,
        progress: Progress,
    ):
        """Read the bundle and plan the profiles.

        Args:
            path: the bundle.
            target: kind of device; None for the GPU of this machine.
            backend: what builds; None for the target's usual one.
            precisions: of the encoders; all that the bundle holds where none are given.
            profile: options as `plan_profiles` takes them.
            measured: an REA file with scenes to measure.
            progress: where to report.

        Raises:
            BadInput: the target or an option is not known.
            BadBundle: the bundle lacks a precision.
        """
        self.bundle = Bundle(path)
        self.target = None if target is None else find_target(target)
        if backend is not None and backend not in BACKENDS:
            raise BadInput(f"--backend {backend}: unknown; known are {', '.join(BACKENDS)}")
        self.backend = backend
        self.precisions = tuple(dict.fromkeys(map(canonical, precisions))) or tuple(self.bundle.precisions)
        for precision in self.precisions:
            self.bundle.check([name for encoder in ENCODERS for name in self._files(encoder, precision)])
        self.profiles = plan_profiles(self.bundle, profile, measured)
        self.progress = progress

    def build(self, *, force: bool) -> None:
        """Add engines for the target to the bundle.

        Raises:
            BadInput: they are there already, or the target's engines cannot be built so, or not on this machine.
            MissingDependency: TensorRT is not installed.
        """
        target = self.target or this_device()
        backend = choose_backend(target, self.backend)
        builder = Builder(backend, target.capability, target.workspace, self.progress)
        with BundleWriter.open(self.bundle.path, force=force) as writer:
            held = dict(writer.manifest.get("engines", {}).get(target.name, {}))
            if (there := [name for name in self.precisions if name in held]) and not force:
                raise BadInput(f"{self.bundle.path} already holds engines {target.name} {there[0]}; --force replaces")
            LOG.info("%s %s for %s", backend, builder.version, target.name)
            self.log_profiles()
            files: list[str] = []
            for precision in self.precisions:
                held[precision] = {name: self._add(writer, builder, target, name, precision) for name in ENCODERS}
                files += [entry[key] for entry in held[precision].values() for key in ("file", "sidecar")]
            writer.add("engines", target.name, held, files)
            LOG.info("%s", writer.summary())

    def _add(
        self, writer: BundleWriter, builder: Builder, target: Target, encoder: str, precision: str
    ) -> dict[str, Any]:
        """Build one engine into the staging folder; its entry in the manifest."""
        graph = self.bundle.graph(encoder, precision, TENSORRT)
        folder = f"engines/{target.name}"
        form = formats_of(precision)[encoder]
        stem = f"{folder}/{encoder}" if form == FP32 else f"{folder}/{encoder}.{form}"
        shapes = self.shapes(encoder)
        # timings lie outside the staging folder, so they are kept where a later engine fails
        compiled = builder.compile(self.bundle.file(graph.file), shapes, self.bundle.file(f"{folder}/timing.cache"))
        sidecar = Sidecar(
            target=target.name,
            encoder=encoder,
            precision=precision,
            backend=builder.backend,
            version=builder.version,
            capability=dotted(builder.capability),
            graph=graph_digest(self.bundle, encoder, precision),
            maps=graph.maps,
            profiles=shapes,
            patches=self.bundle.geometry.vision.grid**2,
            flags={"strongly_typed": True, "tf32": False, "workspace": builder.workspace},
            activation_bytes=compiled.activation_bytes,
        )
        (writer.staging / folder).mkdir(parents=True, exist_ok=True)
        (writer.staging / f"{stem}.engine").write_bytes(memoryview(compiled.engine))
        (writer.staging / f"{stem}.json").write_text(sidecar.to_json(), encoding="utf-8")
        return {
            "file": f"{stem}.engine",
            "sidecar": f"{stem}.json",
            "activation_bytes": compiled.activation_bytes,
        }

    def shapes(self, encoder: str) -> list[Any]:
        """Shapes of an encoder's inputs, each once, in the order of the buckets."""
        shapes = [profile.shapes(encoder, self.bundle.geometry) for profile in self.profiles]
        return [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]

    def _files(self, encoder: str, precision: str) -> tuple[str, str]:
        """Graph and weights; raises BadBundle when the bundle is older than the graphs for TensorRT."""
        graph = self.bundle.graph(encoder, precision, TENSORRT)
        if graph == self.bundle.graph(encoder, precision):
            raise BadBundle(
                f"{self.bundle.path}: has no graph of {encoder} for TensorRT; run stllm-export onnx again with --force"
            )
        return graph.file, graph.weights

    def log_profiles(self) -> None:
        """Say what sizes the engines take."""
        for profile in self.profiles:
            LOG.info("profile: %s", profile)
