"""Which products of an encoder become INT8, with what range, and why the others do not."""

import contextlib
import fnmatch
import io
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.encoders.local import INSTALL
from ...runtime.libraries import load_library
from .numerics import quantise_weight, symmetric
from .observed import Observation
from .smooth import Fold, product_error

__all__ = ["FORMS", "LEFT_OUT", "Choice", "choose", "matches"]

INT8, FLOAT32 = FORMS = ("int8", "float32")
# a product that is further off takes the encoder with it
MOST_ERROR = 0.06
# beside the greatest magnitude; of values, in per cent
PERCENTILES = (99.99, 99.9)
# what no measurement has shown to pay: they are a small part of the arithmetic, and all that follows reads them
LEFT_OUT = {
    "project_out.weight": "last Linear",
    "to_language.weight": "last Linear",
    "point_rays.weight": "ray projection",
    "frame_rays.weight": "ray projection",
}


@dataclass(frozen=True)
class Choice:
    """What a product with a weight becomes.

    Attributes:
        weight: its name.
        form: int8 or float32.
        reason: why it is not INT8, or how its range was set.
        error: of the product in INT8 on the calibration set, relative; NaN where it was not tried.
        static_error: the same with a range that was set before.
        threshold: that range, the largest input that is kept.
        usual: the range that suits usual rows best, whatever it does to the loudest.
        smoothed: error with the factors of channels over that without; 1 where there are none.
        exact: why it is not INT8 in TensorRT's graphs, where it is on CPUs; empty where it is.
    """

    weight: str
    form: str
    reason: str
    error: float = float("nan")
    static_error: float = float("nan")
    threshold: float = 0.0
    usual: float = 0.0
    smoothed: float = 1.0
    exact: str = ""

    @property
    def static(self) -> bool:
        """Whether it is INT8 with a range that was set before, too."""
        return self.form == INT8 and not self.exact

    def stays(self, static: bool) -> bool:
        """Whether it is float32 on CPUs or, with ranges that were set before, in TensorRT's graphs."""
        return not self.static if static else self.form != INT8

    def why(self, static: bool) -> str:
        """Why it stays float32, where it does."""
        return self.exact or self.reason if static else self.reason

    def kept(self, static: bool, reason: str) -> "Choice":
        """The same product in float32: everywhere, or in TensorRT's graphs alone."""
        return replace(self, exact=reason) if static else replace(self, form=FLOAT32, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for what is not a number."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def choose(
    module: nn.Module,
    observed: Mapping[str, Observation],
    folds: Collection[Fold],
    kept: Collection[str] = (),
    encoder: str = "",
) -> list[Choice]:
    """What each product of an encoder becomes.

    Args:
        module: the encoder as it is traced.
        observed: what the calibration set does to its products.
        folds: factors of channels that will be folded.
        kept: patterns of weights that are to stay float32, with or without the encoder before them.
        encoder: its name.
    """
    parameters = dict(module.named_parameters())
    factors, divisors, gains = spread(folds)
    choices = []
    for name, seen in observed.items():
        if name in LEFT_OUT:
            choices.append(Choice(name, FLOAT32, LEFT_OUT[name]))
        elif any(matches(pattern, encoder, name) for pattern in kept):
            choices.append(Choice(name, FLOAT32, "asked for"))
        elif not seen.kept:
            choices.append(Choice(name, FLOAT32, "the calibration set never reaches it"))
        else:
            weight = parameters[name].detach()
            if name in divisors:
                weight = weight / divisors[name]
            if name in factors:
                seen, weight = seen.divided(factors[name]), weight * factors[name][:, None]
            choices.append(tried(name, seen, weight, gains.get(name, 1.0)))
    return choices


def matches(pattern: str, encoder: str, name: str) -> bool:
    """Whether a pattern means a weight, as `layers.3.*` or `vision.layers.3.*`."""
    return any(fnmatch.fnmatchcase(one, pattern) for one in (name, f"{encoder}.{name}"))


def spread(folds: Collection[Fold]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """Factors of rows, divisors of columns, and gains, by the weight's name."""
    factors = {name: fold.factors for fold in folds for name in fold.weights}
    gains = {name: fold.gain for fold in folds for name in fold.weights}
    divisors = {
        name: torch.from_numpy(1 / scale)
        for fold in folds
        for name, axis, scale in fold.scalings()
        if axis == 1 and name not in fold.weights
    }
    return factors, divisors, gains


def tried(name: str, seen: Observation, weight: Tensor, gain: float) -> Choice:
    """A product in INT8, or in float32 where that costs too much."""
    error = product_error(seen, weight)
    static_error, threshold, usual, method = set_range(seen, weight)
    numbers = error, static_error, threshold, usual, gain
    if error > MOST_ERROR or error != error:
        return Choice(name, FLOAT32, too_far(error), *numbers)
    return Choice(name, INT8, method, *numbers, "" if static_error <= MOST_ERROR else too_far(static_error))


def too_far(error: float) -> str:
    """Why a product stays float32 that INT8 changes so much."""
    return f"INT8 changes it by {error:.1%}, more than {MOST_ERROR:.0%}"


def set_range(seen: Observation, weight: Tensor) -> tuple[float, float, float, str]:
    """The range with the least error among those that are known for activations.

    The error is that of usual rows or that of the loudest, whichever is more: few rows are loud, but they are what
    attention looks for.

    Returns:
        The error, the range, the one with the least error of usual rows alone, and how the first was found.
    """
    integers, scale = quantise_weight(weight)
    restored = integers.float() * scale
    tried = []
    for method, threshold in thresholds(seen).items():
        errors = []
        for rows in (seen.rows, seen.loudest):
            exact, ours = rows @ weight, symmetric(rows, threshold) @ restored
            norm = torch.linalg.vector_norm(exact).clamp_min(1e-30)
            errors.append(float(torch.linalg.vector_norm(ours - exact) / norm))
        tried.append((errors, threshold, method))
    worst, threshold, method = min((max(errors), threshold, method) for errors, threshold, method in tried)
    return worst, threshold, min((errors[0], threshold) for errors, threshold, _ in tried)[1], method


def thresholds(seen: Observation) -> dict[str, float]:
    """Largest input that is kept, by the way in which it is found; ONNX Runtime's own for entropy."""
    low, high = seen.bounds
    largest = max(-low, high, 1e-30)
    values = seen.rows.numpy().ravel()
    found = {"min-max": largest}
    for share in PERCENTILES:
        found[f"percentile {share}"] = max(float(np.percentile(np.abs(values), share)), largest * 1e-3)
    calibrate = load_library("onnxruntime.quantization.calibrate", INSTALL)
    collector = calibrate.HistogramCollector("entropy", True, 128, 128, None, "same")
    # it prints what it does
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"values": [values]})
        bounds = collector.compute_collection_result()["values"]
    found["entropy"] = max(float(np.abs(bounds[1])), largest * 1e-3)
    return found
