"""Digests over values and arrays."""

import numpy as np
from stllm_edge.runtime.cache.keys import Arrays, digest


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
        digest(b"ab", b"c"),
        digest(b"a", b"bc"),
    ]
    assert len(set(keys)) == len(keys)
    assert digest(np.asfortranarray(array.reshape(2, 3))) == digest(array.reshape(2, 3))


def test_an_array_is_hashed_once() -> None:
    array, known = np.zeros(4), Arrays()
    before = known.digest(array)
    assert before == digest(array)
    array[0] = 1
    assert known.digest(array) == before != Arrays().digest(array)
