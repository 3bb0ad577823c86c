"""The bundle: a directory with graphs, language models and a manifest that says what each file is.

    BUNDLE/
      manifest.json
      onnx/{vision,points,aligner}[.fp16][.<provider>].onnx    graphs; .data files hold their weights
      llm/<QUANT>.gguf
      engines/<target>/{vision,points,aligner}[.fp16].{engine,json}

This package is the one definition of the format: the runtime reads through `Bundle`, here, and the export writes
through `BundleWriter`.
"""

import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadBundle
from .digests import DigestMemory, joint_digest
from .geometry import Geometry

__all__ = ["CPU", "ENCODERS", "PORTABLE", "TENSORRT", "Bundle", "Defaults", "Embedding", "Graph", "Llm"]

SCHEMA = 1
MANIFEST = "manifest.json"
ENCODERS = ("vision", "points", "aligner")
PORTABLE, CPU, TENSORRT = "portable", "cpu", "tensorrt"


@dataclass(frozen=True)
class Defaults:
    """What a checkpoint does not say and the export decided.

    Attributes:
        voxel_size: edge of a voxel, metres.
        frames: frames sampled from a clip.
        time_instruction: whether the prompt states the clip's length and the frames' times.
    """

    voxel_size: float = 0.06
    frames: int = 32
    time_instruction: bool = True

    @property
    def possible(self) -> bool:
        """Whether the numbers are positive."""
        return 0 < self.voxel_size < float("inf") and self.frames >= 1


@dataclass(frozen=True)
class Graph:
    """One encoder for one provider.

    Attributes:
        file: path of the ONNX graph inside the bundle.
        weights: path of its weights.
        maps: kernel-map format that it takes, for the point encoder.
    """

    file: str
    weights: str
    maps: str | None = None


@dataclass(frozen=True)
class Embedding:
    """The token embedding matrix inside a GGUF file, for reading rows without loading the model.

    Attributes:
        offset: bytes from the start of the file.
        type: F32, F16, BF16 or Q8_0.
        rows: vocabulary.
        columns: width of the language model.
    """

    offset: int
    type: str
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if min(map(operator.index, (self.offset, self.rows, self.columns))) < 0:
            raise ValueError(f"embedding {self}")


@dataclass(frozen=True)
class Llm:
    """One quantisation of the language model."""

    file: str
    embedding: Embedding


