"""Comparing a bundle with the PyTorch model: ticks where they agree, crosses at the stage that differs."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from gguf import GGUFReader
from stllm_edge.benchmarks.variants import VARIANTS, compare
from stllm_edge.runtime.errors import BadBundle, StllmError
from stllm_edge.runtime.llm.vocabulary import Vocabulary

STAGES = {
    "fp32": ["vision", "points", "aligner"],
    "F32": ["header", "weights", "prompt", "words", "prefill"],
    "Q4_K_M": ["header", "weights", "prompt", "words", "graph", "loss"],
}
PLAIN = ["--precision", "fp32", "--quant", "F32"]


def marks(output: str) -> dict[tuple[str, str], str]:
    """The mark of each part and stage; a cross if any of a stage's files has one."""
    found: dict[tuple[str, str], str] = {}
    for line in output.splitlines():
        if line[:1] in ("✓", "✗", "·"):
            mark, part, stage, *_ = line.split()
            found[part, stage] = "✗" if found.get((part, stage)) == "✗" else mark
    return found


def files_of(output: str) -> list[str]:
    """The graphs that rows name."""
    return [line.split()[-1] for line in output.splitlines() if line.endswith(".onnx")]


def strict_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest read as the JSON standard has it, without NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"manifest.json holds {word}, which is not JSON")

    return json.loads((bundle / "manifest.json").read_text(), parse_constant=refuse)


@pytest.mark.slow
def test_right_bundle_gets_a_tick_at_each_stage(stllm: Any, tiny_checkpoint: Path, bundle_copy: Path) -> None:
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy)
    assert result.exit_code == 0, result.output
    found = marks(result.stdout)
    for part in ("fp32", "fp16"):
        assert [found[part, stage] for stage in STAGES["fp32"]] == ["✓"] * 3
    for part, like in (("F32", "F32"), ("Q8_0", "Q4_K_M"), ("Q4_K_M", "Q4_K_M")):
        assert [found[part, stage] for stage in STAGES[like]] == ["✓"] * len(STAGES[like])
    assert len(files_of(result.stdout)) == len(set(files_of(result.stdout))) == 2 * 8
    assert "✗" not in found.values()


def test_lines_and_record_state_each_stage(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object]
) -> None:
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 0, result.output
    for line in result.stdout.splitlines():
        if any(f" {stage} " in line for stage in ("vision", "points", "aligner", "prefill")):
            assert "rel-rms" in line
            assert "cosine 1.0000000" in line
            assert "<= " in line
    expected = {(part, stage) for part in ("fp32", "F32") for stage in STAGES[part]}
    assert set(marks(result.stdout)) == expected | {("bundle", "stops")}
    assert files_of(result.stdout) == [
        *(f"onnx/{graph}.onnx" for graph in ("vision.cpu", "points", "aligner.cpu", "vision", "aligner")),
        *(f"onnx/{graph}.tensorrt.onnx" for graph in ("vision", "points", "aligner")),
    ]
    parity = strict_manifest(bundle_copy)["parity"]
    assert set(parity) == {"fp32", "F32"}
    for part, stages in ((part, STAGES[part]) for part in parity):
        rows = parity[part]["rows"]
        assert list(dict.fromkeys(row["stage"] for row in rows)) == stages
        assert all(row["passed"] for row in rows)
        # attention in the aligner for TensorRT has FP16 factors
        fused = [row for row in rows if row["file"] == "onnx/aligner.tensorrt.onnx"]
        assert all(1e-5 < row["rel_rms"] < 2e-3 for row in fused)
        assert all(0 <= row["rel_rms"] < 1e-4 for row in rows if row not in fused and row["rel_rms"] is not None)


