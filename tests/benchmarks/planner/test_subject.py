"""What is planned for: the same from a checkpoint's headers as from its bundle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stllm_edge.benchmarks.planner.subject import of_bundle, of_checkpoint
from stllm_edge.runtime.errors import BadInput


def test_headers_say_what_the_bundle_will_weigh(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    said, exported = of_checkpoint(tiny_checkpoint), of_bundle(tiny_bundle)
    assert said.geometry == exported.geometry
    for precision, sizes in exported.encoders.items():
        for name, size in sizes.items():
            # constant ray columns are left out of the aligner's file, a seventh of so small a one
            assert said.encoders[precision][name] == pytest.approx(size, rel=0.15), (precision, name)
    for quant in ("Q8_0", "Q4_K_M"):
        assert said.quants[quant] == pytest.approx(exported.quants[quant], rel=0.02), quant


def test_no_torch_is_imported_for_headers(tiny_checkpoint: Path) -> None:
    program = (
        "import sys; from stllm_edge.cli import bench; bench(standalone_mode=False); "
        "print([name for name in ('torch', 'onnx', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, "plan", "--ckpt", str(tiny_checkpoint), "--device", "agx-thor"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("part", "words"), [("llm", "language model"), ("encoders", "encoders")])
def test_half_a_bundle_is_refused(tiny_bundle: Path, tmp_path: Path, part: str, words: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), part: {}}))
    with pytest.raises(BadInput, match=rf"the bundle has no {words}; add it with stllm-export, or plan with --ckpt"):
        of_bundle(copy)


def test_torch_files_are_left_to_the_export(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"no safetensors files, and others are read by PyTorch alone; export it"):
        of_checkpoint(tmp_path)
