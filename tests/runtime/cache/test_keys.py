"""Digests over values and arrays."""

import numpy as np
from stllm_edge.runtime.cache.keys import digest


def test_every_part_counts_and_so_does_where_one_ends() -> None:
    array = np.arange(6, dtype=np.float32)
    keys = [
        digest(array),
        digest(array.reshape(2, 3)),
        digest(array.astype(np.int32)),
        digest(array, 1),
        digest(array, "1"),
        digest("ab", "c"),
        digest("a", "bc"),
        digest(None),
        digest([1, 2]),
        digest(1, 2),
    ]
    assert len(set(keys)) == len(keys)
    assert digest(np.asfortranarray(array.reshape(2, 3))) == digest(array.reshape(2, 3))
