"""Weight files: safetensors mapped from disk, and PyTorch files read without unpickling objects."""

import logging
import re
import zipfile
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from ...runtime.errors import BadInput
from .files import read_json, reading

__all__ = ["SafetensorsFile", "TorchFile", "WeightsFile", "open_folder", "open_weights"]

LOG = logging.getLogger(__name__)
SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# the order in which transformers looks for them
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(?:pytorch_)?model-\d+-of-\d+\.(?:safetensors|bin)")
ZERO_STATES = "global_step*"


class WeightsFile(Protocol):
    """Names, shapes, types and tensors of one file; a tensor is read when it is asked for."""

    path: Path

    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> torch.dtype: ...
    def tensor(self, name: str) -> Tensor: ...


class SafetensorsFile:
    """A safetensors file, memory-mapped."""

    def __init__(self, path: Path):
        self.path = path
        with reading(path):
            self._file = safe_open(path, framework="pt")

    def names(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        stored = self._file.get_slice(name).get_dtype()
        if stored not in SAFETENSORS_TYPES:
            raise BadInput(f"{self.path}: {name} has type {stored}; known are {', '.join(SAFETENSORS_TYPES)}")
        return SAFETENSORS_TYPES[stored]

    def tensor(self, name: str) -> Tensor:
        with reading(self.path):
            return self._file.get_tensor(name)


class TorchFile:
    """A `.bin`, `.pt` or `.pth.tar` file, read with `weights_only`, mapped where its format allows."""

    def __init__(self, path: Path, key: str | None = None):
        self.path = path
        with reading(path):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if key is not None and isinstance(content, dict) and key in content:
            content = content[key]
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise BadInput(f"{path}: not a file of named tensors")
        self._tensors: dict[str, Tensor] = content

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


def open_weights(path: Path) -> WeightsFile:
    """Open a weights file by its suffix.

    Raises:
        BadInput: it is missing, truncated, holds pickled objects, or tensors without a value.
    """
    if not path.is_file():
        raise BadInput(f"{path} is missing")
    weights: WeightsFile = SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
    if empty := [name for name in weights.names() if 0 in weights.shape(name)]:
        raise BadInput(
            f"{path}: {len(empty)} tensors are empty, {empty[0]} {list(weights.shape(empty[0]))} among them, as ZeRO-3 "
            "saves what it has not gathered; run the zero_to_fp32.py that lies beside the trainer's states, or save "
            "with stage3_gather_16bit_weights_on_model_save"
        )
    return weights


def open_folder(folder: Path) -> list[WeightsFile]:
    """The weights of a checkpoint: one file before an index of shards, safetensors before PyTorch files.

    That is the order of transformers. Files of weights that are not read are told.

    Raises:
        BadInput: there are none, a shard is missing or unreadable, or index and shards contradict each other.
    """
    chosen = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if chosen is None:
        raise BadInput(f"{folder}: no weights; {why_none(folder)}")
    if chosen.suffix != ".json":
        opened = [open_weights(chosen)]
    else:
        index = read_index(chosen)
        opened = [open_weights(folder / name) for name in sorted(set(index.values()))]
        require_agreement(chosen, index, opened)
    read = {chosen.name, *(weights.path.name for weights in opened)}
    others = [name for path in sorted(folder.iterdir()) if is_weights(name := path.name) and name not in read]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        LOG.warning("%s is read, as transformers does, and %s%s beside it not", chosen, others[0], more)
    return opened


def is_weights(name: str) -> bool:
    return name in WEIGHTS or SHARD.fullmatch(name) is not None


def why_none(folder: Path) -> str:
    """What a folder without weights holds in their place, and what to do."""
    if shards := sorted(path.name for path in folder.iterdir() if SHARD.fullmatch(path.name)):
        index = f"{'model.safetensors' if shards[0].endswith('.safetensors') else 'pytorch_model.bin'}.index.json"
        return (
            f"found {shards[0]} without the {index} that names its shards; copy that file too, "
            f"or rename a shard that is the only one to {index.removesuffix('.index.json')}"
        )
    if states := sorted(folder.glob(ZERO_STATES)):
        return f"found {states[0].name}, DeepSpeed's states; turn them into weights with zero_to_fp32.py"
    return "expected model.safetensors, its shards with an index, or pytorch_model*.bin"


def read_index(path: Path) -> dict[str, str]:
    """From tensors to names of shards; raises BadInput when the index has no such map."""
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise BadInput(f"{path}: has no weight_map from tensors to files")
    if outside := [name for name in shards.values() if Path(name).name != name]:
        raise BadInput(f"{path}: names {outside[0]}; expected a file beside the index")
    return shards


def require_agreement(path: Path, index: dict[str, str], opened: list[WeightsFile]) -> None:
    """Raise BadInput unless each tensor lies in one shard, the one that the index names."""
    holders: dict[str, str] = {}
    for weights in opened:
        for name in weights.names():
            if name in holders:
                raise BadInput(
                    f"{path}: {name} lies in both {holders[name]} and {weights.path.name}, so that these are shards of "
                    "two checkpoints; copy the checkpoint again into an empty folder"
                )
            holders[name] = weights.path.name
    if wrong := [name for name, shard in index.items() if holders.get(name) != shard]:
        raise BadInput(
            f"{path}: says that {index[wrong[0]]} holds {wrong[0]}, which it does not ({len(wrong)} such tensors); "
            "index and shards are of two checkpoints; copy both again"
        )
    if unnamed := sorted(set(holders) - set(index)):
        LOG.warning(
            "%s does not name %s (%d such tensors) of its shards; read all the same, as transformers 5 does",
            path,
            unnamed[0],
            len(unnamed),
        )
