"""The first layer by itself, against the keys and values of a whole model."""

from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle, Bundle
from stllm_edge.runtime.llm.early import EarlyLayer
from stllm_edge.runtime.llm.libllama import Flag
from stllm_edge.runtime.llm.pace import excerpt


@pytest.fixture
def layer(tiny_bundle: Path):
    file = tiny_bundle / Bundle(tiny_bundle).llm("F32").file
    with EarlyLayer(file, threads=1, packed=False, on_gpu=False, flag=Flag()) as opened:
        yield opened


def test_what_follows_a_position_does_not_change_it_and_what_precedes_does(layer) -> None:
    rows = np.random.default_rng(0).standard_normal((700, 256), np.float32)
    whole = layer.outputs(rows, 0, Flag())
    assert whole.shape == rows.shape
    # keys and values are of 16 bits
    assert np.allclose(layer.outputs(rows[:40], 30, Flag()), whole[30:40], atol=5e-3)
    changed = rows.copy()
    changed[5] += 1
    away = np.abs(layer.outputs(changed, 0, Flag()) - whole).max(axis=1)
    assert (away[:5] == 0).all()
    assert (away[5:60] > 0).all()
    # normalised, as the second layer takes it
    assert 0.1 < np.square(whole).mean() < 10


def test_a_model_of_one_layer_has_nothing_to_choose_by(tiny_bundle) -> None:
    file = tiny_bundle / Bundle(tiny_bundle).llm("F32").file
    with excerpt.layer_file(file) as single, pytest.raises(BadBundle, match="has no second layer"):
        EarlyLayer(single, threads=1, packed=False, on_gpu=False, flag=Flag())
