"""A GGUF file read back: numbers as they were written, and what the header says."""

from pathlib import Path

import pytest
import torch
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.checkpoint.tokenizer import Tokenizer
from stllm_edge.export.gguf.reader import GgufFile
from stllm_edge.export.gguf.writer import gguf_names
from stllm_edge.export.model.peers import qwen2_config
from stllm_edge.export.model.streaming import EMBEDDING


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint(tiny_checkpoint)


def read(checkpoint: Checkpoint, bundle: Path, quant: str) -> GgufFile:
    inventory = take_inventory(checkpoint)
    return GgufFile(bundle / f"llm/{quant}.gguf", gguf_names(inventory.used["llm"], inventory.geometry.llm))


@pytest.mark.parametrize(("quant", "error"), [("F32", 0.0), ("Q8_0", 0.01), ("Q4_K_M", 0.1)])
def test_tensors_come_back_under_the_checkpoints_names(
    quant: str, error: float, checkpoint: Checkpoint, tiny_bundle: Path
) -> None:
    file = read(checkpoint, tiny_bundle, quant)
    for name in take_inventory(checkpoint).used["llm"]:
        expected = checkpoint.tensor(name).float()
        assert name in file
        assert torch.dist(file.tensor(name), expected) <= error * expected.norm()
    ids = [7, 0, 7, 1023]
    assert torch.equal(torch.from_numpy(file.rows(EMBEDDING, ids)), file.tensor(EMBEDDING)[ids])


def test_types_are_those_of_each_tensor(checkpoint: Checkpoint, tiny_bundle: Path) -> None:
    file = read(checkpoint, tiny_bundle, "Q4_K_M")
    assert file.kind("model.norm.weight") == "F32"
    assert file.kind(EMBEDDING) == "Q8_0"
    assert file.kind("model.layers.0.mlp.up_proj.weight") == "Q4_K"


@pytest.mark.parametrize("quant", ["F32", "Q4_K_M"])
def test_a_right_header_has_no_faults_and_a_wrong_configuration_is_named(
    quant: str, checkpoint: Checkpoint, tiny_bundle: Path
) -> None:
    file, tokenizer = read(checkpoint, tiny_bundle, quant), Tokenizer.read(checkpoint, 1024)
    config = qwen2_config(checkpoint)
    assert list(file.faults(config, tokenizer)) == []
    config.rms_norm_eps, config.num_key_value_heads = 1e-5, 4
    faults = " ".join(file.faults(config, tokenizer))
    assert "layer_norm_rms_epsilon is 9.99" in faults
    assert "expected 1e-05" in faults
    assert "head_count_kv is 2, expected 4" in faults
