"""What INT8 in one block of the encoders does to what follows: the prefix tokens, the language model's choice."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..export.checkpoint.checkpoint import Checkpoint
from ..export.checkpoint.geometry import take_inventory
from ..export.comparison import divergence, relative
from ..export.int8.calibration import CalibrationSet, preprocessing
from ..export.int8.numerics import quantised
from ..export.int8.observed import PRODUCTS
from ..export.int8.products import LEFT_OUT
from ..export.model.parts import load_part
from ..export.onnx.costs import run
from ..export.onnx.graphs import GRAPHS, transpose_linears
from ..runtime.bundle.manifest import ENCODERS, Bundle, Defaults
from ..runtime.console import Progress
from ..runtime.errors import BadInput, require_at_least
from ..runtime.llm.prompt import Prompt, build_prompt
from ..runtime.setup import Setup
from ..runtime.stages import Stages

__all__ = ["Effect", "Sensitivity", "require_budget"]

BLOCK = re.compile(r"(?:layers\.\d+|net\.[^.]+|[^.]+)")


@dataclass(frozen=True)
class Effect:
    """What INT8 in some products does; errors are means over the samples.

    Attributes:
        block: encoder and block, or how many blocks.
        products: how many.
        video: rel-rms of the video tokens.
        prefix: rel-rms of the prefix tokens.
        divergence: Kullback-Leibler divergence of the next token's distribution, nats; NaN without a language model.
    """

    block: str
    products: int
    video: float
    prefix: float
    divergence: float

    def __str__(self) -> str:
        told = "" if self.divergence != self.divergence else f"  KL {self.divergence:.2e}"
        return f"{self.block:<28} {self.products:>4}  video {self.video:.2e}  prefix {self.prefix:.2e}{told}"

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for what is not a number."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Outputs:
    """What the encoders and the language model make of each sample."""

    video: list[np.ndarray]
    prefix: list[np.ndarray]
    logits: list[np.ndarray]


class Sensitivity:
    """Runs the encoders on held-out samples of a calibration set, with INT8 in some blocks."""

    def __init__(
        self,
        checkpoint: Path,
        calibration: Path,
        bundle: Path | None,
        quant: str | None,
        samples: int,
        progress: Progress,
    ):
        """Load the encoders, and compute what float32 makes of the samples.

        Args:
            checkpoint: its folder.
            calibration: a set of it.
            bundle: whose language model is asked; None asks none.
            quant: which one; by default the bundle's first.
            samples: of those that are held out.
            progress: where to report.

        Raises:
            BadInput: the set does not belong to the checkpoint, or there are fewer samples.
            BadBundle: the bundle has no such language model.
        """
        require_at_least({"--samples": (samples, 1)})
        self._checkpoint, self._set = Checkpoint(checkpoint), CalibrationSet(calibration)
        inventory = take_inventory(self._checkpoint)
        inventory.require_complete(self._checkpoint.path)
        made_with = self._set.description.preprocessing
        defaults = Defaults(voxel_size=made_with["voxel_size"], time_instruction=made_with["time_instruction"])
        self._set.require(self._checkpoint.digest(), preprocessing(inventory.geometry.vision, defaults))
        self._places = self._set.held_out[:samples]
        if len(self._places) < samples:
            raise BadInput(f"--samples {samples}: {calibration} holds out {len(self._places)}")
        self._progress = progress
        self._setup = None if bundle is None else setup_of(Bundle(bundle), quant)
        self._prompts: list[Prompt] = []
        self._modules: dict[str, nn.Module] = {}
        for name in ENCODERS:
            with progress.stage(f"load {name}"):
                self._modules[name] = GRAPHS[name](load_part(self._checkpoint, inventory, name))
                transpose_linears(self._modules[name])
        self._inputs = [self._set.inputs(place, self._checkpoint) for place in self._places]
        # float32 outputs of each sample, which blocks elsewhere leave as they are
        self._plain: list[dict[str, Tensor]] = [{} for _ in self._places]
        self._exact = self._run({})

    @property
    def blocks(self) -> dict[str, dict[str, list[str]]]:
        """Weights of the products of each block, by encoder and block."""
        found: dict[str, dict[str, list[str]]] = {}
        for encoder, module in self._modules.items():
            for path, submodule in module.named_modules():
                for name, weight in submodule.named_parameters(recurse=False):
                    full = f"{path}.{name}"
                    if isinstance(submodule, PRODUCTS) and weight.ndim == 2 and full not in LEFT_OUT:
                        block = BLOCK.match(full)
                        assert block is not None
                        found.setdefault(encoder, {}).setdefault(block[0], []).append(full)
        return found

    def effects(self) -> list[Effect]:
        """Each block alone in INT8, the one that costs most first."""
        blocks = [(encoder, name) for encoder, named in self.blocks.items() for name in named]
        found = []
        with self._progress.bar("blocks", len(blocks)) as advance:
            for block in blocks:
                found.append(self.together(f"{block[0]}.{block[1]}", [block]))
                advance(1)
        return sorted(found, key=lambda effect: (-effect.prefix - effect.video, effect.block))

    def together(self, title: str, blocks: Sequence[tuple[str, str]]) -> Effect:
        """Some blocks in INT8 at once."""
        weights: dict[str, set[str]] = {}
        for encoder, block in blocks:
            weights.setdefault(encoder, set()).update(self.blocks[encoder][block])
        ours, exact = self._run(weights), self._exact
        pairs = zip(ours.logits, exact.logits, strict=True)
        return Effect(
            title,
            sum(map(len, weights.values())),
            float(np.mean([relative(*pair) for pair in zip(ours.video, exact.video, strict=True)])),
            float(np.mean([relative(*pair) for pair in zip(ours.prefix, exact.prefix, strict=True)])),
            float(np.mean([divergence(*pair) for pair in pairs])) if exact.logits else float("nan"),
        )

    def within(self, budget: float, ranked: Sequence[Effect]) -> tuple[list[str], Effect]:
        """The fewest blocks, costliest first, that stay float32 for the prefix and video to be within a budget.

        Args:
            budget: most rel-rms of either.
            ranked: from `effects`.

        Returns:
            Patterns for `stllm-export --keep-float`, and what the others do together.

        Raises:
            BadInput: no mix is within the budget, which INT8 in one block exceeds.
        """
        names = [effect.block for effect in ranked]

        def keeping(count: int) -> Effect:
            title = f"all but {count} of {len(names)} blocks"
            return self.together(title, [tuple(name.split(".", 1)) for name in names[count:]])  # type: ignore[misc]

        low, high = 0, len(names)
        best = keeping(high)
        # the error falls with every block that is kept, so that halving finds where
        while low < high:
            middle = (low + high) // 2
            effect = keeping(middle)
            if max(effect.prefix, effect.video) <= budget:
                high, best = middle, effect
            else:
                low = middle + 1
        if high == len(names):
            raise BadInput(f"--budget {budget}: even INT8 in {names[-1]} alone costs more; leave the encoders float32")
        return [f"{name}.*" for name in names[:high]], best

    def _run(self, weights: Mapping[str, set[str]]) -> Outputs:
        """All samples with INT8 products of these weights, by encoder."""
        video, prefix = [], []
        with torch.inference_mode():
            for inputs, plain in zip(self._inputs, self._plain, strict=True):
                outputs: dict[str, Tensor] = {}
                for name, module in self._modules.items():
                    if name in plain and not (weights if name == "aligner" else weights.get(name)):
                        outputs[name] = plain[name]
                        continue
                    with quantised(module, dict.fromkeys(weights.get(name, ()))):
                        outputs[name] = run(module, inputs.of(name, outputs))
                if not weights:
                    plain.update(outputs)
                video.append(outputs["vision"].numpy())
                prefix.append(outputs["aligner"].numpy())
        return Outputs(video, prefix, self._logits(video, prefix))

    def _logits(self, video: Sequence[np.ndarray], prefix: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[vocabulary] of the language model after each sample's prompt; none without one."""
        if self._setup is None:
            return []
        found = []
        rows = [tokens.reshape(-1, tokens.shape[-1]) for tokens in video]
        with Stages(self._setup) as stages:
            self._prompts = self._prompts or [self._prompt(stages, place) for place in self._places]
            longest = max(map(len, self._prompts)) + max(map(len, rows)) + len(prefix[0])
            with stages.speaker.load(longest) as model:
                for prompt, tokens, queries in zip(self._prompts, rows, prefix, strict=True):
                    model.restart(longest)
                    found.append(stages.prefill(model, prompt.segments(queries, tokens)).copy())
        return found

    def _prompt(self, stages: Stages, place: int) -> Prompt:
        """A sample's question as the language model has it."""
        sample = self._set.description.samples[place]
        timing = (sample.timing[0], sample.timing[1:]) if sample.timing else None
        return build_prompt(sample.question, stages.speaker.vocabulary.tokenize, timing=timing)


def require_budget(budget: float | None) -> None:
    """Raise BadInput for what is no relative error."""
    if budget is not None and not 0 < budget < float("inf"):
        raise BadInput(f"--budget {budget}: expected a positive number")


def setup_of(bundle: Bundle, quant: str | None) -> Setup:
    """How a bundle's language model is run; raises BadInput where it has none."""
    if not bundle.quants:
        raise BadInput(f"--bundle {bundle.path}: holds no language model; leave it out, or add one")
    name = quant or bundle.quants[0]
    bundle.llm(name)
    return Setup(bundle, bundle.precisions[0] if bundle.precisions else "fp32", name, repack=False)
