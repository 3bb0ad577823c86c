"""Adding to a bundle: files are staged inside it and renamed into place, and the manifest is replaced last.

A name that the manifest holds never gets other content, so at every moment the manifest, old or new, describes files
that are there. What a part replaced goes after the manifest.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadBundle, BadInput
from .digests import DigestMemory, joint_digest, sha256
from .manifest import DIGITS, MANIFEST, SCHEMA, Bundle, read_manifest
from .staging import list_changes, make_staging, sweep, sync

__all__ = ["BundleWriter", "record_comparisons"]

LOG = logging.getLogger(__name__)
LOCK = ".lock"
PARTS = ("encoders", "llm", "engines")


@dataclass
class BundleWriter:
    """Adds parts to a bundle; use `BundleWriter.open`.

    Attributes:
        path: the bundle.
        staging: folder to write new files to, under the names that documentation gives them.
        manifest: the manifest as it will be written.
    """

    path: Path
    staging: Path
    manifest: dict[str, Any]
    force: bool
    # names in the bundle by names in the staging folder
    _placed: dict[str, str] = field(default_factory=dict)
    _replaced: set[str] = field(default_factory=set)

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, force: bool = False) -> Iterator["BundleWriter"]:
        """Open or create a bundle for writing; what was added takes effect at the end, and nothing does on an error.

        Raises:
            BadBundle: the directory holds something else, cannot be written, or another process writes to it.
        """
        with disk_errors(path), claimed(path):
            manifest = read_or_begin(path)
            try:
                writer = cls(path, make_staging(path), manifest, force)
                yield writer
                writer._commit()
            finally:
                # as it is on disk: an interrupt may have come before or after the manifest was replaced
                sweep(path, read_manifest(path)["files"] if (path / MANIFEST).exists() else ())

    def describe(self, description: Mapping[str, Any]) -> None:
        """State the source, geometry, defaults and stop ids, which all parts of a bundle share.

        The source is the same where its SHA-256 is, whatever its folder is called.

        Raises:
            BadBundle: the bundle was made from another checkpoint or with other options.
        """
        for key, value in json.loads(json.dumps(description)).items():
            held = self.manifest.setdefault(key, value)
            if key == "source" and isinstance(value, dict):
                held, value = held["sha256"], value["sha256"]
            if held != value:
                raise BadBundle(
                    f"{self.path}: was made with {key} {shorten(held)}, now asked for {shorten(value)}; "
                    "write to another --out"
                )

    def require_absent(self, kind: str, name: str) -> None:
        """Refuse to replace a part unless forced; `kind` is `encoders`, `llm` or `engines`.

        Raises:
            BadInput: the part is there.
        """
        if name in self.manifest.get(kind, {}) and not self.force:
            raise BadInput(f"{self.path} already holds {kind} {name}; --force replaces it")

    def add(self, kind: str, name: str, entry: Mapping[str, Any], files: list[str]) -> None:
        """Record a part whose files lie in `staging`, whole; they are renamed into place at the end.

        The entry names files as they lie there. Where one of these names is taken, the files go into a folder of their
        own one deeper, and the entry follows. What else it holds is recorded as it is.
        """
        parts = self.manifest.setdefault(kind, {})
        self._replaced |= self.manifest["files"].keys() & set(strings(parts.get(name)))
        described = {
            file: {"bytes": (self.staging / file).stat().st_size, "sha256": sha256(self.staging / file)}
            for file in dict.fromkeys(files)
        }
        places = {file: file for file in described}
        if not all(self._takes(file, described[file]) for file in described):
            own = joint_digest({file: str(entry["sha256"]) for file, entry in described.items()})[:DIGITS]
            places = {file: str(Path(file).parent / own / Path(file).name) for file in described}
        parts[name] = renamed(dict(entry), places)
        self._placed |= places
        self.manifest["files"] |= {place: described[file] for file, place in places.items()}

    def _takes(self, name: str, described: Mapping[str, Any]) -> bool:
        """Whether a name is free for a file, or already means the same content."""
        held = self.manifest["files"].get(name)
        return held == described if held is not None else not os.path.lexists(self.path / name)

    def record_parity(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep the result of a comparison with the PyTorch model."""
        self.manifest["parity"][name] = record

    def summary(self) -> str:
        """One line a new file: its name and size."""
        return "\n".join(
            f"{self.path / place}  {self.manifest['files'][place]['bytes'] / 1e6:.1f} MB"
            for place in sorted(self._placed.values())
        )

    def _commit(self) -> None:
        """Put the files in their places, then the manifest; what it no longer names is swept up after it."""
        gone = self._replaced - {text for kind in PARTS for text in strings(self.manifest.get(kind))}
        for name in gone:
            del self.manifest["files"][name]
        changed = {*self._placed.values(), *gone}
        if changed:
            self.manifest["parity"] = {
                name: record for name, record in self.manifest["parity"].items() if not changed & set(record["files"])
            }
        manifest = self.staging / MANIFEST
        manifest.write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")
        sync(manifest)
        list_changes(self.staging, changed)
        self._place()
        manifest.replace(self.path / MANIFEST)
        sync(self.path)

    def _place(self) -> None:
        with DigestMemory() as memory:
            for staged, name in self._placed.items():
                final = self.path / name
                sync(self.staging / staged)
                final.parent.mkdir(parents=True, exist_ok=True)
                (self.staging / staged).replace(final)
                sync(final.parent)
                # only now: a rename changes what a file is known by
                memory.remember(final, self.manifest["files"][name]["sha256"])


