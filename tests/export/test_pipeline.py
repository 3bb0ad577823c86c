"""A bundle grows part by part, and is never left half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stllm_edge.export.gguf.types import QUANTS
from stllm_edge.export.pipeline import Export
from stllm_edge.runtime import BadBundle, BadInput, Options, Session, load_clip, load_scene
from stllm_edge.runtime.bundle import digests
from stllm_edge.runtime.bundle.manifest import Bundle, Defaults
from stllm_edge.runtime.bundle.writer import BundleWriter


def content(folder: Path) -> dict[str, bytes]:
    """All files of a bundle with what they hold, except the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def gguf(stllm: Any, checkpoint: Path, out: Path, *options: object) -> Any:
    return stllm("export", "gguf", "--ckpt", checkpoint, "--out", out, "--quiet", *options)


@pytest.fixture
def bundle(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A bundle with one language model."""
    result = gguf(stllm, tiny_checkpoint, tmp_path / "bundle", "--quant", "BF16")
    assert result.exit_code == 0, result.output
    return tmp_path / "bundle"


def is_sound(folder: Path) -> bool:
    """Whether every file is there as described, and no other."""
    bundle = Bundle(folder)
    bundle.check(list(bundle.manifest["files"]), fresh=True)
    return set(content(folder)) == {"manifest.json", *bundle.manifest["files"]}


def test_several_precisions_and_types_share_a_bundle(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    assert bundle.precisions == ["fp32", "fp16"]
    assert bundle.quants == ["F32", "Q8_0", "Q4_K_M"]
    assert is_sound(tiny_bundle)
    assert {path.name for path in tiny_bundle.iterdir()} <= {"manifest.json", "onnx", "llm", ".lock"}


def test_checkpoint_in_a_renamed_folder_is_the_same(
    stllm: Any, bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "another name"
    renamed.symlink_to(shutil.copytree(tiny_checkpoint, tmp_path / "copied"))
    result = gguf(stllm, renamed, bundle, "--quant", "F32")
    assert result.exit_code == 0, result.output
    assert Bundle(bundle).quants == ["BF16", "F32"]
    assert Bundle(bundle).manifest["source"]["checkpoint"] == tiny_checkpoint.name


def test_manifest_states_source_sizes_options_and_tools(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["source"]["checkpoint"] == tiny_checkpoint.name
    assert len(manifest["source"]["sha256"]) == 64
    assert manifest["defaults"] == {"voxel_size": 0.06, "frames": 32, "time_instruction": True}
    assert manifest["stop_ids"] == [1002, 1000]
    assert {"python", "torch", "onnx", "gguf", "llama-cpp-python"} <= set(manifest["tools"])
    for name, entry in manifest["files"].items():
        assert (tiny_bundle / name).stat().st_size == entry["bytes"]


def test_options_are_recorded(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ["--voxel-size", 0.1, "--frames", 7, "--no-time-instruction", "--quant", "BF16"]
    assert gguf(stllm, tiny_checkpoint, tmp_path / "b", *options).exit_code == 0
    assert Bundle(tmp_path / "b").manifest["defaults"] == {"voxel_size": 0.1, "frames": 7, "time_instruction": False}


def test_an_export_takes_typed_arguments(tiny_checkpoint: Path, tmp_path: Path) -> None:
    defaults = Defaults(voxel_size=0.1, frames=7)
    Export.open(tiny_checkpoint, tmp_path / "b", defaults=defaults, quiet=True).run(quants=["BF16"])
    assert is_sound(tmp_path / "b")
    assert Bundle(tmp_path / "b").defaults == defaults
    for frames in (0, 10**6):
        with pytest.raises(BadInput, match=f"--frames {frames}: expected positive numbers, at most 65536 frames"):
            Export.open(tiny_checkpoint, tmp_path / "b", defaults=Defaults(frames=frames))


def test_second_command_adds_its_part(stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    result = gguf(stllm, tiny_checkpoint, bundle, "--quant", "Q8_0", "--quant", "Q4_K_M")
    assert result.exit_code == 0, result.output
    assert Bundle(bundle).quants == ["BF16", "Q8_0", "Q4_K_M"]
    assert is_sound(bundle)
    assert content(bundle)["llm/BF16.gguf"] == before["llm/BF16.gguf"]


def test_what_was_exported_is_opened_without_being_read_again(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Session(bundle_copy).close()
    assert gguf(stllm, tiny_checkpoint, bundle_copy, "--quant", "Q5_0").exit_code == 0
    monkeypatch.setattr(digests, "sha256", lambda path: pytest.fail(f"{path} is read"))
    with Session(bundle_copy, Options(quant="Q5_0")) as session:
        assert "llm/Q5_0.gguf" in session.setup.files
    (bundle_copy / "llm/Q5_0.gguf").touch()
    with pytest.raises(pytest.fail.Exception, match=r"Q5_0\.gguf is read"):
        Session(bundle_copy, Options(quant="Q5_0"))


def test_repeated_name_is_written_once(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert gguf(stllm, tiny_checkpoint, tmp_path / "b", "--quant", "BF16", "--quant", "BF16").exit_code == 0
    assert is_sound(tmp_path / "b")


@pytest.mark.parametrize("quants", [["BF16"], ["Q8_0", "BF16"]])
def test_same_part_is_refused(quants: list[str], stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    result = gguf(stllm, tiny_checkpoint, bundle, *(word for quant in quants for word in ("--quant", quant)))
    assert result.exit_code == 2
    assert "BF16" in result.stderr
    assert "--force" in result.stderr
    assert content(bundle) == before


def test_same_encoders_are_refused(stllm: Any, tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = content(bundle_copy)
    result = stllm("export", "onnx", "--ckpt", tiny_checkpoint, "--out", bundle_copy, "--precision", "fp16", "--quiet")
    assert result.exit_code == 2
    assert "fp16" in result.stderr
    assert "--force" in result.stderr
    assert content(bundle_copy) == before


def test_force_replaces_a_damaged_part(stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    (bundle / "llm/BF16.gguf").write_bytes(b"damaged")
    result = gguf(stllm, tiny_checkpoint, bundle, "--quant", "BF16", "--force")
    assert result.exit_code == 0, result.output
    assert is_sound(bundle)
    assert content(bundle)["llm/BF16.gguf"] == before["llm/BF16.gguf"]


def replace_by_others(bundle: Path) -> None:
    """Replace the F32 language model and the fp32 encoders by files of another content that mean the same."""
    held = Bundle(bundle)
    parts = {("llm", "F32"): ["llm/F32.gguf"], ("encoders", "fp32"): []}
    for graphs in held.manifest["encoders"]["fp32"].values():
        parts["encoders", "fp32"] += [graph[key] for graph in graphs.values() for key in ("file", "weights")]
    with BundleWriter.open(bundle, force=True) as writer:
        for (kind, name), files in parts.items():
            for file in files:
                staged = writer.staging / file
                staged.parent.mkdir(exist_ok=True)
                # the protobuf of a graph has its producer's name twice then, and the last one counts
                extra = b"\x12\x05other" if staged.suffix == ".onnx" else bytes(32)
                staged.write_bytes((bundle / file).read_bytes() + extra)
            writer.add(kind, name, held.manifest[kind][name], files)


def test_what_is_open_keeps_working_when_its_files_are_replaced(bundle_copy: Path, sample: tuple[Path, Path]) -> None:
    scene, clip = load_scene(sample[0]), load_clip(sample[1])
    scene = replace(scene, points=scene.points[::40], colours=scene.colours[::40])
    options = Options(precision="fp32", quant="F32", threads=1, resident=True)

    def answer(session: Session) -> list[int]:
        with session.ask(scene, clip, "Where is the table?", frames=2, max_new_tokens=4) as answer:
            list(answer)
            return list(answer.token_ids)

    with Session(bundle_copy, options) as old, Session(bundle_copy, replace(options, resident=False)) as unloaded:
        expected = answer(old)
        replace_by_others(bundle_copy)
        assert is_sound(bundle_copy)
        assert not (bundle_copy / "onnx/vision.data").exists()
        assert answer(old) == expected
        with pytest.raises(BadBundle, match=r"^[^\n]+$"):
            answer(unloaded)
    with Session(bundle_copy, options) as new:
        assert answer(new) == expected


def test_replacing_a_part_forgets_its_comparison(stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    with BundleWriter.open(bundle) as writer:
        writer.record_parity("BF16", {"files": ["llm/BF16.gguf"], "rows": []})
        writer.record_parity("fp32", {"files": ["onnx/vision.onnx"], "rows": []})
    assert gguf(stllm, tiny_checkpoint, bundle, "--quant", "BF16", "--force").exit_code == 0
    assert list(Bundle(bundle).manifest["parity"]) == ["fp32"]


def test_a_checkpoint_in_a_renamed_folder_is_the_same(
    stllm: Any, tiny_checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(tiny_checkpoint, tmp_path / "moved here"))
    assert gguf(stllm, renamed, bundle, "--quant", "Q8_0").exit_code == 0
    assert Bundle(bundle).quants == ["BF16", "Q8_0"]


def test_another_checkpoint_is_refused(stllm: Any, alter: Callable[..., Path], bundle: Path) -> None:
    before = content(bundle)
    other = alter(lambda tensors: tensors.update({"model.image_newline": torch.zeros(256)}))
    for options in (["--quant", "Q8_0"], ["--quant", "BF16", "--force"]):
        result = gguf(stllm, other, bundle, *options)
        assert result.exit_code == 2
        assert "--out" in result.stderr
        assert content(bundle) == before


@pytest.mark.parametrize("options", [["--frames", 8], ["--voxel-size", 0.05], ["--no-time-instruction"]])
def test_other_options_are_refused(options: list[object], stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    result = gguf(stllm, tiny_checkpoint, bundle, "--quant", "Q8_0", *options)
    assert result.exit_code == 2
    assert "defaults" in result.stderr
    assert content(bundle) == before


def test_failure_of_a_later_part_leaves_no_earlier_one(stllm: Any, alter: Callable[..., Path], tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"] * 1e6

    checkpoint = alter(enlarge)
    assert gguf(stllm, checkpoint, tmp_path / "new", "--quant", "F32", "--quant", "F16").exit_code == 2
    assert not (tmp_path / "new").exists()
    assert gguf(stllm, checkpoint, tmp_path / "old", "--quant", "BF16").exit_code == 0
    before = content(tmp_path / "old")
    assert gguf(stllm, checkpoint, tmp_path / "old", "--quant", "F32", "--quant", "F16").exit_code == 2
    assert content(tmp_path / "old") == before


def kill_midway(checkpoint: Path, out: Path) -> None:
    """Start an export of every type and kill it while it writes."""
    options = [word for quant in QUANTS if quant != "BF16" for word in ("--quant", quant)]
    program = "from stllm_edge.cli import export; export()"
    arguments = [sys.executable, "-c", program, "gguf", "--ckpt", checkpoint, "--out", out, *options]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob(".staging-*/llm/*.gguf")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_killed_export_leaves_a_sound_bundle(stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    kill_midway(tiny_checkpoint, bundle)
    after = content(bundle)
    assert {name: data for name, data in after.items() if not name.startswith(".staging-")} == before
    Bundle(bundle).check(["llm/BF16.gguf"], fresh=True)
    result = gguf(stllm, tiny_checkpoint, bundle, "--quant", "Q8_0")
    assert result.exit_code == 0, result.output
    assert is_sound(bundle)


def test_killed_first_export_can_be_repeated(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    kill_midway(tiny_checkpoint, tmp_path / "b")
    assert not (tmp_path / "b/manifest.json").exists()
    assert not (tmp_path / "b/llm").exists()
    result = gguf(stllm, tiny_checkpoint, tmp_path / "b", "--quant", "Q8_0")
    assert result.exit_code == 0, result.output
    assert is_sound(tmp_path / "b")


def test_second_writer_is_refused(stllm: Any, tiny_checkpoint: Path, bundle: Path) -> None:
    before = content(bundle)
    with BundleWriter.open(bundle):
        result = gguf(stllm, tiny_checkpoint, bundle, "--quant", "Q8_0")
        assert result.exit_code == 2
        assert "another process is writing" in result.stderr
    assert content(bundle) == before
    assert gguf(stllm, tiny_checkpoint, bundle, "--quant", "Q8_0").exit_code == 0


def test_second_writer_leaves_a_new_bundle_alone(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with BundleWriter.open(tmp_path / "b") as writer:
        assert gguf(stllm, tiny_checkpoint, tmp_path / "b", "--quant", "Q8_0").exit_code == 2
        assert writer.staging.is_dir()


@pytest.mark.parametrize("below", [".", "new/deep"], ids=["an empty folder", "a new folder"])
def test_a_refused_export_leaves_folders_as_they_were(
    below: str, stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    (checkpoint / "tokenizer.json").unlink()
    out = tmp_path / "out"
    out.mkdir()
    assert gguf(stllm, checkpoint, out / below, "--quant", "F32").exit_code == 2
    assert not list(out.iterdir())


def test_no_folder_can_be_made(stllm: Any, tiny_checkpoint: Path) -> None:
    result = gguf(stllm, tiny_checkpoint, Path("/proc/bundle"), "--quant", "F32")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "--out /proc/bundle: no folder can be made there" in result.stderr


@pytest.mark.parametrize("views", [["--scene", "nope", "--video", "nope"], ["--scene", "nope"]])
def test_what_to_verify_on_is_read_before_anything_is_exported(
    views: list[str], stllm: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    result = stllm("export", "all", "--ckpt", tiny_checkpoint, "--out", tmp_path / "b", *views)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


def test_empty_folder_is_used(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert gguf(stllm, tiny_checkpoint, tmp_path, "--quant", "BF16").exit_code == 0
    assert is_sound(tmp_path)
