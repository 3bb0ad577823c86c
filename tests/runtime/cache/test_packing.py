"""Results of stages as bytes and back."""

import numpy as np
import pytest
from stllm_edge.runtime.cache.packing import nbytes, pack, unpack
from stllm_edge.runtime.host.maps import KernelMaps
from stllm_edge.runtime.host.rays import Rays
from stllm_edge.runtime.host.voxels import voxelise
from stllm_edge.runtime.stages import EncodedRays


def cloud() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (80, 3)).astype(np.float32)


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, np.ndarray):
        return isinstance(theirs, np.ndarray) and ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    if isinstance(ours, tuple):
        return type(ours) is type(theirs) and all(map(same, ours, theirs))
    return vars(ours).keys() == vars(theirs).keys() and all(map(same, vars(ours).values(), vars(theirs).values()))


def test_every_kind_of_result_comes_back_to_the_bit() -> None:
    voxels = voxelise(cloud(), cloud() * 100 + 120, 0.2)
    for value in (voxels.feats, np.zeros((0, 3), np.int64), voxels.coords[::2]):
        assert same(value, unpack(pack(value)))
    rays = Rays(np.eye(4, dtype=np.float32), cloud(), np.zeros((2, 1, 1, 3), np.float32))
    for value in (rays, EncodedRays(cloud(), cloud())):
        assert all(map(same, vars_of(value), vars_of(unpack(pack(value)))))
    found = unpack(pack(voxels))
    assert (found.size, type(found.minimum), found.coords.dtype) == (0.2, np.ndarray, np.int32)
    for kind in ("slabs", "tables"):
        maps = KernelMaps.build(voxels.coords, kind)
        again = unpack(pack(maps))
        assert again.map_format == kind
        assert all(same(maps.inputs()[name], array) for name, array in again.inputs().items())
        assert nbytes(again) == nbytes(maps) > 1000


def vars_of(value: object) -> list[object]:
    return list(value) if isinstance(value, tuple) else list(vars(value).values())


@pytest.mark.parametrize("place", [0, 33, 45, -1])
def test_a_changed_byte_is_found(place: int) -> None:
    data = bytearray(pack(cloud()))
    data[place] ^= 1
    with pytest.raises(ValueError, match="its digest differs"):
        unpack(bytes(data))