def record_comparisons(bundle: Bundle, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep results of comparisons with the PyTorch model in a bundle's manifest, by part.

    Where it cannot be written, or its files are no longer those that were compared, a warning says that nothing was
    recorded.
    """
    try:
        with BundleWriter.open(bundle.path) as writer:
            for name, record in records.items():
                for file in record["files"]:
                    if writer.manifest["files"].get(file) != bundle.manifest["files"][file]:
                        raise BadBundle(f"{bundle.path / file}: was replaced meanwhile")
                writer.record_parity(name, record)
    except BadBundle as error:
        LOG.warning("%s; the comparison is not recorded", error)


def read_or_begin(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, or that of a new one, once what earlier writers left over is removed.

    Raises:
        BadBundle: the folder holds something else.
    """
    new: dict[str, Any] = {"schema": SCHEMA, "encoders": {}, "llm": {}, "files": {}, "parity": {}}
    if (path / MANIFEST).exists():
        manifest = new | Bundle(path).manifest
        sweep(path, manifest["files"])
        return manifest
    sweep(path, ())
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ("onnx", "llm", "engines", LOCK))
    if others:
        raise BadBundle(f"--out {path}: holds {shorten(others)} and no {MANIFEST}; choose an empty folder")
    return new


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line: a full disk, a folder that is read-only."""
    try:
        yield
    except OSError as error:
        raise BadBundle(f"{error.filename or path}: {error.strerror or error}") from None


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Make a bundle's folder and hold its lock; both go at the end if no bundle came of it and nothing else is there.

    Raises:
        BadBundle: no folder can be made there, or another process holds the lock.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadBundle(f"--out {path}: is a file or lies below one; choose a folder") from None
    except OSError as error:
        raise BadBundle(f"--out {path}: no folder can be made there ({error.strerror})") from None
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadBundle(f"{path}: another process is writing to this bundle") from None
        if not os.fstat(lock.fileno()).st_nlink:
            # its holder gave up between the two lines above, and a lock without a name keeps nobody out
            raise BadBundle(f"{path}: another process was writing to this bundle; try again")
        try:
            yield
        finally:
            if not (path / MANIFEST).exists():
                (path / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    for folder in created:
                        folder.rmdir()


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys left out: the names of files are among those of a part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from strings(entry)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value with other names for files."""
    if isinstance(value, Mapping):
        return {key: renamed(entry, names) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(entry, names) for entry in value]
    return names.get(value, value) if isinstance(value, str) else value


def shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
