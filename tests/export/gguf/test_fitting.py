"""A language model of a given size: exported, held against fixed types of that size, and run."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from stllm_edge.benchmarks.checkpoints import TRAINED
from stllm_edge.benchmarks.rea.prompts import opened
from stllm_edge.export.gguf.fitting import fitted
from stllm_edge.export.gguf.prompts import Prompt
from stllm_edge.export.gguf.recipe import Recipe
from stllm_edge.export.gguf.sizes import padded
from stllm_edge.export.pipeline import Export
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.console import Progress
from stllm_edge.runtime.llm.model import LanguageModel

TARGET = 1_000_000
OPTIONS = ("--voxel-size", 0.2, "--frames", 4, "--no-time-instruction", "--target-size", "1.0MB")


@pytest.fixture(scope="module")
def made(stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle whose model fills a megabyte, one tensor's type given, and what was said."""
    bundle = tmp_path_factory.mktemp("sized") / "bundle"
    export = ["gguf", "--ckpt", TRAINED, "--out", bundle, *OPTIONS, "--tensor", "blk.1.attn_k=Q6_K", "-v"]
    result = stllm("export", *export)
    assert result.exit_code == 0, result.output
    return bundle, result.stderr


def test_file_fills_its_size_and_diverges_less_than_fixed_types(made: tuple[Path, str]) -> None:
    bundle, said = made
    file = bundle / "llm/1.0MB.gguf"
    assert 0.99 * TARGET <= file.stat().st_size <= TARGET
    found = re.search(r"KL (\S+) on the questions; fixed types: (.*)", said)
    assert found is not None
    fixed = {kind: float(loss) for kind, loss in (entry.split() for entry in found[2].split(", "))}
    assert len(fixed) == 3
    assert float(found[1]) < min(fixed.values()) / 2
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    assert kinds["blk.1.attn_k.weight"] == "Q6_K"
    assert len({kind for name, kind in kinds.items() if "blk" in name and kind != "F32"}) > 2
    described = Bundle(bundle).llm("1.0MB")
    assert described.type in fixed
    assert described.overrides[r"^blk\.1\.attn_k\.weight$"] == "Q6_K"
    # embedding matrix and tensors as they lie in the file
    assert (
        sum(padded(tuple(int(n) for n in t.shape[::-1]), t.tensor_type.name) for t in GGUFReader(file).tensors) < TARGET
    )


def test_file_runs(made: tuple[Path, str]) -> None:
    settings = {"vocabulary": 1024, "context": 32, "kv": "f32", "flash_attention": False, "threads": 1}
    with LanguageModel(made[0] / "llm/1.0MB.gguf", **settings) as model:  # type: ignore[arg-type]
        model.decode_tokens([1, 2, 3])
        assert model.logits().std() > 0


def test_a_dry_run_chooses_and_writes_nothing(stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(recipe: Recipe, *_: Any) -> Recipe:
        assert (recipe.size, recipe.tensors) == (TARGET, (("attn_k", "Q6_K"),))
        return replace(recipe, size=None, tensors=(*recipe.tensors, ("attn_v", "Q8_0")))

    monkeypatch.setattr("stllm_edge.export.pipeline.fitted", chosen)
    export = ["gguf", "--ckpt", TRAINED, "--out", tmp_path / "b", *OPTIONS, "--tensor", "attn_k=Q6_K", "--dry-run"]
    result = stllm("export", *export, "--quant", "Q4_0", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    fixed, plan = json.loads(result.stdout)["plans"]
    assert (fixed["name"], plan["name"]) == ("Q4_0", "1.0MB")
    assert plan["classes"]["attn_v"]["types"] == ["Q8_0"]
    assert not (tmp_path / "b").exists()


def test_the_same_input_gives_the_same_types(tmp_path: Path) -> None:
    checkpoint, inventory = opened(TRAINED, None)
    rows = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)) * 0.1
    prompts = [Prompt(rows, torch.arange(8) < 4)]
    recipe = Recipe("1.0MB", "Q4_K_M", (("blk.0.(attn|ffn)", "Q4_0"),), None, TARGET)
    first, again = (fitted(recipe, checkpoint, inventory, lambda: prompts, Progress(quiet=True)) for _ in range(2))
    assert first == again
    files = []
    for name in ("first", "again"):
        Export.open(TRAINED, tmp_path / name, quiet=True).run((), [replace(first, name="sized")])
        files.append((tmp_path / name / "llm/sized.gguf").read_bytes())
    assert files[0] == files[1]


def test_where_all_fits_without_loss_nothing_is_measured(
    stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stllm_edge.export.pipeline.prompts_of", None)
    options = ["--target-size", "5.0GiB", "--tensor", "attn_q=Q4_K", "--dry-run", "--json"]
    result = stllm("export", "gguf", "--ckpt", TRAINED, "--out", tmp_path / "b", *options)
    assert result.exit_code == 0, result.output
    assert "without loss; there is nothing finer" in result.stderr
    types = {kind: found["types"] for kind, found in json.loads(result.stdout)["plans"][0]["classes"].items()}
    assert types.pop("attn_q") == ["Q4_K"]
    assert types.pop("norms, biases") == ["F32"]
    assert {kind for found in types.values() for kind in found} == {"BF16"}


@pytest.mark.parametrize(
    ("size", "said"),
    [("600kB", "is 0.572MiB, and this model takes at least 0."), ("5 apples", "expected a size such as 5.0GiB")],
)
def test_sizes_that_cannot_be_are_refused(size: str, said: str, stllm: Any, tmp_path: Path) -> None:
    result = stllm("export", "gguf", "--ckpt", TRAINED, "--out", tmp_path / "b", "--target-size", size)
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "b").exists()