def refresh_digest(bundle: Path, name: str) -> None:
    """Let the manifest describe a file as it is now."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def damage_graph(bundle: Path, encoder: str) -> str:
    """Scale the largest weight of an encoder's data file; the file's name in the bundle."""
    entry = json.loads((bundle / "manifest.json").read_text())["encoders"]["fp32"][encoder]["portable"]
    graph = onnx.load(str(bundle / entry["file"]), load_external_data=False).graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    places = [{item.key: item.value for item in tensor.external_data} for tensor in outside]
    place = max(places, key=lambda place: int(place["length"]))
    values = np.memmap(bundle / entry["weights"], np.float32, "r+", int(place["offset"]), int(place["length"]) // 4)
    values *= np.float32(1.1)
    values.flush()
    return entry["weights"]


def damage_llm(bundle: Path) -> str:
    """Scale one weight of the F32 language model."""
    tensors = GGUFReader(bundle / "llm/F32.gguf", "r+").tensors
    data = next(tensor for tensor in tensors if tensor.name == "blk.1.ffn_down.weight").data
    data *= np.float32(1.1)
    data.flush()
    return "llm/F32.gguf"


@pytest.mark.parametrize("stage", ["vision", "points", "aligner"])
def test_wrong_weight_in_a_graph_turns_its_stage_to_a_cross(
    stage: str, stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object]
) -> None:
    refresh_digest(bundle_copy, damage_graph(bundle_copy, stage))
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 1
    found = marks(result.stdout)
    assert found["fp32", stage] == "✗"
    others = {"vision": ["points"], "points": ["vision"], "aligner": ["vision", "points"]}[stage]
    assert all(found["fp32", other] == "✓" for other in others)
    assert all(found["F32", other] == "✓" for other in STAGES["F32"])
    assert f"fp32 {stage}" in result.stderr
    rows = json.loads((bundle_copy / "manifest.json").read_text())["parity"]["fp32"]["rows"]
    assert {row["passed"] for row in rows if row["stage"] == stage} == {False}


def test_wrong_weight_in_the_language_model_turns_its_stages_to_crosses(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object]
) -> None:
    refresh_digest(bundle_copy, damage_llm(bundle_copy))
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 1
    found = marks(result.stdout)
    assert found["F32", "weights"] == found["F32", "prefill"] == "✗"
    assert found["F32", "prompt"] == "✓"
    assert all(found["fp32", stage] == "✓" for stage in STAGES["fp32"])


def test_file_that_the_manifest_does_not_describe_fails(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object]
) -> None:
    damage_graph(bundle_copy, "vision")
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 1
    assert marks(result.stdout)["fp32", "files"] == "✗"
    assert ("F32", "files") not in marks(result.stdout)


@pytest.mark.parametrize(
    ("name", "part", "stage"),
    [
        ("model.mm_projector.0.weight", "fp32", "vision"),
        ("pcd_encoder.net3d.block4.0.conv2.kernel", "fp32", "points"),
        ("latent_query.weight", "fp32", "aligner"),
        ("lm_head.weight", "F32", "weights"),
    ],
)
def test_wrong_weight_in_the_checkpoint_turns_its_stage_to_a_cross(
    name: str,
    part: str,
    stage: str,
    stllm: Any,
    alter: Callable[..., Path],
    bundle_copy: Path,
    world: list[object],
) -> None:
    checkpoint = alter(lambda tensors: tensors.update({name: tensors[name] * 1.125}))
    result = stllm("export", "verify", "--ckpt", checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 1
    assert marks(result.stdout)[part, stage] == "✗"
    assert "is not the checkpoint that" in result.stderr
    other = "F32" if part == "fp32" else "fp32"
    assert all(marks(result.stdout)[other, stage] == "✓" for stage in STAGES[other])


def test_longer_prompts_are_compared_on_demand(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object]
) -> None:
    options = [*PLAIN, *world, "--positions", 512]
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *options)
    assert result.exit_code == 0, result.output
    assert marks(result.stdout)["F32", "prefill"] == "✓"


def test_unused_weight_makes_no_difference(
    stllm: Any, alter: Callable[..., Path], bundle_copy: Path, world: list[object]
) -> None:
    name = "qformer.encoder.layer.0.intermediate.dense.weight"
    checkpoint = alter(lambda tensors: tensors.update({name: torch.full_like(tensors[name], 3)}))
    result = stllm("export", "verify", "--ckpt", checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--precision", "fp64"], "known are fp32, fp16, int8, or a mix"),
        (["--precision", "int8"], "it holds fp32, fp16"),
        (["--quant", "Q2_K"], "it holds F32, Q8_0, Q4_K_M"),
        (["--scene", "somewhere"], "--video"),
        (["--video", "somewhere"], "--scene"),
        (["--fps", "25"], "--scene and --video go together"),
        (["--first-frame", "1"], "--scene and --video go together"),
        (["--positions", "100"], "--positions 100: expected at least 256"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    options: list[str], named: str, stllm: Any, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", tiny_bundle, *options, "--quiet")
    assert result.exit_code == 2
    assert named in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_checkpoint_of_other_sizes_is_refused(stllm: Any, alter: Callable[..., Path], tiny_bundle: Path) -> None:
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.layers.1.")]:
            del tensors[name]

    checkpoint = alter(shorten, config={"num_hidden_layers": 1})
    result = stllm("export", "verify", "--ckpt", checkpoint, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert "other sizes" in result.stderr


def test_bundle_without_encoders_is_refused(stllm: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    stllm("export", "gguf", "--ckpt", tiny_checkpoint, "--out", tmp_path / "b", "--quant", "F32")
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", tmp_path / "b")
    assert result.exit_code == 2
    assert "no encoders" in result.stderr


def test_a_clip_with_all_that_its_files_do_not_say(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, block: dict[str, Path], tmp_path: Path
) -> None:
    """Bare frames, poses and intrinsics elsewhere, in OpenGL axes, numbered from 3."""
    points = shutil.copy(block["scene"] / "points.npy", tmp_path / "cloud.npy")
    intrinsics = shutil.copy(block["scene"] / "K.txt", tmp_path / "camera.txt")
    (tmp_path / "poses").mkdir()
    for pose in (block["scene"] / "poses").glob("*.txt"):
        np.savetxt(tmp_path / "poses" / pose.name, np.loadtxt(pose) @ np.diag([1.0, -1, -1, 1]))
    frames = Path(shutil.copytree(block["video"], tmp_path / "frames", ignore=shutil.ignore_patterns("*.json")))
    files = ["--scene", points, "--video", frames, "--poses", tmp_path / "poses", "--intrinsics", intrinsics]
    said = ["--pose-convention", "c2w-opengl", "--fps", 30, "--video-seconds", 1, "--first-frame", 3]
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *files, *said)
    assert result.exit_code == 0, result.output
    assert "✗" not in result.stdout


def test_a_bundle_that_cannot_be_written_is_compared_all_the_same(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle_copy / "manifest.json").read_bytes()

    def read_only(*arguments: object, **options: object) -> None:
        raise BadBundle(f"{bundle_copy}/.lock: Read-only file system")

    monkeypatch.setattr("stllm_edge.runtime.bundle.writer.BundleWriter.open", read_only)
    result = stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert result.exit_code == 0, result.output
    assert marks(result.stdout)["F32", "prefill"] == "✓"
    assert "the comparison is not recorded" in result.stderr
    assert "Read-only file system" in result.stderr
    assert (bundle_copy / "manifest.json").read_bytes() == before


def test_no_vocabulary_stays_open(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path, world: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Vocabulary] = []
    load = Vocabulary.__init__

    def count(self: Vocabulary, path: Path) -> None:
        load(self, path)
        opened.append(self)

    monkeypatch.setattr(Vocabulary, "__init__", count)
    stllm("export", "verify", "--ckpt", tiny_checkpoint, "--bundle", bundle_copy, *PLAIN, *world)
    assert opened
    for vocabulary in opened:
        with pytest.raises(StllmError, match="closed"):
            vocabulary.tokenize("a")


@pytest.mark.slow
def test_a_sharper_aligner_gets_limits_that_follow_it(tmp_path: Path) -> None:
    """Attention whose scores are 64 times larger: the layers that need it keep float32, and nothing is a cross."""
    rows = list(compare(VARIANTS["aligner's attention x 64"], tmp_path, ["fp32"], ["F32"]))
    assert not [row for row in rows if row.passed is False]
    (fused,) = [row for row in rows if row.file == "onnx/aligner.tensorrt.onnx"]
    assert "times what the format costs" in fused.limit or fused.rel_rms < 2e-3
    kept = strict_manifest(tmp_path / "bundle")["float32_attention"]["fp32"]["aligner"]
    assert "layers.0.self_attention" in kept
