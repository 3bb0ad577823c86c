"""The interactive form: questions by lines, and on a terminal, where Ctrl-C ends an answer."""

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from stllm_edge import cli

QUICK = ("--frames", 2, "--max-new-tokens", 3, "--threads", 1, "--resident", "--quiet")


@pytest.fixture
def sources(tiny_bundle: Path, inputs: Any) -> list[str]:
    return [*map(str, ("--bundle", tiny_bundle, "--scene", inputs.scene, "--video", inputs.video, *QUICK))]


@pytest.fixture
def talk(sources: list[str]) -> Callable[..., list[dict[str, Any]]]:
    """What is told, line by line, of lines that are typed."""

    def run(*lines: object, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        typed = "\n".join(map(str, lines))
        result = CliRunner().invoke(cli.command("stllm-run"), [*sources, "--json", *options], input=typed)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


def of_kind(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in told if event["event"] == kind]


def test_lines_are_questions_that_follow_each_other(talk) -> None:
    told = talk("Where is the cup?", "", "And now?", "/stats")
    first, second = of_kind(told, "report")
    assert (first["question"], second["question"]) == ("Where is the cup?", "And now?")
    assert first["cache"]["points"] == {"hits": 0, "misses": 1}
    assert second["cache"]["prefill"]["hits"] > 0
    assert not {"vision", "points", "rays", "aligner"} & set(second["milliseconds"])
    assert of_kind(told, "stats")[0]["answer"] == second["answer"]
    assert [event["stage"] for event in of_kind(told, "stage_started")].count("vision") == 1
    assert "".join(event["text"] for event in of_kind(told, "text")) == first["answer"] + second["answer"]


def test_a_reset_forgets_and_another_clip_is_looked_at(talk, inputs, tmp_path) -> None:
    import shutil

    other = shutil.copytree(inputs.video, tmp_path / "other")
    first = sorted(other.glob("*.png"))[0]
    shutil.copy(sorted(other.glob("*.png"))[2], first)
    told = talk("Where?", "/reset", "Where?", f"/video {other}", "Where?", f"/scene {inputs.scene}")
    one, two, three = of_kind(told, "report")
    assert one["answer"] == two["answer"]
    assert two["cache"]["prefill"]["hits"] == 0
    # the first frame is now what the last one is, which is known
    assert three["cache"]["vision"] == {"hits": 2, "misses": 0}
    assert three["cache"]["points"] == {"hits": 1, "misses": 0}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/colour", "/colour: unknown; /help lists what there is"),
        ("/scene", "/scene: give a path with it"),
        ("/scene /nowhere", "/nowhere: no such file or folder"),
        ("/stats", "nothing was answered yet"),
        ("<image>", "the question holds <image>"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_session_goes_on(talk, line: str, words: str) -> None:
    told = talk(line, "Where?", "/quit", "Never?")
    (error,) = of_kind(told, "error")
    assert words in error["message"]
    assert len(of_kind(told, "report")) == 1


def test_a_deadline_is_an_error_of_its_question_alone(talk) -> None:
    told = talk("Where?", options=("--max-time", "0.0001"))
    assert [event["cancelled"] for event in of_kind(told, "error")] == [True]


def test_without_a_terminal_a_question_is_needed(sources) -> None:
    result = CliRunner().invoke(cli.command("stllm-run"), sources)
    assert result.exit_code == 2
    assert "Missing option '-q' / '--question'" in result.stderr


def read_until(terminal: int, text: bytes) -> bytes:
    shown, end = b"", time.monotonic() + 60
    while text not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            # no further than the text: what comes next is for the next call
            shown += os.read(terminal, 1)
    assert text in shown, shown
    return shown


def status_of(process: int) -> int:
    """Of a process that is about to end; one that does not is killed."""
    end = time.monotonic() + 60
    while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            return os.waitpid(process, 0)[1]
        time.sleep(0.01)
    return ended[1]


# a shell's background jobs, of which this may be one, ignore Ctrl-C
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stllm_edge.cli import run; run()"
)


@pytest.mark.slow
def test_on_a_terminal_ctrl_c_ends_an_answer_and_ctrl_d_the_session(sources) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, *sources, "--max-new-tokens", "30000"])
    try:
        read_until(terminal, b"> ")
        os.write(terminal, b"Where is the cup? " + b"Is it there? " * 250 + b"\n")
        read_until(terminal, b"\n")
        time.sleep(0.3)
        begin = time.monotonic()
        os.write(terminal, b"\x03")
        read_until(terminal, b"the question was ended")
        # at temperature 0 this model repeats itself: the whole answer would take longer
        assert time.monotonic() - begin < 3
        os.write(terminal, b"/help\n")
        read_until(terminal, b"Ctrl-D leaves")
        # a Ctrl-D that comes before the next prompt is lost where the terminal changes its mode
        read_until(terminal, b"> ")
        os.write(terminal, b"\x04")
        assert status_of(process) == 0
    finally:
        os.close(terminal)
