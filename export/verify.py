"""A bundle and the PyTorch model side by side, stage by stage."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from ..runtime.bundle.manifest import Bundle
from ..runtime.bundle.writer import record_comparisons
from ..runtime.console import Progress
from ..runtime.errors import BadBundle
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.llm.prompt import Prompt
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.geometry import Inventory
from .checkpoint.tokenizer import stop_ids
from .comparison import Row
from .encoders import EncoderComparison, changed_files
from .gguf.tensors import EXACT, Records, damages, snr_by_class
from .gguf.writer import gguf_names
from .language import LanguageComparison, reference_prompts
from .material import Material, exact_setup, exact_setups
from .model.reference import Reference

__all__ = ["POSITIONS", "Verification"]

LOG = logging.getLogger(__name__)
POSITIONS = 256


class Verification:
    """One scene, clip and question through a bundle and through the PyTorch model."""

    def __init__(
        self,
        bundle: Path,
        checkpoint: Checkpoint,
        inventory: Inventory,
        scene: Scene,
        clip: Clip,
        progress: Progress,
        positions: int = POSITIONS,
    ):
        """Open the bundle; `positions` is the longest prompt, and what is too long is cut from the clip.

        Raises:
            BadBundle: it cannot be read, or its model has other sizes than the checkpoint.
        """
        self.bundle = Bundle(bundle)
        if self.bundle.geometry != inventory.geometry:
            raise BadBundle(f"{bundle}: was made from a model of other sizes than {checkpoint.path}")
        if not self.bundle.is_of(checkpoint.digest()):
            LOG.warning("%s is not the checkpoint that %s was made from", checkpoint.path, bundle)
        self.checkpoint, self.inventory = checkpoint, inventory
        self.scene, self.clip = scene, clip
        self.positions = positions
        self.reference = Reference(checkpoint, inventory, progress)

    def run(self, precisions: Sequence[str] = (), quants: Sequence[str] = ()) -> Iterator[Row]:
        """Compare parts, by default all, and keep the result in the manifest.

        Each encoder gets on either side what that side computed before. The language model gets the same embeddings
        of scene and clip on both sides.

        Args:
            precisions: encoders.
            quants: language models.

        Raises:
            BadBundle: a part or its file is not there.
        """
        precisions, quants = precisions or self.bundle.precisions, quants or self.bundle.quants
        if not self.bundle.precisions or not self.bundle.quants:
            raise BadBundle(
                f"{self.bundle.path}: verifying takes encoders and a language model, it holds "
                f"{self.bundle.precisions or 'no encoders'} and {self.bundle.quants or 'no language model'}"
            )
        self._require_files(precisions, quants)
        records: dict[str, Any] = {}
        yield self._stops()
        for part, names, rows in self._parts(precisions, quants):
            kept = list(rows)
            records[part] = {"files": names, "rows": [row.to_json() for row in kept]}
            yield from kept
        record_comparisons(self.bundle, records)

    def deep(self, quants: Sequence[str] = ()) -> Iterator[Row]:
        """Read every tensor of the language models back; nothing is run and nothing recorded.

        Raises:
            BadBundle: a language model is not there.
        """
        names = gguf_names(self.inventory.used["llm"], self.inventory.geometry.llm)
        for quant in quants or self.bundle.quants:
            file = self.bundle.llm(quant).file
            path = self.bundle.require_file(file)
            records = Records.of(self.bundle.manifest["llm"][quant])
            if records is None:
                yield Row(
                    quant, "tensors", None, "not recorded by the version that wrote them; export again", file=file
                )
                continue
            checkpoint = self.checkpoint
            if self.bundle.llm(quant).adapter:
                checkpoint = checkpoint.without(names.values())
            found = list(damages(path, records, self.bundle.size(file), checkpoint, names))
            for damage in found:
                yield Row(quant, "tensor", False, f"{damage.name}: {damage.reason}", file=file)
            if not found:
                ratios = snr_by_class(records).items()
                stated = ", ".join(f"{kind} {ratio:.1f} dB" for kind, ratio in ratios if ratio < EXACT)
                yield Row(quant, "tensors", True, f"{len(records.tensors)} as recorded; {stated or 'exact'}", file=file)

    def _parts(
        self, precisions: Sequence[str], quants: Sequence[str]
    ) -> Iterator[tuple[str, list[str], Iterable[Row]]]:
        """Name, files and comparisons of each part."""
        for precision in precisions:
            setups = exact_setups(self.bundle, precision, quants[0])
            names = dict.fromkeys(name for setup in setups for name in setup.files[:-1])
            yield precision, list(names), self.encoders.rows(setups)
        for quant in quants:
            setup = exact_setup(self.bundle, precisions[0], quant)
            file = setup.files[-1:]
            if self.bundle.llm(quant).adapter:
                said = "an adapter lies beside it; the model as trained is compared where it is merged, or with --deep"
                yield quant, file, [Row(quant, "adapter", None, said)]
                continue
            yield quant, file, chain(changed_files(self.bundle, quant, file), self.language.rows(setup))

    def _stops(self) -> Row:
        """The ids that end an answer, of all language models."""
        stated, expected = list(self.bundle.stop_ids), stop_ids(self.checkpoint)
        limit = f"{stated}, as the checkpoint has them" if stated == expected else f"{stated}, expected {expected}"
        return Row("bundle", "stops", stated == expected, limit)

    def _require_files(self, precisions: Sequence[str], quants: Sequence[str]) -> None:
        """Raise BadBundle for a file that is not there, before anything is computed."""
        setups = [setup for precision in precisions for setup in exact_setups(self.bundle, precision, quants[0])]
        setups += [exact_setup(self.bundle, precisions[0], quant) for quant in quants]
        for name in dict.fromkeys(name for setup in setups for name in setup.files):
            self.bundle.require_file(name)

    @cached_property
    def _material(self) -> Material:
        return Material.of(self.bundle, self.scene, self.clip)

    @cached_property
    def _prompts(self) -> list[Prompt]:
        setup = exact_setup(self.bundle, self.bundle.precisions[0], self.bundle.quants[0])
        return reference_prompts(self.checkpoint, setup, self._material)

    @cached_property
    def language(self) -> LanguageComparison:
        """What language models are compared with, after these encoders."""
        vision = self.encoders.expected["vision"]
        return LanguageComparison(
            self.checkpoint,
            self.inventory,
            self.reference,
            self._material,
            prefix=self.encoders.expected["aligner"],
            video=vision.reshape(-1, vision.shape[-1]),
            prompts=self._prompts,
            positions=self.positions,
        )

    @cached_property
    def encoders(self) -> EncoderComparison:
        """What encoders are compared with, on this scene and clip."""
        text = self.reference.embed(self._prompts[0].aligner_token_ids)
        return EncoderComparison(self.checkpoint, self.inventory, self.reference, self._material, text)
