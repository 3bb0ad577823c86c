"""One export: a checkpoint, a bundle, and the parts that were asked for."""

import importlib.metadata
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..runtime.bundle.manifest import MOST_FRAMES, Bundle, Defaults
from ..runtime.bundle.precisions import INT8, canonical, formats_of
from ..runtime.bundle.writer import BundleWriter
from ..runtime.console import Progress
from ..runtime.errors import BadInput, require_at_least
from ..runtime.options import Recording
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory, take_inventory
from .checkpoint.tokenizer import stop_ids
from .comparison import Row
from .disk import require_disk
from .gguf.fitting import fitted
from .gguf.prompts import prompts_of
from .gguf.quantiser import Plan
from .gguf.recipe import Recipe
from .gguf.writer import add_llms, plans, read_matrices
from .int8.recipe import Calibrating
from .onnx.encoders import add_encoders
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

    def run(
        self,
        precisions: Sequence[str] = (),
        quants: Sequence[str | Recipe] = (),
        calibrating: Calibrating | None = None,
        *,
        adapter: bool = False,
        recording: Recording = BUILT_IN,
    ) -> None:
        """Add encoders and language models to the bundle; all of them or, on an error, none.

        Args:
            precisions: of the encoders.
            quants: types of language models, or recipes.
            calibrating: on which inputs precisions are chosen and judged.
            adapter: whether what a LoRA adapter adds to the language model becomes a file of its own.
            recording: on which types are measured that are chosen for a size.

        Raises:
            BadInput: a part is unknown or there already, a recipe is not possible, or a precision takes a calibration
                set that is not there, or fails its gate.
            BadBundle: the bundle belongs to another checkpoint.
        """
        precisions, recipes = tuple(dict.fromkeys(map(canonical, precisions))), recipes_from(quants)
        require_calibration(precisions, calibrating)
        with BundleWriter.open(self.out, force=self.force) as writer:
            writer.describe(self._description(writer.manifest))
            for kind, names in (("encoders", precisions), ("llm", [recipe.name for recipe in recipes])):
                for name in names:
                    writer.require_absent(kind, name)
            recipes = self._sized(recipes, recording)
            types = [recipe.type for recipe in recipes]
            LOG.info("%s", require_disk(self.out, self.checkpoint, self.inventory, precisions, types))
            if precisions:
                add_encoders(writer, self.checkpoint, self.inventory, precisions, self.progress, calibrating)
            if recipes:
                add_llms(writer, self.checkpoint, self.inventory, recipes, self.progress, adapter=adapter)
            writer.manifest["tools"] = tool_versions()
            LOG.info("%s", writer.summary())

    def everything(
        self,
        precisions: Sequence[str],
        quants: Sequence[str | Recipe],
        recording: Recording = BUILT_IN,
        *,
        verified: bool = True,
        calibrating: Calibrating | None = None,
    ) -> Iterator[Row]:
        """Add parts as `run` does and, unless told not to, compare them as `verify` does; rows as they come.

        Raises:
            BadInput: also when scene or clip cannot be read, which is found out before anything is written.
        """
        if verified:
            with opened(recording, self.defaults.voxel_size):
                pass
        self.run(precisions, quants, calibrating, recording=recording)
        if verified:
            yield from self.verify(recording, precisions, [recipe.name for recipe in recipes_from(quants)])

    def plans(self, quants: Sequence[str | Recipe], recording: Recording = BUILT_IN) -> list[Plan]:
        """What libllama would make of each tensor; nothing is written. Arguments as those of `run`.

        Raises:
            BadInput: a recipe is not possible, or an importance matrix is of another model.
        """
        with tempfile.TemporaryDirectory() as folder:
            found = plans(self.checkpoint, self.inventory, self._sized(recipes_from(quants), recording), Path(folder))
        read_matrices(found)
        return found

    def _sized(self, recipes: list[Recipe], recording: Recording) -> list[Recipe]:
        """The recipes, with types chosen for those that have a size."""
        if all(recipe.size is None for recipe in recipes):
            return recipes
        source = self.checkpoint, self.inventory
        prompts = cache(lambda: prompts_of(*source, self.defaults, recording, self.progress))
        return [r if r.size is None else fitted(r, *source, prompts, self.progress) for r in recipes]

    def verify(
        self,
        recording: Recording = BUILT_IN,
        precisions: Sequence[str] = (),
        quants: Sequence[str] = (),
        positions: int = POSITIONS,
        *,
        deep: bool = False,
    ) -> Iterator[Row]:
        """Compare the bundle with the PyTorch model on a scene and a clip, or on the built-in ones.

        With `deep`, every tensor of the language models is read back and compared with the checkpoint's instead.

        Raises:
            BadInput: only one of scene and clip is given, or there are too few positions.
        """
        require_at_least({"--positions": (positions, POSITIONS)})
        precisions = tuple(map(canonical, precisions))
        with opened(recording, Bundle(self.out).defaults.voxel_size) as (scene, clip):
            verification = Verification(
                self.out, self.checkpoint, self.inventory, scene, clip, self.progress, positions
            )
            yield from verification.deep(quants) if deep else verification.run(precisions, quants)

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


def recipes_from(quants: Sequence[str | Recipe]) -> list[Recipe]:
    """Types as recipes, each once."""
    return [quant if isinstance(quant, Recipe) else Recipe(quant, quant) for quant in dict.fromkeys(quants)]


def require_calibration(precisions: Sequence[str], calibrating: Calibrating | None) -> None:
    """Raise BadInput for INT8 without a calibration set."""
    lowered = [name for name in precisions if INT8 in formats_of(name).values()]
    if lowered and (calibrating is None or calibrating.calibration is None):
        raise BadInput(
            f"--precision {lowered[0]}: INT8 takes --calibration SET; make one with stllm-calib collect --ckpt DIR"
        )


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the packages that made a bundle."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in TOOLS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
