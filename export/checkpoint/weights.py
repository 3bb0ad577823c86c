"""Weight files: safetensors mapped from disk, and PyTorch files read without unpickling objects."""

import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...runtime.errors import BadInput

__all__ = ["SafetensorsFile", "TorchFile", "WeightsFile", "open_weights", "read_json", "weight_files"]

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
        BadInput: it is missing, truncated or holds pickled objects.
    """
    if not path.is_file():
        raise BadInput(f"{path} is missing")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: one or sharded, safetensors before PyTorch files.

    Raises:
        BadInput: there are none, or the index is broken.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
                raise BadInput(f"{index}: has no weight_map from tensors to files")
            return [folder / name for name in sorted(set(shards.values()))]
        if (folder / f"{stem}{suffix}").is_file():
            return [folder / f"{stem}{suffix}"]
    raise BadInput(f"{folder}: no weights; expected model.safetensors, its shards with an index, or pytorch_model*.bin")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises BadInput when the file is missing or is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what readers raise on a bad file into BadInput."""
    try:
        yield
    except pickle.UnpicklingError:
        raise BadInput(f"{path}: holds pickled objects, which are never loaded; save plain tensors") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"{path}: truncated or damaged ({reason})") from None
