"""Trained checkpoints in all their layouts: tensors by the authors' names, read one at a time (SPEC section 2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...runtime.bundle.digests import DigestMemory, joint_digest
from ...runtime.errors import BadInput
from .weights import TorchFile, WeightsFile, open_weights, read_json, weight_files

__all__ = ["Checkpoint"]

ADAPTER = "adapter_config.json"
POINT_ENCODER = "pcd_encoder.net3d."
DESCRIPTION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    ADAPTER,
)


class Checkpoint:
    """A checkpoint directory as the trainer saves it.

    Attributes:
        path: the directory.
        config: its `config.json`.
        files: the weight files, in the order in which later ones replace tensors of earlier ones.
    """

    def __init__(self, path: Path, base: Path | None = None, point_encoder: Path | None = None):
        """Find a checkpoint's tensors; none is read yet.

        Args:
            path: directory with `config.json` and weights, or with a LoRA adapter.
            base: the checkpoint under a LoRA adapter, where `adapter_config.json` does not lead to it.
            point_encoder: OpenScene weights (`.pth.tar`) that replace the point encoder.

        Raises:
            BadInput: a file is missing, truncated, holds pickled objects, or is not what it claims.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise BadInput(f"checkpoint {path}: not a directory; expected the folder that the trainer saved")
        self.files: list[Path] = []
        self._stored: dict[str, tuple[WeightsFile, str]] = {}
        self._lora: dict[str, tuple[Tensor, Tensor, float]] = {}

        adapter = read_json(self.path / ADAPTER) if (self.path / ADAPTER).is_file() else None
        if adapter is None and base is not None:
            raise BadInput(f"--base {base}: {path} has no {ADAPTER}, so nothing lies below it; leave --base out")
        self._base = self.path if adapter is None else base or self._find_base(adapter)
        for file in weight_files(self._base):
            self._add(open_weights(file))
        if adapter is not None:
            self._add_adapter(adapter)
        if point_encoder is not None:
            self._add_point_encoder(Path(point_encoder))
        if (config := self.find("config.json")) is None:
            raise BadInput(f"{self.path}: config.json is missing")
        self.config: dict[str, Any] = read_json(config)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; raises BadInput when there is none of this name."""
        file, stored = self._find(name)
        return file.shape(stored)

    def dtype(self, name: str) -> torch.dtype:
        """The stored type; a tensor that LoRA changes counts as float32."""
        file, stored = self._find(name)
        return torch.float32 if name in self._lora else file.dtype(stored)

    def tensor(self, name: str) -> Tensor:
        """One tensor as stored; with LoRA the sum of weight and update, in float32."""
        file, stored = self._find(name)
        tensor = file.tensor(stored)
        if name in self._lora:
            down, up, scale = self._lora[name]
            tensor = tensor.float() + scale * (up.float() @ down.float())
        return tensor

    def find(self, name: str) -> Path | None:
        """A file of the checkpoint such as `tokenizer.json`, also of the base below an adapter; None if absent."""
        return next((folder / name for folder in (self.path, self._base) if (folder / name).is_file()), None)

    def digest(self) -> str:
        """SHA-256 over the names and digests of the configuration, tokenizer and weight files."""
        tower = f"{self.config.get('mm_vision_tower')}/config.json"
        described = (path for name in (*DESCRIPTION_FILES, tower) if (path := self.find(name)))
        files = enumerate([*described, *self.files])
        with DigestMemory() as memory:
            return joint_digest({f"{place} {path.name}": memory.digest(path) for place, path in files})

    def _find(self, name: str) -> tuple[WeightsFile, str]:
        if name not in self._stored:
            raise BadInput(f"{self.path}: tensor {name} is missing")
        return self._stored[name]

    def _find_base(self, adapter: Mapping[str, Any]) -> Path:
        name = str(adapter.get("base_model_name_or_path") or "")
        for folder in (Path(name), self.path / name):
            if name and folder.is_dir():
                return folder
        raise BadInput(f"{self.path}: the adapter was trained on {name!r}, which is not a folder here; give --base DIR")

    def _add(self, weights: WeightsFile, names: Mapping[str, str] | None = None) -> None:
        """Add a file's tensors; `names` maps stored names to the checkpoint's, where they differ."""
        self.files.append(weights.path)
        for stored in weights.names():
            self._stored[names[stored] if names else stored] = (weights, stored)

    def _add_adapter(self, adapter: Mapping[str, Any]) -> None:
        for option in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"):
            if adapter.get(option):
                raise BadInput(f"{self.path / ADAPTER}: {option} is not supported; merge the adapter into its base")
        try:
            rank, alpha = float(adapter["r"]), float(adapter["lora_alpha"])
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{self.path / ADAPTER}: needs the numbers r and lora_alpha") from None
        if not rank > 0:
            raise BadInput(f"{self.path / ADAPTER}: r is {rank:g}, expected a positive rank")
        scale = alpha / (rank**0.5 if adapter.get("use_rslora") else rank)

        weights = open_weights(self.path / "adapter_model.safetensors")
        self.files.append(weights.path)
        pairs: dict[str, dict[str, Tensor]] = {}
        for stored in weights.names():
            name = stored.removeprefix("base_model.model.").replace(".default.", ".").removesuffix(".weight")
            module, _, side = name.rpartition(".lora_")
            if side not in ("A", "B") or f"{module}.weight" not in self:
                raise BadInput(f"{weights.path}: {stored} does not belong to a weight of the base checkpoint")
            pairs.setdefault(f"{module}.weight", {})[side] = weights.tensor(stored)
        for name, pair in pairs.items():
            fits = set(pair) == {"A", "B"} and pair["A"].ndim == pair["B"].ndim == 2
            shape = (pair["B"].shape[0], pair["A"].shape[1]) if fits else None
            if not fits or shape != self.shape(name) or pair["B"].shape[1] != len(pair["A"]):
                raise BadInput(f"{weights.path}: the pair lora_A, lora_B of {name} does not fit that weight")
            self._lora[name] = (pair["A"], pair["B"], scale)

        if (self.path / "non_lora_trainables.bin").is_file():
            trained = TorchFile(self.path / "non_lora_trainables.bin")
            self._add(trained, {stored: stored.removeprefix("base_model.model.") for stored in trained.names()})

    def _add_point_encoder(self, path: Path) -> None:
        if not path.is_file():
            raise BadInput(f"point encoder {path} is missing")
        weights = TorchFile(path, key="state_dict")
        names = {stored: stored.removeprefix("module.").removeprefix("net3d.") for stored in weights.names()}
        self._add(weights, {stored: POINT_ENCODER + name for stored, name in names.items()})
