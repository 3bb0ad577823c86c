"""What is judged before encoders are written, and what the manifest says of it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import CPU, ENCODERS, PORTABLE, TENSORRT
from ...runtime.bundle.precisions import FP16, FP32, INT8, formats_of
from ...runtime.bundle.writer import BundleWriter
from ...runtime.errors import BadInput
from .gates import Judgement
from .products import matches
from .recipe import Calibrating, Recipe
from .runs import SetRun

__all__ = ["record_calibration"]

LOG = logging.getLogger(__name__)
SECTION = "calibration"


def record_calibration(
    writer: BundleWriter,
    precision: str,
    entry: Mapping[str, Mapping[str, Any]],
    sample: Any,
    recipes: Mapping[str, Recipe],
    options: Calibrating,
) -> None:
    """Judge a precision's graphs on held-out inputs, and keep the result for the manifest.

    Without a calibration set nothing is judged: what is float32, or FP16 by the built-in sample, is compared by verify.

    Raises:
        BadInput: a graph fails its gate, and this is not allowed.
    """
    writer.manifest.get(SECTION, {}).pop(precision, None)
    formats = formats_of(precision)
    if not isinstance(sample, SetRun) or set(formats.values()) == {FP32}:
        return
    require_matched(options.keep_float, recipes)
    judged = list(judgements(writer.staging, formats, entry, sample))
    for judgement in judged:
        LOG.info("%s", judgement)
    failed = [judgement for judgement in judged if not judgement.passed]
    if failed and not options.allow_unverified:
        raise BadInput(
            f"--precision {precision}: {len(failed)} of {len(judged)} graphs fail their gate, first "
            f"{' '.join(str(failed[0]).split())}; nothing is written (--keep-float WEIGHTS leaves products float32, "
            "stllm-calib sensitivity says which, --allow-unverified writes it all the same)"
        )
    for judgement in failed:
        LOG.warning("written unverified: %s", judgement)
    writer.manifest.setdefault(SECTION, {})[precision] = {
        "set": sample.calibration.digest,
        "samples": len(sample.calibration),
        "seed": sample.calibration.description.seed,
        "verified": not failed,
        "gates": [judgement.to_json() for judgement in judged],
        "islands": {name: sample.islands[name] for name, form in formats.items() if form == FP16},
        "products": {
            name: [choice.to_json() for choice in recipes[name].choices]
            for name, form in formats.items()
            if form == INT8
        },
    }


def require_matched(patterns: Sequence[str], recipes: Mapping[str, Recipe]) -> None:
    """Raise BadInput for a pattern that means no product of an encoder in INT8."""
    products = [(name, choice.weight) for name, recipe in recipes.items() for choice in recipe.choices]
    for pattern in patterns:
        if recipes and not any(matches(pattern, *product) for product in products):
            first = ", ".join(".".join(product) for product in products[:3])
            raise BadInput(f"--keep-float {pattern}: is no product of these encoders; there are {first} and others")


def judgements(
    root: Path, formats: Mapping[str, str], entry: Mapping[str, Mapping[str, Any]], sample: SetRun
) -> Iterator[Judgement]:
    """Each graph that is not float32, once; providers without a graph of their own share the portable one."""
    seen = set()
    for provider in (CPU, TENSORRT):
        graphs = {name: entry[name].get(provider, entry[name][PORTABLE]) for name in ENCODERS}
        paths = {name: root / graph["file"] for name, graph in graphs.items()}
        lowered = {name for name, form in formats.items() if form != FP32}
        for name in ENCODERS:
            # an aligner in float32 reads what was lowered before it, but is itself what verify compares
            if name not in lowered or paths[name] in seen:
                continue
            seen.add(paths[name])
            literal = FP16 in formats.values() or provider == TENSORRT
            for before in ENCODERS[:2] if name == "aligner" else ():
                sample.compute(before, paths, graphs[before]["maps"], literal=literal)
            yield sample.judge(formats[name], name, paths, graphs[name]["maps"], literal=literal)
