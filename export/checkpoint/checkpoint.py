"""Trained checkpoints in all their layouts: tensors by the authors' names, read one at a time (SPEC section 2)."""

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...runtime.bundle.digests import DigestMemory, joint_digest
from ...runtime.errors import BadInput
from .adapters import ADAPTER_CONFIG, Adapter, Update
from .files import read_json
from .sizes import POINT_ENCODER
from .weights import TorchFile, WeightsFile, open_folder

__all__ = ["Checkpoint"]

DESCRIPTION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    ADAPTER_CONFIG,
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
        self._updates: dict[str, Update] = {}

        adapted = (self.path / ADAPTER_CONFIG).is_file()
        if not adapted and base is not None:
            raise BadInput(f"--base {base}: {path} has no {ADAPTER_CONFIG}, so nothing lies below it; leave --base out")
        self._base = base or self._find_base() if adapted else self.path
        for weights in open_folder(self._base):
            self._add(weights, {name: name for name in weights.names()})
        if adapted:
            self._add_adapter(Adapter.read(self.path, self))
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
        """The stored type; a tensor that an adapter changes counts as float32."""
        file, stored = self._find(name)
        return torch.float32 if name in self._updates else file.dtype(stored)

    def tensor(self, name: str) -> Tensor:
        """One tensor as stored; where an adapter changes it, as `Update.merged` does, in float32."""
        file, stored = self._find(name)
        tensor = file.tensor(stored)
        return self._updates[name].merged(tensor) if name in self._updates else tensor

    def updates(self, names: Iterable[str]) -> dict[str, Update]:
        """What an adapter adds to weights of some names; empty without an adapter."""
        return {name: self._updates[name] for name in names if name in self._updates}

    def without(self, names: Collection[str]) -> "Checkpoint":
        """The same checkpoint, but for what its adapter adds to weights of these names."""
        other = copy(self)
        other._updates = {name: update for name, update in self._updates.items() if name not in names}
        return other

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

    def _find_base(self) -> Path:
        name = str(read_json(self.path / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
        for folder in (Path(name), self.path / name):
            if name and folder.is_dir():
                return folder
        raise BadInput(f"{self.path}: the adapter was trained on {name!r}, which is not a folder here; give --base DIR")

    def _add(self, weights: WeightsFile, names: Mapping[str, str]) -> None:
        """Add a file's tensors; `names` leads from the checkpoint's names to the file's."""
        self.files.append(weights.path)
        self._stored |= {name: (weights, stored) for name, stored in names.items()}

    def _add_adapter(self, adapter: Adapter) -> None:
        self.files += [weights.path for weights in adapter.files]
        self._stored |= adapter.replaced
        self._updates = adapter.updates

    def _add_point_encoder(self, path: Path) -> None:
        if not path.is_file():
            raise BadInput(f"point encoder {path} is missing")
        weights = TorchFile(path, key="state_dict")
        names = {stored: stored.removeprefix("module.").removeprefix("net3d.") for stored in weights.names()}
        self._add(weights, {POINT_ENCODER + name: stored for stored, name in names.items()})
