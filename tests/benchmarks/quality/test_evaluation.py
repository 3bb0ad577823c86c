"""stllm-bench quality on a room, against PyTorch and against a language model of the bundle."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from stllm_edge.benchmarks.checkpoints import TRAINED
from stllm_edge.benchmarks.quality.report import words

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def world(stllm: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of the trained model, and a room with questions."""
    folder = tmp_path_factory.mktemp("quality")
    room = ["--out", folder / "room", "--scenes", 1, "--clips", 1, "--questions", 1, "--val-share", 1, "--quiet"]
    assert stllm("bench", "rea", "synth", *room, "--processes", 1).exit_code == 0
    options = ["--no-verify", "--voxel-size", 0.2, "--frames", 4, "--no-time-instruction", "--quiet"]
    quants = ["--quant", "F32", "--quant", "Q8_0", "--quant", "Q2_K"]
    result = stllm("export", "all", "--ckpt", TRAINED, "--out", folder / "bundle", *options, *quants)
    assert result.exit_code == 0, result.output
    return {"bundle": folder / "bundle", "rea": folder / "room/val.json", "root": folder / "room"}


def measure(stllm: Any, world: dict[str, Path], *options: Any) -> Any:
    given = [word for name, path in world.items() for word in (f"--{name}", path)]
    return stllm("bench", "quality", *given, "--threads", 1, "--quiet", *options)


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_rows_table_and_plot(stllm: Any, world: dict[str, Path], tmp_path: Path) -> None:
    result = measure(stllm, world, "--reference", "F32", "--out", tmp_path, "--kv", "f32", "--no-flash-attention")
    assert result.exit_code == 0, result.output
    assert "| Q2_K |" in result.stdout
    rows = rows_of((tmp_path / "results.jsonl").read_text())
    assert {row["schema"] for row in rows} == {"stllm-edge.quality/1"}
    schema = json.loads((ROOT / "benchmarks/quality/results.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for row in rows:
        validator.validate(row)
        assert not validator.is_valid({**row, "other": 1})
        assert not validator.is_valid({name: value for name, value in row.items() if name != "bundle"})
    assert {row["kind"] for row in rows} == set(schema["$defs"])
    assert rows[0]["kind"] == "run"
    assert rows[0]["null_control"] == 0
    found = {(row["quant"], row["positions"]): row for row in rows if row["kind"] == "quality"}
    assert {place for _, place in found} == {"before", "video", "after", "answer", "all"}
    few = found["Q8_0", "answer"]
    assert few["count"] < 100
    assert few["kl_p99"] is None
    assert 0 < found["Q8_0", "all"]["kl_mean"] < found["Q2_K", "all"]["kl_mean"]
    parts = [found["Q8_0", place] for place in ("before", "video", "after", "answer")]
    assert sum(row["count"] for row in parts) == found["Q8_0", "all"]["count"]
    mean = sum(row["count"] * row["kl_mean"] for row in parts) / found["Q8_0", "all"]["count"]
    assert found["Q8_0", "all"]["kl_mean"] == pytest.approx(mean)
    answers = {row["quant"]: row for row in rows if row["kind"] == "answers"}
    assert answers["Q8_0"]["exact_low"] < answers["Q8_0"]["exact"] <= answers["Q8_0"]["exact_high"]
    assert (tmp_path / "loss.svg").read_text().count("<circle") == 4


def test_pytorch_is_the_exact_model(stllm: Any, world: dict[str, Path]) -> None:
    options = ["--reference", "checkpoint", "--ckpt", TRAINED, "--quant", "F32", "--subset", "first:1", "--json"]
    result = measure(stllm, world, *options, "--kv", "f32", "--no-flash-attention")
    assert result.exit_code == 0, result.output
    (row,) = (row for row in rows_of(result.stdout) if row.get("positions") == "all")
    assert row["kl_max"] < 1e-6
    assert row["top1"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reference", "Q5_K_M"], "does not hold it"),
        (["--reference", "checkpoint"], "go together"),
        (["--reference", "F32", "--quant", "nope"], "does not hold it"),
    ],
)
def test_references_that_are_not_there_are_refused(
    options: list[str], said: str, stllm: Any, world: dict[str, Path]
) -> None:
    result = measure(stllm, world, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def row(quant: str, kl: float, exact: float, half: float) -> list[dict[str, Any]]:
    return [
        {"kind": "quality", "quant": quant, "positions": "answer", "kl_mean": kl},
        {"kind": "answers", "quant": quant, "exact": exact, "exact_low": exact - half, "exact_high": exact + half},
    ]


def test_words_tell_where_answers_and_divergence_disagree() -> None:
    (sentence,) = words([*row("A", 0.1, 0.5, 0.1), *row("B", 0.2, 0.9, 0.1)])
    assert "KL prefers A (1.00e-01 against 2.00e-01), answers prefer B (90.0% against 50.0%)" in sentence
    (sentence,) = words([*row("A", 0.1, 0.5, 0.3), *row("B", 0.2, 0.6, 0.3)])
    assert "within their intervals: A and B" in sentence
    (sentence,) = words([*row("A", 0.1, 0.9, 0.1), *row("B", 0.2, 0.6, 0.1)])
    assert sentence == "KL and answers order the models alike"
