"""A bundle with the choices made for it, and whether it was held against the model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import DIGITS, ENCODERS, Bundle
from ...runtime.errors import BadBundle
from ...runtime.options import Options
from ...runtime.session import Session
from ...runtime.setup import Setup

__all__ = ["Subject", "parity_of", "require_verified"]

PASSED, FAILED, ABSENT = "passed", "failed", "absent"


@dataclass(frozen=True)
class Subject:
    """A bundle that is measured.

    Attributes:
        bundle: the bundle.
        options: how it runs, all that was left open decided.
        setup: the same with the files.
        digest: of all that it contributes to an answer.
        parity: passed, failed or absent.
    """

    bundle: Bundle
    options: Options
    setup: Setup
    digest: str
    parity: str

    @classmethod
    def of(cls, bundle: Path, options: Options) -> "Subject":
        """Open a bundle and check its files; raises BadBundle or BadInput as a session does."""
        with Session(bundle, options) as session:
            setup = session.setup
            return cls(session.bundle, options, setup, session.digest, parity_of(session.bundle, setup))

    @property
    def label(self) -> str:
        """Its name in rows."""
        return self.digest[:DIGITS]

    @property
    def verified(self) -> bool:
        return self.parity == PASSED

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return [self.bundle.file(name) for name in self.setup.files]

    def columns(self) -> dict[str, Any]:
        """What a row of the run says of it."""
        setup = self.setup
        return {
            "bundle_path": str(self.bundle.path),
            "bundle_digest": self.digest,
            "parity": self.parity,
            "verified": self.verified,
            "precision": setup.precision,
            "quant": setup.quant,
            "kv": setup.kv,
            "flash_attention": setup.flash_attention,
            "threads": setup.threads,
            "gpu_layers": setup.gpu_layers,
            "resident": setup.resident,
            "provider": setup.placement.name,
            "recompute": setup.recompute,
        }


def parity_of(bundle: Bundle, setup: Setup) -> str:
    """Whether the files that run were compared with the PyTorch model, and agreed within the limits."""
    parity = bundle.manifest.get("parity", {})
    records = [parity.get(part, {"files": [], "rows": []}) for part in (setup.precision, setup.quant)]
    encoders, llm = ({row["stage"]: row["passed"] for row in record.get("rows", [])} for record in records)
    if any(row["passed"] is False for record in records for row in record.get("rows", [])):
        return FAILED
    # an engine is another file than the graphs that were compared
    covered = set(setup.files) <= {name for record in records for name in record["files"]}
    return PASSED if covered and all(encoders.get(name) for name in ENCODERS) and any(llm.values()) else ABSENT


def require_verified(subject: Subject, allowed: bool) -> None:
    """Raise BadBundle for a bundle that was not held against the model, unless that is allowed."""
    if subject.verified or allowed:
        return
    found = "differs from the model" if subject.parity == FAILED else "was not compared with the model"
    raise BadBundle(
        f"{subject.bundle.path}: {subject.setup.precision} and {subject.setup.quant} {found}, and a wrong bundle "
        "may be fast; run stllm-export verify, or mark all rows with --allow-unverified"
    )
