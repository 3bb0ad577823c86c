import numpy as np
import pytest
import torch
from stllm_edge.runtime.host.bf16 import round_bf16


def torch_bf16(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).to(torch.bfloat16).float().numpy()


def same_bits(ours: np.ndarray, reference: np.ndarray) -> bool:
    return ours.dtype == np.float32 and np.array_equal(ours.view(np.uint32), reference.view(np.uint32))


@pytest.mark.parametrize("exponent", [-45, -38, -10, 0, 10, 38])
def test_random_values_round_like_torch(exponent: int) -> None:
    values = np.random.default_rng(0).uniform(-3, 3, 10_000).astype(np.float64) * 10.0**exponent
    values = values.astype(np.float32)
    assert same_bits(round_bf16(values), torch_bf16(values))


def test_all_ties_round_to_even() -> None:
    high = np.arange(0, 0x7F7F, dtype=np.uint32) << np.uint32(16)
    ties = np.concatenate([high | np.uint32(0x8000), high | np.uint32(0x80008000)]).view(np.float32)
    rounded = round_bf16(ties)
    assert same_bits(rounded, torch_bf16(ties))
    assert not ((rounded.view(np.uint32) >> np.uint32(16)) & np.uint32(1)).any()


@pytest.mark.parametrize("nudge", [-1, 1])
def test_next_to_a_tie_rounds_to_the_nearer(nudge: int) -> None:
    values = ((np.arange(1, 0x7F7F, dtype=np.uint32) << np.uint32(16)) + np.uint32(0x8000 + nudge)).view(np.float32)
    assert same_bits(round_bf16(values), torch_bf16(values))


def test_bfloat16_values_stay() -> None:
    values = (np.arange(0, 0x7F80, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    assert same_bits(round_bf16(values), values)


def test_float64_goes_through_float32() -> None:
    # just above a tie in float64, exactly on it in float32
    values = np.array([1 + 2**-8 + 2**-40, 1 + 3 * 2**-8 - 2**-40])
    assert round_bf16(values).tolist() == [1.0, 1.015625]


def test_integers_above_256_lose_their_last_bit() -> None:
    assert round_bf16(np.array([255, 256, 257, 258, 259, 261])).tolist() == [255, 256, 256, 258, 260, 260]


def test_the_largest_values_become_infinite() -> None:
    values = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max], np.float32)
    assert same_bits(round_bf16(values), torch_bf16(values))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_shape_is_kept(shape: tuple[int, ...]) -> None:
    assert round_bf16(np.ones(shape)).shape == shape


def test_strided_views_are_rounded_in_place_of_their_values() -> None:
    values = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    assert same_bits(round_bf16(values[::2, ::-3].T), torch_bf16(np.ascontiguousarray(values[::2, ::-3].T)))


def test_the_argument_is_not_changed() -> None:
    values = np.array([1.001, -2.003], np.float32)
    before = values.copy()
    round_bf16(values)
    assert np.array_equal(values, before)
