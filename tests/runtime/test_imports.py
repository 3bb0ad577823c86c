"""What the device side imports, and the example in the package's documentation."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import stllm_edge.runtime

SERVER_SIDE = {"torch", "transformers", "onnx", "onnxscript", "gguf", "stllm_edge.export", "stllm_edge.calib"}


def modules_after(*lines: str) -> set[str]:
    """Names of the modules that a new interpreter has after running these lines."""
    program = "\n".join([*lines, "import sys", "print('\\n'.join(sys.modules), file=sys.__stdout__)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n"))


def test_opening_a_bundle_imports_nothing_of_the_server_side(tiny_bundle) -> None:
    found = modules_after("import stllm_edge.runtime as r", f"r.Session({str(tiny_bundle)!r})")
    assert "stllm_edge.runtime.session" in found
    assert not found & SERVER_SIDE


def test_answering_imports_nothing_of_the_server_side(tiny_bundle, inputs) -> None:
    found = modules_after(
        "import stllm_edge.runtime as r",
        f"session = r.Session({str(tiny_bundle)!r}, r.Options(resident=True))",
        f"scene, clip = r.load_scene({str(inputs.scene)!r}), r.load_clip({str(inputs.video)!r})",
        "assert list(session.ask(scene, clip, 'Where?', frames=1, max_new_tokens=2))",
    )
    assert {"onnxruntime", "llama_cpp"} <= found
    assert not found & SERVER_SIDE


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"numpy", "onnxruntime", "llama_cpp", "av", "PIL", "trimesh", "plyfile", "safetensors", "rich"}
    assert not modules_after("import stllm_edge.runtime") & (SERVER_SIDE | heavy)


@pytest.mark.parametrize("name", stllm_edge.runtime.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(stllm_edge.runtime, name).__name__ == name


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stllm_edge.runtime.nothing


def test_the_package_s_example_runs_as_printed(tiny_bundle: Path, sample: tuple[Path, Path]) -> None:
    found = {"bundle": tiny_bundle, "scene_folder": sample[0], "video_folder": sample[1]}
    result = doctest.testmod(stllm_edge.runtime, extraglobs=found)
    assert result.attempted >= 5
    assert result.failed == 0
