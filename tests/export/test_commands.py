"""Every error that a user of `stllm-export` can cause: one line, exit status 2, nothing written."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

COMMANDS = ("onnx", "gguf", "all")


def refuse(stllm: Any, command: str, checkpoint: Path, out: Path, *options: object) -> str:
    """Run a command that must fail; its only line."""
    result = stllm("export", command, "--ckpt", checkpoint, "--out", out, "--quiet", *options)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert not out.exists()
    return line


class Object:
    """Something that only unpickling brings back."""


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1_000_000)


def pickle_objects(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Object()}, folder / "pytorch_model.bin")


def lose_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def edit(file: str, text: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        if text is not None:
            (folder / file).write_text(text)

    return change


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "model.safetensors: truncated"),
    "pickled object": (pickle_objects, "pytorch_model.bin: holds pickled objects"),
    "lost shard": (lose_shard, "model-00001-of-00002.safetensors is missing"),
    "no weights": (edit("model.safetensors", None), "no weights"),
    "no config": (edit("config.json", None), "config.json is missing"),
    "broken config": (edit("config.json", '{"hidden_size": '), "config.json: not JSON"),
    "no tower config": (edit("vision_tower/config.json", None), "mm_vision_tower"),
    "broken tower config": (edit("vision_tower/config.json", "[]"), "vision_tower/config.json"),
    "broken generation config": (edit("generation_config.json", "{"), "generation_config.json: not JSON"),
}


@pytest.mark.parametrize(("problem", "command"), list(zip(FILES, itertools.cycle(COMMANDS), strict=False)))
def test_checkpoint_with_a_bad_file_is_refused(
    problem: str, command: str, stllm: Any, alter: Callable[..., Path], tmp_path: Path
) -> None:
    damage, named = FILES[problem]
    checkpoint = alter()
    damage(checkpoint)
    assert named in refuse(stllm, command, checkpoint, tmp_path / "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_incomplete_checkpoint_is_refused(command: str, stllm: Any, alter: Callable[..., Path], tmp_path: Path) -> None:
    missing = alter(lambda tensors: [tensors.pop(name) for name in ("model.norm.weight", "model.image_newline")])
    line = refuse(stllm, command, missing, tmp_path / "out")
    assert "2 missing tensors: model.image_newline, model.norm.weight" in line

    unknown = alter(lambda tensors: tensors.update({"detector.a": torch.ones(1), "detector.b": torch.ones(1)}))
    assert "2 unknown tensors: detector.a, detector.b" in refuse(stllm, command, unknown, tmp_path / "out")

    other = alter(config={"vocab_size": 1025})
    assert "config.json disagrees with the weights" in refuse(stllm, command, other, tmp_path / "out")


@pytest.mark.parametrize("command", ["onnx", "gguf"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--frames", 0], "--frames 0"),
        (["--voxel-size", 0], "--voxel-size 0"),
        (["--voxel-size", "nan"], "--voxel-size nan"),
        (["--voxel-size", "-0.1"], "--voxel-size -0.1"),
        (["--point-encoder", "absent.pth.tar"], "absent.pth.tar is missing"),
    ],
)
def test_meaningless_option_is_refused(
    options: list[object], named: str, command: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert named in refuse(stllm, command, tiny_checkpoint, tmp_path / "out", *options)


@pytest.mark.parametrize("command", ["onnx", "all"])
def test_unknown_precision_is_refused_with_the_known_ones(
    command: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    line = refuse(stllm, command, tiny_checkpoint, tmp_path / "out", "--precision", "int4")
    assert "int4" in line
    assert "fp32, fp16" in line


def test_unknown_option_is_refused(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = stllm("export", "all", "--ckpt", tiny_checkpoint, "--out", tmp_path / "out", "--quantisation", "F32")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_checkpoint_that_is_not_there_is_refused(command: str, stllm: Any, tmp_path: Path) -> None:
    assert "not a directory" in refuse(stllm, command, tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_a_folder_is_refused(
    command: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a bundle")
    for out in (tmp_path / "file", tmp_path / "file/bundle"):
        result = stllm("export", command, "--ckpt", tiny_checkpoint, "--out", out, "--quiet")
        assert result.exit_code == 2, repr(result.exception)
        assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "not a bundle"


def test_tokenizer_that_does_not_fit_is_refused(stllm: Any, alter: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = alter()
    (checkpoint / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}, "pre_tokenizer": null}')
    assert "tokenizer" in refuse(stllm, "gguf", checkpoint, tmp_path / "out")


def test_manifest_of_another_schema_is_refused(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": 99}')
    result = stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", tmp_path, "--quiet")
    assert result.exit_code == 2
    assert "schema 99" in result.stderr
    assert (tmp_path / "manifest.json").read_text() == '{"schema": 99}'


@pytest.mark.parametrize("problem", ["truncated", "broken config"])
@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_reading_commands_refuse_bad_files_too(
    command: str, problem: str, stllm: Any, alter: Callable[..., Path], tiny_bundle: Path
) -> None:
    damage, named = FILES[problem]
    checkpoint = alter()
    damage(checkpoint)
    options = ["--bundle", tiny_bundle] if command == "verify" else []
    result = stllm("export", command, "--ckpt", checkpoint, "--quiet", *options)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert named in line


@pytest.mark.parametrize("damaged", ["onnx/points.data", "llm/F32.gguf"])
def test_verifying_a_bundle_without_one_of_its_files_is_refused(
    damaged: str, stllm: Any, tiny_checkpoint: Path, bundle_copy: Path
) -> None:
    (bundle_copy / damaged).unlink()
    options = ["--precision", "fp32", "--quant", "F32", "--quiet"]
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *options)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"{damaged} is missing; export it again with --force" in line


def test_verifying_what_is_no_bundle_is_refused(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", tmp_path / "absent", "--quiet")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "no manifest.json" in line
    assert not (tmp_path / "absent").exists()
