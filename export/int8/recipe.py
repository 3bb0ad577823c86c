"""What makes an encoder's INT8 graphs: folds, and a choice for each product; and how a user steers both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from torch import nn

from ...runtime.bundle.manifest import TENSORRT
from .convert import convert
from .observed import Observation
from .products import INT8, Choice, choose
from .smooth import Fold, apply, find_folds

__all__ = ["Calibrating", "Recipe"]


@dataclass(frozen=True)
class Calibrating:
    """How encoders are calibrated; fields as the options of `stllm-export`.

    Attributes:
        calibration: the set; None measures FP16's ranges on the built-in sample.
        keep_float: patterns of weights whose products stay float32.
        smooth: whether outlier channels are moved into weights where that helps.
        allow_unverified: whether encoders that fail their gate are written.
    """

    calibration: Path | None = None
    keep_float: tuple[str, ...] = ()
    smooth: bool = True
    allow_unverified: bool = False


@dataclass(frozen=True)
class Recipe:
    """One encoder in INT8.

    Attributes:
        folds: factors of channels.
        choices: what each product becomes.
    """

    folds: tuple[Fold, ...]
    choices: tuple[Choice, ...]

    @classmethod
    def of(cls, encoder: str, module: nn.Module, observed: Mapping[str, Observation], options: Calibrating) -> "Recipe":
        """From what a calibration set does to an encoder's products."""
        folds = find_folds(module, observed) if options.smooth else []
        return cls(tuple(folds), tuple(choose(module, observed, folds, options.keep_float, encoder)))

    def prepare(self, model: ir.Model) -> None:
        """Fold the factors into a traced graph; changes `model`."""
        apply(model, self.folds)

    def convert(self, model: ir.Model, provider: str) -> None:
        """Put INT8 into a graph that is expanded for a provider; changes `model`."""
        chosen = [choice for choice in self.choices if not choice.stays(static=provider == TENSORRT)]
        convert(model, {choice.weight: choice.threshold for choice in chosen}, provider)

    def summary(self) -> str:
        """How many products are INT8, and one line for each that is not."""
        static = sum(choice.static for choice in self.choices)
        lines = [
            f"{sum(choice.form == INT8 for choice in self.choices)} of {len(self.choices)} products INT8, {static} of "
            f"them for TensorRT too; {len(self.folds)} groups smoothed"
        ]
        for choice in self.choices:
            if choice.stays(static=True):
                where = "" if choice.stays(static=False) else " for TensorRT"
                lines.append(f"  {choice.weight} stays float32{where}: {choice.why(static=True)}")
        return "\n".join(lines)
