"""The bundle: a directory with graphs, language models and a manifest that says what each file is.

    BUNDLE/
      manifest.json
      onnx/{vision,points,aligner}[.<format>][.<provider>].onnx    graphs; .data files hold their weights
      llm/<QUANT>.gguf
      engines/<target>/{vision,points,aligner}[.<precision>].{engine,json}

A part that replaces another lies one folder deeper, since a name that a manifest holds never gets other content.
This package is the one definition of the format: the runtime reads through `Bundle`, here, and the export writes
through `BundleWriter`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadBundle
from .digests import DigestMemory, joint_digest
from .geometry import Geometry
from .table import FORMATS
from .values import typed

__all__ = [
    "CPU",
    "DIGITS",
    "ENCODERS",
    "MANIFEST",
    "MOST_FRAMES",
    "PORTABLE",
    "SCHEMA",
    "TENSORRT",
    "Bundle",
    "Defaults",
    "Embedding",
    "Graph",
    "Llm",
    "documented",
    "leads_out",
    "read_manifest",
]

SCHEMA = 1
MANIFEST = "manifest.json"
ENCODERS = ("vision", "points", "aligner")
PORTABLE, CPU, TENSORRT = "portable", "cpu", "tensorrt"
MOST_FRAMES = 2**16
# of a digest, the name of the folder of its own that a part has which replaced another
DIGITS = 12


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
        """Whether the numbers are positive, and there are at most `MOST_FRAMES` frames."""
        return 0 < self.voxel_size < float("inf") and 1 <= self.frames <= MOST_FRAMES


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

    def __post_init__(self) -> None:
        if self.maps not in (None, *FORMATS):
            raise ValueError(f"kernel maps of format {self.maps!r}, known are {', '.join(FORMATS)}")


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
        if min(self.offset, self.rows, self.columns) < 0:
            raise ValueError("a negative number")


@dataclass(frozen=True)
class Llm:
    """One quantisation of the language model.

    Attributes:
        file: path of the GGUF file inside the bundle.
        embedding: where its embedding matrix lies.
        type: of the file, as Q4_K_M; None in bundles of older versions, whose models have their type's name.
        overrides: other types of some tensors, by pattern.
        adapter: path of a LoRA adapter that was trained for it; None where there is none, or it is merged.
    """

    file: str
    embedding: Embedding
    type: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    adapter: str | None = None


@dataclass(frozen=True)
class Source:
    """The checkpoint: its folder's name at the first export, and the SHA-256 that tells it from others."""

    checkpoint: str
    sha256: str


@dataclass(frozen=True)
class Encoders:
    """Graphs of one precision by provider."""

    vision: dict[str, Graph]
    points: dict[str, Graph]
    aligner: dict[str, Graph]

    def __post_init__(self) -> None:
        for name in ENCODERS:
            if PORTABLE not in getattr(self, name):
                raise ValueError(f"no {PORTABLE} graph of {name}")


@dataclass(frozen=True)
class File:
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"{self.bytes} bytes")


@dataclass(frozen=True)
class EngineFiles:
    """An engine and what it was built from and for."""

    file: str
    sidecar: str


@dataclass(frozen=True)
class Calibrated:
    """How a precision came through its gate: whether all its graphs did."""

    verified: bool


@dataclass(frozen=True)
class Compared:
    """The files that a comparison with PyTorch was made of."""

    files: tuple[str, ...]


