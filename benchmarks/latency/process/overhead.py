"""What measuring costs: a question to `stllm-run`, and the same to a process that is measured, in turns.

    python -m stllm_edge.benchmarks.latency.process.overhead --bundle BUNDLE --scene SCENE --video VIDEO -q QUESTION

Each answer comes from a fresh process that keeps nothing, and is as long as `stllm-run` makes it. Time goes from the
start of the process to the answer. What is printed is the ratio of the two, with a 95 % interval over pairs, and the
ratio of the least of each.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from ....runtime.bundle.manifest import Bundle
from ....runtime.errors import StllmError
from ....runtime.options import Options, Recording
from ..machine.monitor import Monitor
from ..machine.sensors import find_sensors, used_memory
from ..question import Question
from ..statistics import bootstrap
from ..workload import of_recording
from .asking import Asker

__all__ = ["main"]

PROGRAM = f"from {__package__.partition('.')[0]}.cli import run; run(prog_name='stllm-run')"
# of a JSON object that is printed with indentation
LAST_LINE = "}\n"


def main() -> None:
    """Measure so many pairs as the arguments say and print one JSON object."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("bundle", "scene", "video"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("-q", "--question", required=True)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--quant")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-n", "--max-new-tokens", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    bundle, options = Bundle(given.bundle), Options(quant=given.quant, threads=given.threads)
    frames = given.frames or bundle.defaults.frames
    asked = Recording(given.scene, given.video)
    (question,) = of_recording(
        asked, [given.question], frames=frames, new_tokens=max(given.max_new_tokens, 2)
    ).questions
    with Monitor(find_sensors(), used_memory(Path("/"))):
        # the first answer reads the files, and says how long an answer is
        tokens, pairs = ask_bare(bundle, options, question, frames, given.max_new_tokens)[1], []
        ways = (
            lambda: ask_measured(bundle, options, question, frames, tokens),
            lambda: ask_bare(bundle, options, question, frames, tokens)[0],
        )
        for number in range(given.pairs):
            # each comes first in every other pair, since machines get slower while they work
            turns = (number % 2, 1 - number % 2)
            seconds = {way: ways[way]() for way in turns}
            pairs.append((seconds[0], seconds[1]))
    ratio = bootstrap([[measured / bare] for measured, bare in pairs])
    # other work on the machine only adds to either
    least = min(measured for measured, _ in pairs) / min(bare for _, bare in pairs)
    found = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "of_the_least": least, "pairs": pairs}
    print(json.dumps(found))


def ask_measured(bundle: Bundle, options: Options, question: Question, frames: int, tokens: int) -> float:
    """Seconds to the answer of a process that is measured."""
    with Asker(bundle, options, frames, tokens) as asker:
        return asker.ask(question).total


def ask_bare(bundle: Bundle, options: Options, question: Question, frames: int, tokens: int) -> tuple[float, int]:
    """Seconds to the answer of `stllm-run`, and its tokens."""
    assert isinstance(question.source, Recording)
    command = [sys.executable, "-c", PROGRAM, "--bundle", bundle.path, "--scene", question.source.scene]
    command += ["--video", question.source.video, "-q", question.text, "-n", tokens, "--json", "--quiet"]
    command += [] if frames == bundle.defaults.frames else ["--frames", frames]
    command += ["--quant", options.quant] if options.quant else []
    command += ["--threads", options.threads] if options.threads else []
    start, printed = time.perf_counter(), []
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line == LAST_LINE:
                break
        seconds = time.perf_counter() - start
    if process.returncode:
        raise StllmError(f"stllm-run ended with status {process.returncode}; its reason stands above")
    return seconds, json.loads("".join(printed))["new_tokens"]


if __name__ == "__main__":
    main()
