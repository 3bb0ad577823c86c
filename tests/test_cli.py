"""The table of commands: each is found, starts at once, and says what is not installed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from stllm_edge import cli


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
        ("bench", ["reference", "--ckpt", "checkpoint", "--bundle", "bundle"], "torch"),
        ("calib", ["audit", "--bundle", "bundle", "--precision", "int8"], "onnx_ir"),
        ("calib", ["collect", "--ckpt", "checkpoint", "--out", "set"], "torch"),
        ("calib", ["gate", "--bundle", "bundle", "--precision", "int8", "--calibration", "set"], "torch"),
        ("calib", ["imatrix", "--ckpt", "checkpoint", "--out", "matrix.gguf"], "torch"),
        ("calib", ["merge", "matrix.gguf", "--out", "sum.gguf"], "gguf"),
        ("calib", ["sensitivity", "--ckpt", "checkpoint", "--calibration", "set"], "torch"),
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
