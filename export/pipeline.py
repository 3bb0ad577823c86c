"""One export: a checkpoint, a bundle, and the parts that were asked for."""

import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle.manifest import MOST_FRAMES, Bundle, Defaults
from ..runtime.bundle.writer import BundleWriter
from ..runtime.console import Progress
from ..runtime.errors import BadInput, require_at_least
from ..runtime.options import Recording
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory, take_inventory
from .checkpoint.tokenizer import stop_ids
from .comparison import Row
from .disk import require_disk
from .gguf.writer import QUANTS, add_llms
from .onnx.encoders import PRECISIONS, add_encoders
from .verify import POSITIONS, Verification
from .views import BUILT_IN, opened

__all__ = ["Export"]

LOG = logging.getLogger(__name__)
TOOLS = ("stllm-edge", "torch", "onnx", "onnxscript", "gguf", "llama-cpp-python")


@dataclass(frozen=True)
class Export:
    """What to read and where to write.

    Attributes:
        checkpoint: opened, with an inventory that is complete.
        inventory: names and sizes.
        out: the bundle.
        defaults: options that the bundle records.
        force: whether existing parts are replaced.
        progress: where to report.
    """

    checkpoint: Checkpoint
    inventory: Inventory
    out: Path
    defaults: Defaults
    force: bool
    progress: Progress

    @classmethod
    def open(
        cls,
        checkpoint: Path,
        out: Path,
        base: Path | None = None,
        point_encoder: Path | None = None,
        defaults: Defaults | None = None,
        *,
        force: bool = False,
        quiet: bool = False,
    ) -> "Export":
        """Open a checkpoint, and check that it is a whole ST-LLM.

        Args:
            checkpoint: its folder.
            out: the bundle, which may be there already.
            base: the checkpoint below a LoRA adapter, if the adapter does not lead to it.
            point_encoder: OpenScene weights instead of the checkpoint's own.
            defaults: options that the bundle records; None takes the usual ones.
            force: whether parts that are there are replaced.
            quiet: whether no progress is shown.

        Raises:
            BadInput: it is not, or a default has no meaning.
        """
        defaults = defaults or Defaults()
        if not defaults.possible:
            raise BadInput(
                f"--voxel-size {defaults.voxel_size}, --frames {defaults.frames}: expected positive numbers, "
                f"at most {MOST_FRAMES} frames"
            )
        opened = Checkpoint(checkpoint, base, point_encoder)
        inventory = take_inventory(opened)
        inventory.require_complete(opened.path)
        return cls(opened, inventory, out, defaults, force, Progress(quiet))

    def run(self, precisions: Sequence[str] = (), quants: Sequence[str] = ()) -> None:
        """Add encoders and language models to the bundle; all of them or, on an error, none.

        Raises:
            BadInput: a part is unknown or there already.
            BadBundle: the bundle belongs to another checkpoint.
        """
        for option, asked, known in (("--precision", precisions, PRECISIONS), ("--quant", quants, QUANTS)):
            if unknown := [name for name in asked if name not in known]:
                raise BadInput(f"{option} {unknown[0]}: unknown; known are {', '.join(known)}")
        precisions, quants = tuple(dict.fromkeys(precisions)), tuple(dict.fromkeys(quants))
        with BundleWriter.open(self.out, force=self.force) as writer:
            writer.describe(self._description(writer.manifest))
            for kind, names in (("encoders", precisions), ("llm", quants)):
                for name in names:
                    writer.require_absent(kind, name)
            LOG.info("%s", require_disk(self.out, self.checkpoint, self.inventory, precisions, quants))
            if precisions:
                add_encoders(writer, self.checkpoint, self.inventory, precisions, self.progress)
            if quants:
                add_llms(writer, self.checkpoint, self.inventory, quants, self.progress)
            writer.manifest["tools"] = tool_versions()
            LOG.info("%s", writer.summary())

    def everything(
        self,
        precisions: Sequence[str],
        quants: Sequence[str],
        recording: Recording = BUILT_IN,
        *,
        verified: bool = True,
    ) -> Iterator[Row]:
        """Add parts as `run` does and, unless told not to, compare them as `verify` does; rows as they come.

        Raises:
            BadInput: also when scene or clip cannot be read, which is found out before anything is written.
        """
        if verified:
            with opened(recording, self.defaults.voxel_size):
                pass
        self.run(precisions, quants)
        if verified:
            yield from self.verify(recording, precisions, quants)

    def verify(
        self,
        recording: Recording = BUILT_IN,
        precisions: Sequence[str] = (),
        quants: Sequence[str] = (),
        positions: int = POSITIONS,
    ) -> Iterator[Row]:
        """Compare the bundle with the PyTorch model on a scene and a clip, or on the built-in ones.

        Raises:
            BadInput: only one of scene and clip is given, or there are too few positions.
        """
        require_at_least({"--positions": (positions, POSITIONS)})
        with opened(recording, Bundle(self.out).defaults.voxel_size) as (scene, clip):
            verification = Verification(
                self.out, self.checkpoint, self.inventory, scene, clip, self.progress, positions
            )
            yield from verification.run(precisions, quants)

    def _description(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What the manifest is to say; a checkpoint of the same digest keeps the name that its folder had."""
        source = {"checkpoint": self.checkpoint.path.resolve().name, "sha256": self.checkpoint.digest()}
        if (stated := manifest.get("source", {})).get("sha256") == source["sha256"]:
            source = stated
        return {
            "source": source,
            "geometry": self.inventory.geometry.to_json(),
            "defaults": asdict(self.defaults),
            "stop_ids": stop_ids(self.checkpoint),
        }


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the packages that made a bundle."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in TOOLS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
