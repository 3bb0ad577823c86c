"""The traced sparse convolutions in ONNX operators: over slabs for CPUs, over complete tables for TensorRT."""

import numpy as np
import onnx_ir as ir

from ...runtime.host.maps import SLAB_OFFSETS
from .builder import Builder
from .operators import PLANES

__all__ = ["slab_convolution", "table_convolution"]

MIDDLE = PLANES // 2


def slab_convolution(
    builder: Builder,
    hidden: ir.Value,
    kernel: ir.Value,
    bias: ir.Value,
    rows: ir.Value,
    bounds: ir.Value,
    offsets: ir.Value,
    place: ir.Value,
) -> ir.Value:
    """A loop over planes around a loop over slabs, each a Gather and a Gemm; `Slabs` says what the arrays are.

    Written out, slabs would be nine tenths of the encoder's nodes, and of the time that it takes to load.
    """
    assert kernel.shape is not None
    _, inner, outer = kernel.shape.numpy()
    # all convolutions of a level read the same maps
    tables, used = builder.once(rows, lambda: cut_slabs(builder, rows, bounds, offsets))
    nothing = builder.once(kernel.dtype, lambda: no_slabs(builder, kernel))
    widths = builder.constant([[-1, size * inner] for size in SLAB_OFFSETS * PLANES])
    stacked = builder.constant([-1, outer])
    # the sum begins with the bias, and the missing row has to end at zero. In the middle plane that row alone reads
    # what stands behind the slabs, since every voxel has its centre: there it takes the bias away again
    factors = builder.constant([[[-1.0 if plane == MIDDLE else 0.0]] for plane in range(PLANES)], element_type(kernel))

    def add_plane(plane: ir.Value, total: ir.Value) -> ir.Value:
        first = builder.op("Mul", plane, builder.constant(len(SLAB_OFFSETS)))
        missing = builder.op("Mul", bias, builder.op("Gather", factors, plane))

        def write_slab(number: ir.Value, written: ir.Value) -> ir.Value:
            slab = builder.op("Add", first, number)
            gathered = builder.op("Gather", hidden, builder.op("SequenceAt", tables, slab))
            side_by_side = builder.op("Reshape", gathered, builder.op("Gather", widths, slab))
            kernels = builder.op("Gather", kernel, builder.op("SequenceAt", used, slab))
            product = builder.op("MatMul", side_by_side, builder.op("Reshape", kernels, stacked))
            return builder.op("SequenceInsert", written, product)

        slabs = builder.op("SequenceInsert", builder.loop(len(SLAB_OFFSETS), nothing, write_slab), missing)
        places = builder.op("Gather", place, plane)
        return builder.op("Add", total, builder.op("Gather", builder.op("ConcatFromSequence", slabs, axis=0), places))

    return builder.loop(PLANES, bias, add_plane)


def cut_slabs(builder: Builder, rows: ir.Value, bounds: ir.Value, offsets: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Sequences of the tables and of the kernel offsets of all slabs."""
    count, axis = len(SLAB_OFFSETS) * PLANES, builder.constant([0])
    ends = builder.op("Slice", bounds, builder.constant([1]), builder.constant([count + 1]), axis)
    sizes = builder.op("Sub", ends, builder.op("Slice", bounds, builder.constant([0]), builder.constant([count]), axis))
    tables = builder.op("SplitToSequence", rows, sizes, axis=0)
    return tables, builder.op("SplitToSequence", offsets, builder.constant(SLAB_OFFSETS * PLANES), axis=0)


def no_slabs(builder: Builder, kernel: ir.Value) -> ir.Value:
    """An empty sequence of what a kernel computes."""
    assert kernel.dtype is not None
    empty = builder.op("SequenceEmpty", dtype=int(kernel.dtype))
    empty.type = ir.SequenceType(ir.TensorType(kernel.dtype))
    return empty


def table_convolution(
    builder: Builder, hidden: ir.Value, kernel: ir.Value, bias: ir.Value, table: ir.Value
) -> ir.Value:
    """Gather and MatMul for each plane of nine offsets, so that a third of the rows at most is gathered at once."""
    assert kernel.shape is not None
    offsets, inner, outer = kernel.shape.numpy()
    size = offsets // PLANES
    columns = builder.once(table, lambda: builder.split(table, PLANES, 1))
    weights = builder.split(builder.op("Reshape", kernel, builder.constant([offsets * inner, outer])), PLANES, 0)
    total = bias
    for rows, weight in zip(columns, weights, strict=True):
        gathered = builder.op("Reshape", builder.op("Gather", hidden, rows), builder.constant([-1, size * inner]))
        total = builder.op("Add", builder.op("MatMul", gathered, weight), total)
    return builder.op("Concat", total, zero_row(builder, kernel), axis=0)


def zero_row(builder: Builder, kernel: ir.Value) -> ir.Value:
    """What missing neighbours read, and a kernel's result ends with."""
    assert kernel.shape is not None
    return builder.constant(np.zeros((1, kernel.shape.numpy()[2])), element_type(kernel))


def element_type(kernel: ir.Value) -> np.dtype:
    """In which a kernel computes."""
    assert kernel.dtype is not None
    return kernel.dtype.numpy()
