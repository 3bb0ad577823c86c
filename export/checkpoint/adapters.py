"""Adapters over a base checkpoint: LoRA, rsLoRA and DoRA as PEFT merges them, and what was trained whole.

SPEC section 2 has the files; the formulas are those of PEFT's documentation.
"""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from ...runtime.errors import BadInput
from .configuration import ADAPTER_KEYS
from .files import read_json
from .weights import WeightsFile, open_weights

__all__ = ["ADAPTER_CONFIG", "Adapter", "Base", "Update"]

LOG = logging.getLogger(__name__)
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TRAINED = "non_lora_trainables.bin"
PREFIX = "base_model.model."
OUTPUT = "lm_head.weight"
# a weight of an adapter: its module, which part of the update, and the adapter's name in files of training
PART = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|magnitude_vector)(?:\.default)?(?:\.weight)?")
WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")


class Base(Protocol):
    """What an adapter lies over: tensors by name, of which only shapes are looked at."""

    def __contains__(self, name: object) -> bool: ...
    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Update:
    """What an adapter makes of one weight W [out, in].

    Attributes:
        down: A, [rank, in].
        up: B, [out, rank].
        scale: alpha / rank; for rsLoRA alpha / sqrt(rank).
        magnitude: DoRA's norms of rows, [out]; None without DoRA.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None

    def merged(self, weight: Tensor) -> Tensor:
        """W + scale · B A in float32; with DoRA each of its rows is given the trained norm."""
        changed = weight.float() + self.scale * (self.up.float() @ self.down.float())
        if self.magnitude is None:
            return changed
        return changed * (self.magnitude.float().flatten() / torch.linalg.vector_norm(changed, dim=1))[:, None]


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, as PEFT and LLaVA's trainer write it.

    Attributes:
        files: its weight files, in the order in which later ones replace tensors of earlier ones.
        updates: by the name of the weight that they change.
        replaced: names of tensors that were trained whole, each with its file and its name there.
    """

    files: list[WeightsFile]
    updates: dict[str, Update]
    replaced: dict[str, tuple[WeightsFile, str]]

    @classmethod
    def read(cls, folder: Path, base: Base) -> "Adapter":
        """Read an adapter and check it against the base below it.

        Raises:
            BadInput: an option means something else than `Update`, or files or tensors are missing or do not fit.
        """
        config = read_json(folder / ADAPTER_CONFIG)
        ADAPTER_KEYS.check(str(folder / ADAPTER_CONFIG), config)
        files = open_files(folder)
        pairs: dict[str, dict[str, Tensor]] = {}
        replaced: dict[str, tuple[WeightsFile, str]] = {}
        known = {*base.names(), OUTPUT}
        for weights in files:
            for stored in weights.names():
                name = WRAPPERS.sub("", stored.removeprefix(PREFIX))
                if match := PART.fullmatch(name):
                    name = f"{match['module']}.weight"
                    pairs.setdefault(name, {})[match["part"]] = weights.tensor(stored)
                elif name in known or weights.path.name == TRAINED:
                    replaced[name] = (weights, stored)
                if name not in known and weights.path.name != TRAINED:
                    raise BadInput(f"{weights.path}: {stored} does not belong to a weight of the base checkpoint")
        require_trained(folder, config, base, pairs, replaced)
        scales = Scales.read(folder / ADAPTER_CONFIG, config)
        updates = {name: update_of(files[0].path, name, pair, base, scales) for name, pair in pairs.items()}
        return cls(files, updates, replaced)


def open_files(folder: Path) -> list[WeightsFile]:
    """The adapter's own weights and, where the trainer wrote it, the file of all else that was trained."""
    own = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    files = [open_weights(own)]
    if (folder / TRAINED).is_file():
        return [*files, open_weights(folder / TRAINED)]
    if (folder / "config.json").is_file():
        raise BadInput(
            f"{folder}: holds an adapter and a config.json, as the trainer writes them, but not {TRAINED}, in which it "
            "saves what else was trained; copy that file too, or, if nothing else was trained, remove the config.json"
        )
    LOG.warning("%s: no %s, so all but what the adapter holds is the base's", folder, TRAINED)
    return files