class Bundle:
    """A bundle opened for reading.

    Attributes:
        path: the directory.
        manifest: the content of `manifest.json`; what this class does not read of it is as it was found.
        geometry: sizes of the model.
        defaults: options recorded at export.
        stop_ids: tokens that end an answer.
        float32_attention: attentions whose factors stay float32 for TensorRT, by precision and encoder.
        unverified: precisions that failed their gate and were written all the same.
        engines: entries of TensorRT engines by target, precision and encoder; none unless they were built.
    """

    def __init__(self, path: Path):
        """Read the manifest; nothing else is opened.

        Raises:
            BadBundle: there is no manifest, or this program cannot read it.
        """
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        try:
            self._read()
        except (ValueError, RecursionError) as error:
            raise BadBundle(f"{self.path / MANIFEST}: {error}; export the bundle again") from None

    def _read(self) -> None:
        """Take what is known from the manifest; raises ValueError where it is not what it has to be."""
        # what is unknown there changes answers, and is harmless elsewhere
        self.geometry: Geometry = self._section("geometry", Geometry, closed=True)
        self.geometry.require_possible()
        self.defaults: Defaults = self._section("defaults", Defaults, closed=True)
        if not self.defaults.possible:
            raise ValueError(f"lacks or misstates 'defaults' ({self.defaults})")
        self.stop_ids: tuple[int, ...] = self._section("stop_ids", tuple[int, ...])
        if min(self.stop_ids, default=0) < 0:
            raise ValueError(f"lacks or misstates 'stop_ids' ({min(self.stop_ids)})")
        self._source: Source = self._section("source", Source)
        self._encoders: dict[str, Encoders] = self._section("encoders", dict[str, Encoders])
        self._llm: dict[str, Llm] = self._section("llm", dict[str, Llm])
        self._files: dict[str, File] = self._section("files", dict[str, File])
        for quant, llm in self._llm.items():
            sizes = llm.embedding.rows, llm.embedding.columns
            if sizes != (self.geometry.llm.vocabulary, self.geometry.llm.width):
                raise ValueError(f"lacks or misstates 'llm.{quant}.embedding' (other sizes than 'geometry.llm')")
        self.engines: dict[str, dict[str, dict[str, Any]]] = self.manifest.get("engines", {})
        typed(dict[str, dict[str, dict[str, EngineFiles]]], self.engines, "engines")
        exact = self.manifest.get("float32_attention", {})
        self.float32_attention: dict[str, dict[str, list[str]]] = typed(
            dict[str, dict[str, list[str]]], exact, "float32_attention"
        )
        calibrated = typed(dict[str, Calibrated], self.manifest.get("calibration", {}), "calibration")
        self.unverified: list[str] = [name for name, record in calibrated.items() if not record.verified]
        typed(dict[str, Compared], self.manifest.get("parity", {}), "parity")

    def _section(self, name: str, kind: Any, *, closed: bool = False) -> Any:
        if name not in self.manifest:
            raise ValueError(f"lacks or misstates '{name}'")
        return typed(kind, self.manifest[name], name, closed=closed)

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
        graphs: dict[str, Graph] = getattr(self._part("--precision", precision, self._encoders), encoder)
        return graphs.get(provider, graphs[PORTABLE])

    def llm(self, quant: str) -> Llm:
        """A language model; raises BadBundle when the bundle does not hold this quantisation."""
        llm: Llm = self._part("--quant", quant, self._llm)
        return llm

    def is_of(self, digest: str) -> bool:
        """Whether it was made from the checkpoint with this SHA-256."""
        return self._source.sha256 == digest

    def file(self, name: str) -> Path:
        """Path of a file of the bundle."""
        return self.path / name

    def size(self, name: str) -> int:
        """Bytes of a file, as the manifest states them."""
        return self._files[name].bytes if name in self._files else 0

    def digest(self, names: Iterable[str]) -> str:
        """One SHA-256 over files and what the manifest says of the model: equal where answers are."""
        described = json.dumps([self.manifest[key] for key in ("geometry", "defaults", "stop_ids")], sort_keys=True)
        model = hashlib.sha256(described.encode()).hexdigest()
        return joint_digest({"model": model, **self.digests(names)})

    def digest_of(self, precision: str, quant: str) -> str:
        """One SHA-256 over all that answers of these parts come from, the same on every device; see `graph`, `llm`."""
        # the CPU's graphs stand for those of all providers, which compute the same from the same weights
        graphs = [self.graph(name, precision, CPU) for name in ENCODERS]
        names = [name for graph in graphs for name in (graph.file, graph.weights)]
        return self.digest([*names, self.llm(quant).file])

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of files, as the manifest states them, by the names that they have by documentation.

        Raises:
            BadBundle: the manifest has no entry for a file.
        """
        return {documented(name): self._described(name).sha256 for name in names}

    def require_file(self, name: str) -> Path:
        """Path of a file of the bundle; raises BadBundle when the manifest has no entry for it, or it is not there."""
        path = self.path / name
        self._described(name)
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
                described = self._files[name]
                if path.stat().st_size != described.bytes:
                    raise BadBundle(
                        f"{path}: has {path.stat().st_size} bytes, the manifest says {described.bytes}; "
                        "copy it again or export it again with --force"
                    )
                if memory.digest(path, fresh=fresh) != described.sha256:
                    raise BadBundle(
                        f"{path}: its SHA-256 differs from the manifest's; "
                        "copy it again or export it again with --force"
                    )

    def _described(self, name: str) -> File:
        """The manifest's entry for a file; raises BadBundle where there is none, or it leads out of the bundle."""
        if name not in self._files or leads_out(name):
            raise BadBundle(f"{self.path}: the manifest has no entry for {name}; export the bundle again")
        return self._files[name]

    def _part(self, option: str, name: str, parts: Mapping[str, Any]) -> Any:
        if name not in parts:
            command = {"--precision": "onnx", "--quant": "gguf"}[option]
            held = ", ".join(parts) or f"none; add one with stllm-export {command} --ckpt DIR --out {self.path}"
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
    if type(found) is not int or found != SCHEMA:
        stated = " ".join(str(found).split())[:40]
        raise BadBundle(f"{file}: schema {stated}, this program reads schema {SCHEMA}; export the bundle again")
    return dict(manifest)


def documented(name: str) -> str:
    """A file's name without the folder of its own that a part has which replaced another."""
    path = PurePosixPath(name)
    own = re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", path.parent.name)
    return str(path.parent.parent / path.name) if own else name


def leads_out(name: str) -> bool:
    """Whether a name is not one of a file inside the bundle."""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
