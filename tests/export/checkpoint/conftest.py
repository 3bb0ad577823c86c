"""A checkpoint of four tensors, small enough to alter and to damage; adapters over it; and cases from the field."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from stllm_edge.benchmarks.checkpoints import TINY, TRAINED, write_checkpoint
from stllm_edge.runtime.llm.vocabulary import Vocabulary
from tokenizers import Tokenizer as Reference
from torch import Tensor

Tensors = dict[str, Tensor]
QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
LATENTS = "latent_query.weight"
POINTS = "pcd_encoder.net3d.final.kernel"


@pytest.fixture
def tensors() -> Tensors:
    """A few tensors of several types; whole numbers, so that sums of products are exact."""
    generator = torch.Generator().manual_seed(1)
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        QUERY: ((6, 4), torch.bfloat16),
        DOWN: ((4, 8), torch.float16),
        LATENTS: ((3, 5), torch.bfloat16),
        POINTS: ((5, 7), torch.float32),
    }
    return {
        name: torch.randint(-50, 50, shape, generator=generator).to(dtype) for name, (shape, dtype) in shapes.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder without weights."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text('{"hidden_size": 4}')
    return path


@pytest.fixture
def saved(folder: Path, tensors: Tensors) -> Path:
    save_file(tensors, folder / "model.safetensors")
    return folder


def make_lora(name: str, shape: tuple[int, int], rank: int = 4, infix: str = "") -> Tensors:
    """The pair of an update, whole numbers."""
    generator = torch.Generator().manual_seed(rank)
    stem = f"base_model.model.{name.removesuffix('.weight')}"
    return {
        f"{stem}.lora_A{infix}.weight": torch.randint(-8, 8, (rank, shape[1]), generator=generator).bfloat16(),
        f"{stem}.lora_B{infix}.weight": torch.randint(-8, 8, (shape[0], rank), generator=generator).bfloat16(),
    }


@pytest.fixture(scope="session")
def lora() -> Callable[..., Tensors]:
    """Function that draws a pair: name, shape, rank, infix."""
    return make_lora


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """An adapter folder over the saved checkpoint; rank 4, alpha 8 unless told otherwise."""

    def make(
        pairs: Tensors | None = None,
        trained: Tensors | None = None,
        *,
        base: str | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        name = str(saved) if base is None else base
        content = {"peft_type": "LORA", "base_model_name_or_path": name, "r": 4, "lora_alpha": 8} | config
        (folder / "adapter_config.json").write_text(json.dumps(content))
        save_file(pairs or make_lora(QUERY, (6, 4)), folder / "adapter_model.safetensors")
        if trained is not None:
            torch.save(trained, folder / "non_lora_trainables.bin")
        return folder

    return make


@pytest.fixture
def field_case(tmp_path: Path) -> Callable[[str], Path]:
    """Folder with the small trained checkpoint and, in place of its own, a case's files; skips without cases."""

    def make(name: str) -> Path:
        case = Path(__file__).resolve().parents[4] / "shared/cases" / name
        if not case.is_dir():
            pytest.skip(f"needs cases that lie beside this repository: {case} is absent")
        shutil.copytree(TRAINED, tmp_path / "checkpoint")
        shutil.copytree(case, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return tmp_path

    return make


class Pair:
    """A checkpoint's tokenizer in both implementations."""

    def __init__(self, checkpoint: Path, gguf: Path):
        self.vocabulary = Vocabulary(gguf)
        self.reference = Reference.from_file(str(checkpoint / "tokenizer.json"))

    def same(self, text: str, special: bool = True) -> bool:
        self.reference.encode_special_tokens = not special
        ids = self.reference.encode(text, add_special_tokens=False).ids
        self.reference.encode_special_tokens = False
        return self.vocabulary.tokenize(text, special) == ids


@pytest.fixture(scope="session")
def pair_of() -> Any:
    """A checkpoint's tokenizer in both implementations, from its folder and a GGUF file."""
    return Pair


@pytest.fixture(scope="session")
def qwen2_checkpoint(qwen2_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with as many rows as a 7B checkpoint has, more than the tokenizer has tokens."""
    llm = replace(TINY.llm, width=32, heads=2, kv_heads=1, ffn=32, layers=1, vocabulary=152_064, tied=True)
    aligner = replace(TINY.aligner, layers=1, cross_layers=(0,), ffn=64)
    folder = write_checkpoint(tmp_path_factory.mktemp("qwen2") / "checkpoint", replace(TINY, llm=llm, aligner=aligner))
    for file in qwen2_tokenizer.glob("*.*"):
        shutil.copyfile(file, folder / file.name)
    (folder / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    return folder


@pytest.fixture(scope="session")
def qwen2(qwen2_checkpoint: Path, stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    bundle = tmp_path_factory.mktemp("qwen2") / "bundle"
    result = stllm("export", "gguf", "--ckpt", qwen2_checkpoint, "--out", bundle, "--quant", "BF16")
    assert result.exit_code == 0, result.output
    pair = Pair(qwen2_checkpoint, bundle / "llm" / "BF16.gguf")
    yield pair
    pair.vocabulary.close()
