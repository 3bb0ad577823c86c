"""Divergences under types against their definition, and rounding against what libllama writes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from stllm_edge.benchmarks.checkpoints import TRAINED
from stllm_edge.export.checkpoint.checkpoint import Checkpoint
from stllm_edge.export.checkpoint.geometry import take_inventory
from stllm_edge.export.comparison import divergence
from stllm_edge.export.gguf.prompts import Prompt
from stllm_edge.export.gguf.sensitivity import Divergence, Sensitivity
from stllm_edge.export.gguf.types import EMBEDDING, dequantise_fast, rounded
from stllm_edge.export.gguf.writer import gguf_names
from stllm_edge.export.model.peers import qwen2_config
from stllm_edge.export.model.streaming import Stored, StreamedQwen2
from stllm_edge.runtime.console import Progress
from torch import Tensor

Q4 = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")


def test_divergence_comes_in_blocks() -> None:
    ours, theirs = (np.random.default_rng(seed).normal(0, 30, (5, 40)) for seed in (0, 1))
    total = Divergence(5)
    for block in (slice(0, 7), slice(7, 8), slice(8, 40)):
        total.add(ours[:, block], theirs[:, block])
    expected = np.mean([divergence(a, b) for a, b in zip(ours, theirs, strict=True)])
    np.testing.assert_allclose(total.mean(), expected, rtol=1e-12)


class Rounded(Stored):
    """The checkpoint with some weights rounded."""

    types: dict[str, str]

    def tensor(self, name: str) -> Tensor:
        found = super().tensor(name)
        return torch.from_numpy(rounded(found.float().numpy(), self.types[name])) if name in self.types else found


def test_losses_are_those_of_a_model_with_rounded_weights() -> None:
    checkpoint = Checkpoint(TRAINED)
    inventory = take_inventory(checkpoint)
    names = gguf_names(inventory.used["llm"], inventory.geometry.llm)
    text = checkpoint.tensor(names[EMBEDDING])[torch.arange(40)].float()
    seen = torch.randn(20, text.shape[1], generator=torch.Generator().manual_seed(0)) * 0.1
    prompt = Prompt.of([(text.numpy(), True), (seen.numpy(), False)])
    measured = Sensitivity(checkpoint, names, [prompt], {}, Progress(quiet=True))
    some, words = dict.fromkeys(Q4, "Q4_K"), {EMBEDDING: "Q8_0"}
    exact, few, embedded = measured.divergences([{}, some, words])
    assert exact == 0
    weights = Rounded(checkpoint)
    object.__setattr__(weights, "types", {names[name]: kind for name, kind in some.items()})
    config, quiet = qwen2_config(checkpoint), Progress(quiet=True)
    (theirs,), (ours,) = (
        StreamedQwen2(config, held, quiet).logits([prompt.embeddings]) for held in (Stored(checkpoint), weights)
    )
    expected = np.mean([divergence(a, b) for a, b in zip(ours.numpy(), theirs.numpy(), strict=True)])
    np.testing.assert_allclose(few, expected, rtol=1e-3)
    # rows of text and the output matrix, which is the same here
    assert 0 < embedded < few
    errors = measured.errors({Q4[0]: ["Q2_K", "Q4_K", "Q8_0", "F32"]})[Q4[0]]
    assert errors["Q2_K"] > errors["Q4_K"] > errors["Q8_0"] > errors["F32"] == 0


def test_rounding_is_what_libllama_writes(stllm: Any, tmp_path: Path) -> None:
    kinds = {"attn_q": "IQ4_XS", "attn_k": "Q3_K", "ffn_up": "Q5_1"}
    options = [word for pattern, kind in kinds.items() for word in ("--tensor", f"{pattern}={kind}")]
    export = ["gguf", "--ckpt", TRAINED, "--out", tmp_path / "b", "--quant", "Q4_K_M", *options, "--quiet"]
    assert stllm("export", *export).exit_code == 0
    checkpoint = Checkpoint(TRAINED)
    inventory = take_inventory(checkpoint)
    names = gguf_names(inventory.used["llm"], inventory.geometry.llm)
    for tensor in GGUFReader(tmp_path / "b/llm/Q4_K_M.gguf").tensors:
        if len(tensor.shape) > 1:
            ours = rounded(checkpoint.tensor(names[tensor.name]).float().numpy(), tensor.tensor_type.name)
            assert (ours == dequantise_fast(np.asarray(tensor.data), tensor.tensor_type)).all(), tensor.name
