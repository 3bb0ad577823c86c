"""The bundle: a directory with graphs, language models and a manifest that says what each file is.

    BUNDLE/
      manifest.json
      onnx/{vision,points,aligner}[.fp16][.<provider>].onnx    graphs; .data files hold their weights
      llm/<QUANT>.gguf
      engines/<target>/{vision,points,aligner}[.fp16].{engine,json}

This module is the one definition of the format: the export writes through `BundleWriter`, the runtime reads through
`Bundle`. Files are staged inside the bundle and renamed into place; the manifest is written last.
"""

import fcntl
import hashlib
import json
import operator
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadBundle, BadInput
from .digests import file_digest, joint_digest
from .files import atomic_path
from .geometry import Geometry

__all__ = ["CPU", "ENCODERS", "PORTABLE", "TENSORRT", "Bundle", "BundleWriter", "Defaults", "Graph"]

SCHEMA = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
STAGING = ".staging-"
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
        file = self.path / MANIFEST
        try:
            self.manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise BadBundle(
                f"{path}: no {MANIFEST}; make a bundle with stllm-export all --ckpt DIR --out {path}"
            ) from None
        except OSError as error:
            raise BadBundle(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise BadBundle(f"{file}: damaged ({error}); export the bundle again") from None
        found = self.manifest.get("schema") if isinstance(self.manifest, dict) else None
        if found != SCHEMA:
            raise BadBundle(f"{file}: schema {found}, this program reads schema {SCHEMA}; export the bundle again")
        try:
            self.geometry = Geometry.from_json(self.manifest["geometry"])
            self.defaults = Defaults(**self.manifest["defaults"])
            self.stop_ids: tuple[int, ...] = tuple(map(operator.index, self.manifest["stop_ids"]))
            self._encoders = {
                precision: {
                    name: {provider: Graph(**graph) for provider, graph in graphs.items()}
                    for name, graphs in encoders.items()
                }
                for precision, encoders in self.manifest["encoders"].items()
            }
            self._llm = {
                quant: Llm(entry["file"], Embedding(**entry["embedding"]))
                for quant, entry in self.manifest["llm"].items()
            }
            self._files = {
                name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in self.manifest["files"].items()
            }
            self.engines = read_engines(self.manifest.get("engines", {}))
            for precision, encoders in self._encoders.items():
                for name in ENCODERS:
                    if PORTABLE not in encoders.get(name, {}):
                        raise KeyError(f"encoders {precision} {name} {PORTABLE}")
            if not 0 < self.defaults.voxel_size < float("inf") or not self.defaults.frames >= 1:
                raise ValueError(f"defaults {self.defaults}")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise BadBundle(f"{file}: lacks or misstates {error}; export the bundle again") from None

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
        for name in names:
            path = self.require_file(name)
            size, digest = self._files[name]
            if path.stat().st_size != size:
                raise BadBundle(
                    f"{path}: has {path.stat().st_size} bytes, the manifest says {size}; "
                    "copy it again or export it again with --force"
                )
            if file_digest(path, fresh=fresh) != digest:
                raise BadBundle(
                    f"{path}: its SHA-256 differs from the manifest's; copy it again or export it again with --force"
                )

    def _part(self, option: str, name: str, parts: Mapping[str, Any]) -> Any:
        if name not in parts:
            held = ", ".join(parts) or "none"
            raise BadBundle(f"{option} {name}: {self.path} does not hold it; it holds {held}")
        return parts[name]


@dataclass
class BundleWriter:
    """Adds parts to a bundle; use `BundleWriter.open`.

    Attributes:
        path: the bundle.
        staging: folder to write new files to, under the names that they will have in the bundle.
        manifest: the manifest as it will be written.
    """

    path: Path
    staging: Path
    manifest: dict[str, Any]
    force: bool
    _staged: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, force: bool = False) -> Iterator["BundleWriter"]:
        """Open or create a bundle for writing; what was added takes effect at the end, and nothing does on an error.

        Raises:
            BadBundle: the directory holds something else, cannot be written, or another process writes to it.
        """
        created = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise BadBundle(f"--out {path}: is a file or lies below one; choose a folder") from None
        except OSError as error:
            raise BadBundle(f"--out {path}: no folder can be made there ({error.strerror})") from None
        with disk_errors(path), exclusive(path):
            for stale in path.glob(f"{STAGING}*"):
                shutil.rmtree(stale)
            empty = not [entry for entry in path.iterdir() if entry.name != LOCK]
            try:
                manifest = read_manifest_for_writing(path)
                staging = path / f"{STAGING}{secrets.token_hex(4)}"
                staging.mkdir()
                try:
                    writer = cls(path, staging, manifest, force)
                    yield writer
                    writer._commit()
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
            finally:
                if empty and not (path / MANIFEST).exists():
                    for entry in path.iterdir():
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    for folder in created:
                        folder.rmdir()

    def describe(self, description: Mapping[str, Any]) -> None:
        """State the source, geometry, defaults and stop ids, which all parts of a bundle share.

        Raises:
            BadBundle: the bundle was made from another checkpoint or with other options.
        """
        for key, value in json.loads(json.dumps(description)).items():
            if key in self.manifest and self.manifest[key] != value:
                raise BadBundle(
                    f"{self.path}: was made with {key} {shorten(self.manifest[key])}, now asked for {shorten(value)}; "
                    "write to another --out"
                )
            self.manifest[key] = value

    def require_absent(self, kind: str, name: str) -> None:
        """Refuse to replace a part unless forced; `kind` is `encoders`, `llm` or `engines`.

        Raises:
            BadInput: the part is there.
        """
        if name in self.manifest.get(kind, {}) and not self.force:
            raise BadInput(f"{self.path} already holds {kind} {name}; --force replaces it")

    def add(self, kind: str, name: str, entry: Mapping[str, Any], files: list[str]) -> None:
        """Record a part whose files lie in `staging`; they are renamed into place at the end."""
        self.manifest.setdefault(kind, {})[name] = entry
        self._staged = list(dict.fromkeys([*self._staged, *files]))

    def record_parity(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep the result of a comparison with the PyTorch model."""
        self.manifest["parity"][name] = record

    def summary(self) -> str:
        """One line a new file: its name and size."""
        staged = sorted(self._staged)
        return "\n".join(f"{self.path / name}  {(self.staging / name).stat().st_size / 1e6:.1f} MB" for name in staged)

    def _commit(self) -> None:
        for name in self._staged:
            staged, final = self.staging / name, self.path / name
            self.manifest["files"][name] = {"bytes": staged.stat().st_size, "sha256": file_digest(staged)}
            final.parent.mkdir(parents=True, exist_ok=True)
            sync(staged)
            staged.replace(final)
        if self._staged:
            self.manifest["parity"] = {
                name: record
                for name, record in self.manifest["parity"].items()
                if not set(self._staged) & set(record["files"])
            }
        with atomic_path(self.path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")
            sync(temporary)


def read_manifest_for_writing(path: Path) -> dict[str, Any]:
    if (path / MANIFEST).exists():
        return Bundle(path).manifest
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ("onnx", "llm", "engines", LOCK))
    if others:
        raise BadBundle(f"--out {path}: holds {shorten(others)} and no {MANIFEST}; choose an empty folder")
    return {"schema": SCHEMA, "encoders": {}, "llm": {}, "files": {}, "parity": {}}


def read_engines(entries: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Engines by target, precision and encoder; raises TypeError or a kin where the manifest is damaged."""
    for precisions in entries.values():
        for encoders in precisions.values():
            for name, entry in encoders.items():
                if not (isinstance(entry["file"], str) and isinstance(entry["sidecar"], str)):
                    raise TypeError(f"engines {name}")
    return dict(entries)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line: a full disk, a folder that is read-only."""
    try:
        yield
    except OSError as error:
        raise BadBundle(f"{error.filename or path}: {error.strerror or error}") from None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the bundle's lock; raises BadBundle when another process holds it."""
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadBundle(f"{path}: another process is writing to this bundle") from None
        yield


def sync(path: Path) -> None:
    """Force a file to disk, so that a rename never reveals an empty one after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
