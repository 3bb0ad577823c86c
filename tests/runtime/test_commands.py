"""stllm-run beside its questions: a check of what goes in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.cli import command


def test_a_check_needs_no_model(sample: tuple[Path, Path], stllm: Any, tmp_path: Path) -> None:
    scene, video = sample
    result = stllm("run", "check", "--scene", scene, "--video", video, "--picture", tmp_path / "check.png")
    assert result.exit_code == 0, result.output
    assert "nothing speaks against it" in result.stdout
    assert "* poses as c2w" in result.stdout
    assert (tmp_path / "check.png").is_file()


def test_a_check_gives_its_figures(sample: tuple[Path, Path], stllm: Any) -> None:
    result = stllm("run", "check", "--scene", sample[0], "--video", sample[1], "--frames", 2, "--json")
    said = json.loads(result.stdout)
    assert (len(said["frames"]), said["pose_convention"], said["findings"]) == (2, "c2w", [])
    assert said["colours"]["c2w"]["agree"] > 0.5


def test_what_would_be_refused_fails(sample: tuple[Path, Path], stllm: Any, tmp_path: Path) -> None:
    intrinsics = np.diag([1 / 128, 1 / 96, 1]) @ np.loadtxt(sample[0] / "K.txt")
    np.savetxt(tmp_path / "K.txt", intrinsics)
    arguments = ("--scene", sample[0], "--video", sample[1], "--intrinsics", tmp_path / "K.txt")
    result = stllm("run", "check", *arguments)
    assert result.exit_code == 1
    assert "refused: K is in shares of a frame" in result.stdout
    assert stllm("run", "check", *arguments, "--intrinsics-of", "1x1").exit_code == 0
    chosen = stllm("run", "check", *arguments, "--intrinsics-of", "auto")
    assert (chosen.exit_code, "--intrinsics-of 1x1: chosen" in chosen.stdout) == (0, True)


def test_a_question_is_refused_where_a_check_fails(
    sample: tuple[Path, Path], stllm: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    for file in (sample[0] / "poses").glob("*.txt"):
        np.savetxt(tmp_path / file.name, np.loadtxt(file) @ np.diag([1.0, -1, -1, 1]))
    arguments = (
        "--bundle",
        tiny_bundle,
        "--scene",
        sample[0],
        "--video",
        sample[1],
        "--poses",
        tmp_path,
        "-q",
        "What?",
    )
    more = ("--frames", 4, "--max-new-tokens", 2, "--quiet", "--resident", "--json")
    refused = stllm("run", *arguments, *more)
    assert refused.exit_code == 2
    assert refused.stderr.strip().endswith("; --pose-convention c2w-opengl")
    assert refused.stderr.count("\n") == 1
    mended = stllm("run", *arguments, *more, "--pose-convention", "auto")
    assert mended.exit_code == 0, mended.output
    assert json.loads(mended.stdout)["inputs"]["chosen"] == {"--pose-convention": "c2w-opengl"}


def test_the_plain_form_and_its_help_are_as_they_were(stllm: Any) -> None:
    assert stllm("run", "--help").stdout.startswith("Usage: stllm-run [OPTIONS]\n\n  Answer questions about a scene")
    assert "version" in stllm("run", "--version").stdout
    assert "Missing option" in stllm("run").stderr


@pytest.mark.parametrize("arguments", [["check"], ["check", "--scene", "x"]])
def test_a_check_says_what_it_lacks(arguments: list[str], stllm: Any) -> None:
    result = stllm("run", *arguments)
    assert result.exit_code == 2
    assert "stllm-run check" in result.stderr
    assert command("stllm-run").name == "stllm-run"
