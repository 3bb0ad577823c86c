"""Importance matrices in llama.cpp's format: sums of squares of what enters each product, by column."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput

__all__ = ["Matrix"]

TYPE = "imatrix"
SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, CHUNKS, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"


@dataclass(frozen=True)
class Matrix:
    """An importance matrix.

    Attributes:
        sums: by the tensor's name in GGUF, [matrices, columns] float32 sums of squares.
        counts: how many rows were summed, [matrices] float32.
        datasets: what they came from.
        chunks: how many prompts or pieces of text.
        chunk_size: positions of each, of the longest where they differ.
    """

    sums: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int

    @classmethod
    def read(cls, path: Path) -> "Matrix":
        """Read a GGUF file as `stllm-calib imatrix` and llama.cpp's `llama-imatrix` write it.

        Raises:
            BadInput: it is something else, lacks a part, or holds values that are no sums of squares.
        """
        if not path.is_file():
            raise BadInput(f"--imatrix {path}: no such file; make one with stllm-calib imatrix")
        try:
            reader = GGUFReader(path)
            stated = {key: field.contents() for key, field in reader.fields.items()}
        except Exception as error:
            raise BadInput(f"--imatrix {path}: is no GGUF file that can be read ({error})") from None
        if stated.get("general.type") != TYPE:
            raise BadInput(f"--imatrix {path}: general.type is {stated.get('general.type')!r}, expected {TYPE!r}")
        if absent := [key for key in (DATASETS, CHUNKS, CHUNK_SIZE) if key not in stated]:
            raise BadInput(f"--imatrix {path}: lacks {absent[0]}; make it again")
        tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
        names = sorted(name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS))
        if not names:
            raise BadInput(f"--imatrix {path}: holds no sums; make it again")
        if alone := [name for name in names if name + COUNTS not in tensors]:
            raise BadInput(f"--imatrix {path}: lacks {alone[0]}{COUNTS}; make it again")
        sums = {name: np.atleast_2d(tensors[name + SUMS]) for name in names}
        counts = {name: tensors[name + COUNTS].reshape(-1) for name in names}
        for name in names:
            # comparisons with NaN are false
            usable = bool((sums[name] >= 0).all() and (counts[name] >= 0).all())
            if not usable or not np.isfinite(sums[name]).all() or len(counts[name]) != len(sums[name]):
                raise BadInput(f"--imatrix {path}: {name} has values that are no sums of squares; make it again")
        return cls(sums, counts, tuple(stated[DATASETS]), int(stated[CHUNKS]), int(stated[CHUNK_SIZE]))

    def plus(self, other: "Matrix", path: Path) -> "Matrix":
        """Both together, each position as often as it was counted.

        Args:
            other: to be added.
            path: of its file, for messages.

        Raises:
            BadInput: it is a matrix of another model.
        """
        shapes, others = ({name: sums.shape for name, sums in matrix.sums.items()} for matrix in (self, other))
        if shapes != others:
            name = next(name for name in [*shapes, *others] if shapes.get(name) != others.get(name))
            raise BadInput(f"{path}: is of another model: {name} is {others.get(name)}, expected {shapes.get(name)}")
        sums = {name: values + other.sums[name] for name, values in self.sums.items()}
        counts = {name: values + other.counts[name] for name, values in self.counts.items()}
        datasets = tuple(dict.fromkeys([*self.datasets, *other.datasets]))
        return Matrix(sums, counts, datasets, self.chunks + other.chunks, max(self.chunk_size, other.chunk_size))

    def write(self, path: Path) -> None:
        """Write it as llama.cpp does: tensors sorted by name, complete or not at all."""
        try:
            with atomic_path(path) as temporary:
                writer = GGUFWriter(temporary, arch="")
                # llama.cpp's has no architecture
                writer.kv_data[0].pop("general.architecture", None)
                writer.add_type(TYPE)
                writer.add_array(DATASETS, list(self.datasets))
                writer.add_uint32(CHUNKS, self.chunks)
                writer.add_uint32(CHUNK_SIZE, self.chunk_size)
                for name in sorted(self.sums):
                    writer.add_tensor(name + SUMS, np.ascontiguousarray(self.sums[name], np.float32))
                    writer.add_tensor(name + COUNTS, np.ascontiguousarray(self.counts[name][:, None], np.float32))
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
                writer.close()
        except OSError as error:
            raise BadInput(f"--out {path}: cannot be written ({error.strerror})") from None

    def weights(self, columns: Mapping[str, int], path: Path) -> dict[str, np.ndarray]:
        """Mean squares [columns] float32 by tensor, 1 where nothing was counted, of the tensors that a model has.

        Args:
            columns: of the model's matrices, by name.
            path: of the file, for messages.

        Raises:
            BadInput: it is a matrix of another model.
        """
        for name, sums in self.sums.items():
            if columns.get(name) != sums.shape[1]:
                here = f"{columns[name]} columns" if name in columns else "not there"
                raise BadInput(
                    f"--imatrix {path}: is of another model: {name} has {sums.shape[1]} columns, here it is {here}"
                )
        wanted = [name for name in columns if name.startswith("blk.")]
        if absent := [name for name in wanted if name not in self.sums]:
            raise BadInput(f"--imatrix {path}: is of another model: lacks {absent[0]} of {len(wanted)} matrices")
        return {name: self._mean(name) for name in self.sums}

    def _mean(self, name: str) -> np.ndarray:
        sums, counts = self.sums[name], self.counts[name][:, None]
        return np.ascontiguousarray(np.where(counts > 0, sums / np.maximum(counts, 1), 1)[0], np.float32)