def require_trained(
    folder: Path, config: Mapping[str, Any], base: Base, pairs: Collection[str], replaced: Collection[str]
) -> None:
    """Raise BadInput unless all is there that the configuration says was trained besides the pairs."""
    modules, bias = config.get("modules_to_save") or [], config.get("bias") or "none"
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise BadInput(f"{folder / ADAPTER_CONFIG}: modules_to_save is {modules!r}, expected a list of names")
    if bias not in ("none", "all", "lora_only"):
        raise BadInput(f"{folder / ADAPTER_CONFIG}: bias is {bias!r}; known are 'none', 'all' and 'lora_only'")
    names = {*base.names(), *replaced}
    wanted: dict[str, Collection[str]] = {}
    for module in modules:
        # PEFT takes every module whose name ends so
        inside = re.compile(rf".*{re.escape(module)}\..+")
        wanted[f"modules_to_save {module}"] = [name for name in names if inside.fullmatch(name)] or [module]
    if bias != "none":
        wanted[f"bias {bias}"] = [
            name
            for name in names
            if name.endswith(".bias") and (bias == "all" or f"{name.removesuffix('bias')}weight" in pairs)
        ]
    for option, trained in wanted.items():
        if absent := sorted(set(trained) - set(replaced)):
            raise BadInput(
                f"{folder}: {option} of {ADAPTER_CONFIG} means that {absent[0]} was trained, but no file of the "
                "adapter holds it; copy all files of the adapter again, or save it with what was trained"
            )


@dataclass(frozen=True)
class Scales:
    """How much an update counts.

    Attributes:
        path: the adapter's configuration.
        rank: of all updates that no pattern gives another.
        alpha: likewise.
        ranks: ranks by a regular expression for the end of a module's name; the first that fits counts.
        alphas: likewise.
        rooted: rsLoRA, which divides by the root of the rank.
        dora: whether updates have magnitudes.
    """

    path: Path
    rank: float
    alpha: float
    ranks: dict[str, float]
    alphas: dict[str, float]
    rooted: bool
    dora: bool

    @classmethod
    def read(cls, path: Path, config: Mapping[str, Any]) -> "Scales":
        """From `adapter_config.json`; raises BadInput for what is no number, pattern or truth value."""
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if not is_number(rank) or not is_number(alpha):
            raise BadInput(f"{path}: needs the numbers r and lora_alpha")
        ranks, alphas = (read_pattern(path, key, config.get(key) or {}) for key in ("rank_pattern", "alpha_pattern"))
        if not all(value > 0 for value in (rank, *ranks.values())):
            raise BadInput(f"{path}: r is {rank:g}, expected a positive rank")
        rooted, dora = (config.get(key) or False for key in ("use_rslora", "use_dora"))
        if not isinstance(rooted, bool) or not isinstance(dora, bool):
            raise BadInput(f"{path}: use_rslora is {rooted!r} and use_dora {dora!r}, expected true or false")
        return cls(path, rank, alpha, ranks, alphas, rooted, dora)

    def of(self, module: str, rank: int) -> float:
        """The factor of one module's update; raises BadInput when the update has another rank than is stated."""
        stated = pattern_value(self.ranks, module, self.rank)
        if stated != rank:
            key = "r" if stated == self.rank else "rank_pattern"
            raise BadInput(f"{self.path}: {key} gives {module} the rank {stated:g}, its pair has {rank}")
        return float(pattern_value(self.alphas, module, self.alpha) / (rank**0.5 if self.rooted else rank))


def read_pattern(path: Path, key: str, pattern: Any) -> dict[str, float]:
    """Numbers by regular expressions; raises BadInput for anything else."""
    if not isinstance(pattern, dict) or not all(is_number(value) for value in pattern.values()):
        raise BadInput(f"{path}: {key} is {pattern!r}, expected numbers by names of modules")
    for name in pattern:
        try:
            re.compile(name)
        except re.error as error:
            raise BadInput(f"{path}: {key}: {name!r} is no regular expression ({error})") from None
    return pattern


def pattern_value(patterns: Mapping[str, float], module: str, default: float) -> float:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def update_of(path: Path, name: str, pair: Mapping[str, Tensor], base: Base, scales: Scales) -> Update:
    """The update of one weight; raises BadInput when its parts do not fit that weight or each other."""
    down, up, magnitude = (pair.get(part) for part in ("A", "B", "magnitude_vector"))
    if scales.dora != (magnitude is not None):
        raise BadInput(
            f"{path}: {name} has {'no' if scales.dora else 'a'} lora_magnitude_vector, which DoRA trains, "
            f"but {ADAPTER_CONFIG} says use_dora: {str(scales.dora).lower()}; copy both again from one adapter"
        )
    if down is not None and up is not None and down.ndim == up.ndim == 2 and up.shape[1] == len(down):
        rows = len(up) if magnitude is None else magnitude.numel()
        if name in base and base.shape(name) == (rows, down.shape[1]) == (len(up), down.shape[1]):
            return Update(down, up, scales.of(name.removesuffix(".weight"), len(down)), magnitude)
    raise BadInput(f"{path}: the pair lora_A, lora_B of {name} does not fit that weight")
