"""What the device side imports, how fast commands start, and the example in the package's documentation."""

import doctest
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import stllm_edge.runtime
from stllm_edge import cli

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


def test_answering_imports_nothing_of_the_server_side(tiny_bundle, sample) -> None:
    found = modules_after(
        "import stllm_edge.runtime as r",
        f"session = r.Session({str(tiny_bundle)!r}, r.Options(resident=True))",
        f"scene, clip = r.load_scene({str(sample[0])!r}), r.load_clip({str(sample[1])!r})",
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


def commands(name: str, command: click.Command) -> Iterator[tuple[str, ...]]:
    """A command and those below it, as a user types them."""
    yield (name,)
    for below in getattr(command, "entries", {}):
        deeper = command.get_command(click.Context(command), below)
        yield from ((name, *path) for path in commands(below, deeper))


COMMANDS = [path for name in cli.COMMANDS for path in commands(name.removeprefix("stllm-"), cli.command(name))]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_comes_at_once(path: tuple[str, ...]) -> None:
    name, *below = path
    program = f"from stllm_edge.cli import {name}; {name}(prog_name='stllm-{name}')"
    spent = []
    for _ in range(8):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, *below, "--help"], capture_output=True, text=True, check=True
        )
        spent.append(time.perf_counter() - start)
        assert done.stdout.startswith(f"Usage: stllm-{' '.join(path)} ")
        if spent[-1] < 0.3:
            break
    assert min(spent) < 0.3


@pytest.mark.parametrize(
    ("name", "arguments", "missing"),
    [
        ("export", ["inspect", "--ckpt", "checkpoint"], "torch"),
        ("export", ["all", "--ckpt", "checkpoint", "--out", "bundle"], "torch"),
        ("bench", ["checkpoint", "--out", "checkpoint"], "torch"),
        ("bench", ["encoder", "points"], "onnx_ir"),
    ],
)
def test_commands_of_the_server_say_what_to_install(
    name: str, arguments: list[str], missing: str, tmp_path: Path
) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from stllm_edge.cli import {name}; {name}()"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f": {missing} is not installed; pip install 'stllm-edge[export]'\n")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_package_s_example_runs_as_printed(tiny_bundle: Path, sample: tuple[Path, Path]) -> None:
    found = {"bundle": tiny_bundle, "scene_folder": sample[0], "video_folder": sample[1]}
    result = doctest.testmod(stllm_edge.runtime, extraglobs=found)
    assert result.attempted >= 5
    assert result.failed == 0
