"""Adding to a bundle: files are staged inside it and renamed into place, and the manifest is written last."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadBundle, BadInput
from .digests import DigestMemory, sha256
from .files import atomic_path
from .manifest import MANIFEST, SCHEMA, Bundle

__all__ = ["BundleWriter"]

LOCK = ".lock"
STAGING = ".staging-"


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
                manifest = read_or_begin(path)
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
            staged = self.staging / name
            self.manifest["files"][name] = {"bytes": staged.stat().st_size, "sha256": sha256(staged)}
            sync(staged)
        with DigestMemory() as memory:
            for name in self._staged:
                final = self.path / name
                final.parent.mkdir(parents=True, exist_ok=True)
                (self.staging / name).replace(final)
                # only now: a rename changes what a file is known by
                memory.remember(final, self.manifest["files"][name]["sha256"])
        if self._staged:
            self.manifest["parity"] = {
                name: record
                for name, record in self.manifest["parity"].items()
                if not set(self._staged) & set(record["files"])
            }
        with atomic_path(self.path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")
            sync(temporary)


def read_or_begin(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, or that of a new one; raises BadBundle when the folder holds something else."""
    if (path / MANIFEST).exists():
        return Bundle(path).manifest
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ("onnx", "llm", "engines", LOCK))
    if others:
        raise BadBundle(f"--out {path}: holds {shorten(others)} and no {MANIFEST}; choose an empty folder")
    return {"schema": SCHEMA, "encoders": {}, "llm": {}, "files": {}, "parity": {}}


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
