"""One export: a checkpoint, a bundle, and the parts that were asked for."""

import importlib.metadata
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle.manifest import Bundle, BundleWriter, Defaults
from ..runtime.console import Progress
from ..runtime.errors import BadInput, require_at_least
from ..runtime.inputs.clip import load_clip
from ..runtime.inputs.scene import load_scene
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory, take_inventory
from .checkpoint.tokenizer import stop_ids
from .disk import require_disk
from .gguf.writer import QUANTS, add_llm
from .onnx.encoders import PRECISIONS, add_encoders
from .sample import write_sample
from .verify import POSITIONS, Row, Verification

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
    def from_options(cls, values: Mapping[str, Any]) -> "Export":
        """Open a checkpoint by the options of a command, and check that it is a whole ST-LLM.

        Raises:
            BadInput: it is not, or an option has no meaning.
        """
        defaults = Defaults(**{name: values[name] for name in asdict(Defaults()) if name in values})
        if not 0 < defaults.voxel_size < float("inf") or defaults.frames < 1:
            raise BadInput(f"--voxel-size {defaults.voxel_size}, --frames {defaults.frames}: expected positive numbers")
        checkpoint = Checkpoint(values["checkpoint"], values.get("base"), values.get("point_encoder"))
        inventory = take_inventory(checkpoint)
        inventory.require_complete(checkpoint.path)
        progress = Progress(values.get("quiet", False))
        return cls(checkpoint, inventory, values["out"], defaults, values.get("force", False), progress)

    def run(self, precisions: Sequence[str] = (), quants: Sequence[str] = ()) -> None:
        """Add encoders and language models to the bundle; all of them or, on an error, none.

        Raises:
            BadInput: a part is unknown or there already.
            BadBundle: the bundle belongs to another checkpoint.
        """
        for option, asked, known in (("--precision", precisions, PRECISIONS), ("--quant", quants, QUANTS)):
            if unknown := [name for name in asked if name not in known]:
                raise BadInput(f"{option} {unknown[0]}: unknown; known are {', '.join(known)}")
        with BundleWriter.open(self.out, force=self.force) as writer:
            writer.describe(self._description())
            for kind, names in (("encoders", precisions), ("llm", quants)):
                for name in names:
                    writer.require_absent(kind, name)
            LOG.info("%s", require_disk(self.out, self.checkpoint, self.inventory, precisions, quants))
            if precisions:
                add_encoders(writer, self.checkpoint, self.inventory, tuple(dict.fromkeys(precisions)), self.progress)
            for quant in dict.fromkeys(quants):
                add_llm(writer, self.checkpoint, self.inventory, quant, self.progress)
            writer.manifest["tools"] = tool_versions()
            LOG.info("%s", writer.summary())

    def verify(
        self,
        scene: Path | None = None,
        video: Path | None = None,
        precisions: Sequence[str] = (),
        quants: Sequence[str] = (),
        positions: int = POSITIONS,
    ) -> Iterator[Row]:
        """Compare the bundle with the PyTorch model on a scene and a clip, or on the built-in ones.

        Raises:
            BadInput: only one of scene and clip is given, or there are too few positions.
        """
        self.require_views(scene, video)
        require_at_least({"--positions": (positions, POSITIONS)})
        with tempfile.TemporaryDirectory() as folder:
            if scene is None or video is None:
                scene, video = write_sample(Path(folder), Bundle(self.out).defaults.voxel_size)
            verification = Verification(
                self.out, self.checkpoint, self.inventory, load_scene(scene), load_clip(video), self.progress
            )
            yield from verification.run(precisions, quants, positions)

    def require_views(self, scene: Path | None, video: Path | None) -> None:
        """Raise BadInput unless scene and clip can be read; None for both is the built-in sample."""
        if (scene is None) != (video is None):
            raise BadInput("--scene and --video go together; give both, or neither for the built-in sample")
        if scene is not None and video is not None:
            load_scene(scene)
            load_clip(video)

    def _description(self) -> dict[str, Any]:
        return {
            "source": {"checkpoint": self.checkpoint.path.resolve().name, "sha256": self.checkpoint.digest()},
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