class Bundle:
    """A bundle opened for reading.

    Attributes:
        path: the directory.
        manifest: the content of `manifest.json`.
        geometry: sizes of the model.
        defaults: options recorded at export.
        engines: TensorRT engines by target, precision and encoder; none unless they were built.
    """

    def __init__(self, path: Path):
        """Read the manifest; nothing else is opened.

        Raises:
            BadBundle: there is no manifest, or this program cannot read it.
        """
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        try:
            self.geometry = Geometry.from_json(self.manifest["geometry"])
            self.defaults = Defaults(**self.manifest["defaults"])
            self.stop_ids: tuple[int, ...] = tuple(map(operator.index, self.manifest["stop_ids"]))
            self._encoders = read_encoders(self.manifest["encoders"])
            self._llm = {
                quant: Llm(entry["file"], Embedding(**entry["embedding"]))
                for quant, entry in self.manifest["llm"].items()
            }
            self._files = {
                name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in self.manifest["files"].items()
            }
            self.engines = read_engines(self.manifest.get("engines", {}))
            if not self.defaults.possible:
                raise ValueError(f"defaults {self.defaults}")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise BadBundle(f"{self.path / MANIFEST}: lacks or misstates {error}; export the bundle again") from None

    @property
    def precisions(self) -> list[str]:
        """Precisions of the encoders that the bundle holds."""
        return list(self._encoders)

    @property
    def quants(self) -> list[str]:
        """Quantisations of the language model that the bundle holds."""
        return list(self._llm)

    def graph(self, encoder: str, precision: str, provider: str = PORTABLE) -> Graph:
        """The graph of an encoder for a provider, or the portable one where the provider has none of its own.

        Raises:
            BadBundle: the bundle does not hold this precision; the message lists those it holds.
        """
        graphs = self._part("--precision", precision, self._encoders)[encoder]
        return graphs.get(provider, graphs[PORTABLE])

    def llm(self, quant: str) -> Llm:
        """A language model; raises BadBundle when the bundle does not hold this quantisation."""
        return self._part("--quant", quant, self._llm)

    def is_of(self, digest: str) -> bool:
        """Whether it was made from the checkpoint with this SHA-256."""
        return bool(self.manifest["source"]["sha256"] == digest)

    def file(self, name: str) -> Path:
        """Path of a file of the bundle."""
        return self.path / name

    def size(self, name: str) -> int:
        """Bytes of a file, as the manifest states them."""
        return self._files[name][0] if name in self._files else 0

    def sha256(self, name: str) -> str:
        """SHA-256 of a file, as the manifest states it."""
        return self._files[name][1]

    def digest(self, names: list[str]) -> str:
        """One SHA-256 over files and what the manifest says of the model: equal where answers are."""
        described = json.dumps([self.manifest[key] for key in ("geometry", "defaults", "stop_ids")], sort_keys=True)
        model = hashlib.sha256(described.encode()).hexdigest()
        return joint_digest({"model": model, **{name: self.sha256(name) for name in names}})

    def require_file(self, name: str) -> Path:
        """Path of a file of the bundle; raises BadBundle when the manifest has no entry for it, or it is not there."""
        path = self.path / name
        if name not in self._files or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BadBundle(f"{self.path}: the manifest has no entry for {name}; export the bundle again")
        if not path.is_file():
            raise BadBundle(f"{path} is missing; export it again with --force")
        return path

    def check(self, names: list[str], *, fresh: bool = False) -> None:
        """Compare files with the manifest: present, size, SHA-256.

        An unchanged file is hashed once and remembered; `fresh` hashes it again.

        Raises:
            BadBundle: a file is missing or differs.
        """
        with DigestMemory() as memory:
            for name in names:
                path = self.require_file(name)
                size, digest = self._files[name]
                if path.stat().st_size != size:
                    raise BadBundle(
                        f"{path}: has {path.stat().st_size} bytes, the manifest says {size}; "
                        "copy it again or export it again with --force"
                    )
                if memory.digest(path, fresh=fresh) != digest:
                    raise BadBundle(
                        f"{path}: its SHA-256 differs from the manifest's; "
                        "copy it again or export it again with --force"
                    )

    def _part(self, option: str, name: str, parts: Mapping[str, Any]) -> Any:
        if name not in parts:
            held = ", ".join(parts) or "none"
            raise BadBundle(f"{option} {name}: {self.path} does not hold it; it holds {held}")
        return parts[name]


def read_manifest(path: Path) -> dict[str, Any]:
    """What a bundle's manifest says; raises BadBundle where there is none, or it is not of this schema."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BadBundle(f"{path}: no {MANIFEST}; make a bundle with stllm-export all --ckpt DIR --out {path}") from None
    except OSError as error:
        raise BadBundle(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{file}: damaged ({error}); export the bundle again") from None
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise BadBundle(f"{file}: schema {found}, this program reads schema {SCHEMA}; export the bundle again")
    return dict(manifest)


def read_encoders(entries: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Graph]]]:
    """Graphs by precision, encoder and provider; raises KeyError where an encoder has no portable one."""
    encoders = {
        precision: {
            name: {provider: Graph(**graph) for provider, graph in graphs.items()} for name, graphs in named.items()
        }
        for precision, named in entries.items()
    }
    for precision, named in encoders.items():
        for name in ENCODERS:
            if PORTABLE not in named.get(name, {}):
                raise KeyError(f"encoders {precision} {name} {PORTABLE}")
    return encoders


def read_engines(entries: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Engines by target, precision and encoder; raises TypeError or a kin where the manifest is damaged."""
    for precisions in entries.values():
        for encoders in precisions.values():
            for name, entry in encoders.items():
                if not (isinstance(entry["file"], str) and isinstance(entry["sidecar"], str)):
                    raise TypeError(f"engines {name}")
    return dict(entries)
