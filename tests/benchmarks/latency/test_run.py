"""stllm-bench latency as a whole: what it writes and prints, goes on with, refuses, and survives."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from stllm_edge.benchmarks.latency import measuring
from stllm_edge.benchmarks.latency import run as module
from stllm_edge.benchmarks.latency.process.asking import Asker
from stllm_edge.benchmarks.latency.rows import Row, read_rows

ONCE = ("--cold", 1, "--repetitions", 1, "--warm-up", 3, "-n", 4, "--threads", 1, "--precision", "fp32")
ONCE += ("--quant", "Q8_0")
PARTS_OF_TOTAL = ("first_token", "total")


@pytest.fixture
def measure(stllm: Any, rea: Any, tiny_bundle: Path, tmp_path: Path) -> Callable[..., Result]:
    """Measure two questions about one clip; options given later win."""

    def run(*options: object, bundle: Path = tiny_bundle, out: str = "out") -> Result:
        rea.write()
        sources = ("--rea", rea.file, "--root", rea.root, "--subset", "first:2", "--frames", 3, "--bundle", bundle)
        return stllm("bench", "latency", *sources, *ONCE, "--allow-unverified", "--out", tmp_path / out, *options)

    return run


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.01)
    monkeypatch.setattr(module, "restlessness", lambda: 0.0)


def totals(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Answers in the order of the file."""
    names = ("sample", "phase", "repetition", "warm_up")
    return [tuple(row[name] for name in names) for row in rows if row["kind"] == "stage" and row["stage"] == "total"]


def test_a_run_writes_rows_and_prints_tables_and_a_headline(measure: Callable[..., Result], tmp_path: Path) -> None:
    result = measure()
    assert result.exit_code == 0, result.stderr
    rows = read_rows(tmp_path / "out/results.jsonl")
    kinds = [row["kind"] for row in rows]
    # no sensor is read before the first rows of the run
    assert kinds.count("run") == kinds.count("end") == 1
    assert kinds[-1] == "end"
    (run,) = (row for row in rows if row["kind"] == "run")
    assert (run["workload"], run["samples"], run["frames"]) == ("val first:2, 3 frames, 4 tokens", 2, 3)
    assert (run["parity"], run["verified"], run["quant"], run["threads"]) == ("absent", False, "Q8_0", 1)
    files = {row["name"]: row["sha256"] for row in rows if row["kind"] == "file"}
    assert set(files) >= {"llm/Q8_0.gguf", "onnx/points.onnx"}
    asked = [f"P01_11-1-{kind}" for kind in ("relative_direction", "find_my_item")]
    done = totals(rows)
    assert done[0] == (asked[0], "cold", 0, False)
    warm_ups = [answer for answer in done if answer[3]]
    assert {answer[0] for answer in warm_ups} == {asked[0]}
    assert len(warm_ups) == 6
    assert [answer for answer in done[1:] if not answer[3]] == [
        (sample, phase, 0, False) for sample in asked for phase in ("warm", "repeated")
    ]
    for row in rows:
        if row["kind"] in ("stage", "interval"):
            assert (row["workload_digest"], row["verified"]) == (run["workload_digest"], False)
    last = result.stdout.splitlines()[-1]
    headline = json.loads(last)["runs"][0]
    assert headline["workload_digest"] == run["workload_digest"]
    assert {part["phase"] for part in headline["parts"]} == {"cold", "warm", "repeated"}
    assert all(part["total_seconds"] > 0 for part in headline["parts"])
    assert result.stdout.startswith("| device")
    assert "(unverified)" in result.stdout
    check_answers(rows)
    check_tables(tmp_path / "out/results.jsonl", rows)


def check_answers(rows: list[Row]) -> None:
    """Stages sum to wall time, intervals follow each other, lengths are those that were asked for."""
    for sample, phase, repetition, warm_up in totals(rows):
        key = {"sample": sample, "phase": phase, "repetition": repetition, "warm_up": warm_up}
        own = [row for row in rows if all(row.get(name) == value for name, value in key.items())]
        seconds = {row["stage"]: row["seconds"] for row in own if row["kind"] == "stage"}
        parts = sum(spent for stage, spent in seconds.items() if stage not in PARTS_OF_TOTAL)
        assert parts == pytest.approx(seconds["total"], rel=1e-6)
        assert 0 <= seconds["other"] < seconds["total"]
        if not warm_up:
            # the process of a run that goes on is started by a warm-up
            assert ("process" in seconds, "load_vision" in seconds) == (phase == "cold", phase == "cold")
        stages = [row for row in own if row["kind"] == "stage"]
        assert {(row["new_tokens"], row["finish_reason"]) for row in stages} == {(4, "length")}
        assert {row["drop"] is None for row in stages} == {phase != "cold"}
        assert {row["joules"] for row in stages} == {None}
        depths = [row["depth"] for row in own if row["kind"] == "interval"]
        assert depths == [stages[0]["prompt_tokens"] + index for index in (1, 2, 3)]


def check_tables(path: Path, rows: list[Row]) -> None:
    """It loads into SQLite as it is."""
    with sqlite3.connect(":memory:") as database:
        database.execute("create table results (row text)")
        database.executemany("insert into results values (?)", ((line,) for line in path.read_text().splitlines()))
        (sum_of_totals,) = database.execute(
            "select sum(row ->> 'seconds') from results where row ->> 'kind' = 'stage' and row ->> 'stage' = 'total'"
        ).fetchone()
    assert sum_of_totals == pytest.approx(
        sum(row["seconds"] for row in rows if row["kind"] == "stage" and row["stage"] == "total")
    )


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Raise something in place of the answer number so and so."""

    def arrange(answers: int, error: BaseException) -> None:
        ask, count = Asker.ask, [0]

        def counted(self: Asker, *arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] > answers:
                raise error
            return ask(self, *arguments, **named)

        monkeypatch.setattr(Asker, "ask", counted)

    return arrange


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(
    measure: Callable[..., Result],
    stop_after: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "out/results.jsonl"
    with monkeypatch.context():
        stop_after(8, KeyboardInterrupt())
        result = measure()
    assert result.exit_code == 130
    assert f"interrupted; rows so far are in {path}, and the same command goes on" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["runs"][0]["complete"] is False
    begun = read_rows(path)
    assert (begun[-1]["kind"], begun[-1]["reason"]) == ("end", "interrupted")
    assert len(totals(begun)) == 8
    monkeypatch.undo()
    monkeypatch.setattr(module, "restlessness", lambda: 0.0)
    assert measure().exit_code == 0
    rows = read_rows(path)
    assert rows[: len(begun)] == begun
    assert {row["run"] for row in rows} == {begun[0]["run"]}
    assert rows[-1]["reason"] == "complete"
    counted = [answer for answer in totals(rows) if not answer[3]]
    assert len(counted) == len(set(counted)) == 5
    assert all(later["seconds"] > 0 for later in rows if later["kind"] == "sensor")
    check_answers(rows)
    again = measure()
    assert "holds the whole run already" in again.stderr
    assert read_rows(path) == rows


def test_a_full_disk_is_one_line(
    measure: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sync, count = os.fsync, [0]

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", full)
    result = measure()
    assert result.exit_code == 2
    line = "cannot be written (No space left on device); rows before are kept, the same command goes on"
    assert result.stderr.splitlines()[-1].endswith(line)
    monkeypatch.undo()
    # those of the run, and of one answer
    assert len(totals(read_rows(tmp_path / "out/results.jsonl"))) == 1


def test_bundles_take_turns(measure: Callable[..., Result], tiny_bundle: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    same = measure("--against", other)
    assert same.exit_code == 2
    assert "holds the same files as the first bundle" in same.stderr
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["defaults"]["voxel_size"] = 0.08
    (other / "manifest.json").write_text(json.dumps(manifest))
    result = measure("--against", other, "--cold", 0)
    assert result.exit_code == 0, result.stderr
    rows = read_rows(tmp_path / "out/results.jsonl")
    turns = [row["bundle"] for row in rows if row["kind"] == "stage" and row["stage"] == "total" and not row["warm_up"]]
    first, second = turns[0], turns[2]
    assert turns == [first, first, second, second] * 2
    assert {run["bundle"] for run in json.loads(result.stdout.splitlines()[-1])["runs"]} == {first, second}


def test_another_run_is_not_mixed_in(measure: Callable[..., Result], tmp_path: Path) -> None:
    assert measure("--cold", 1, "--subset", "first:1").exit_code == 0
    before = (tmp_path / "out/results.jsonl").read_bytes()
    refused = {
        ("--subset", "first:2"): "holds a run of another workload",
        ("-n", 5): "holds a run of another workload",
        ("--quant", "Q4_K_M"): "holds a run of another bundle",
        ("--threads", 2): "holds a run of another threads (1, not 2)",
        ("--no-resident",): "holds a run of another resident",
    }
    for options, reason in refused.items():
        result = measure("--subset", "first:1", *options)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert reason in result.stderr
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


REFUSED = {
    "no parity record": ((), "was not compared with the model, and a wrong bundle may be fast", False),
    "a subset that selects nothing": (("--type", "action_planning"), "no sample is of both", True),
    "too large a subset": (("--subset", "first:99"), "asks for 99 of 8 samples", True),
    "both workloads": (("--scene", "scene"), "--rea goes with --root, and without --scene", True),
    "no warm-up": (("--warm-up", 1), "--warm-up 1: expected at least 3", True),
    "no tokens": (("-n", 1), "--max-new-tokens 1: expected at least 2", True),
    "no temperature": (("--cool-to", 40), "--cool-to 40: this machine shows no temperature", True),
    "more frames than there are": (("--frames", 99), "--frames 99", True),
    "no bundle": (("--bundle", "absent"), "absent: no manifest.json", True),
}


@pytest.mark.parametrize(("options", "reason", "allowed"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_one_line(
    options: tuple[object, ...],
    reason: str,
    allowed: bool,
    stllm: Any,
    rea: Any,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "find_sensors", lambda root: [])
    sources = ("--bundle", tiny_bundle, "--rea", rea.file, "--root", rea.root, "--subset", "first:1", *ONCE)
    mark = ("--allow-unverified",) if allowed else ()
    result = stllm("bench", "latency", *sources, *mark, "--out", tmp_path / "out", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_workload_has_to_be_given(stllm: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    for options in ((), ("--scene", tmp_path), ("--rea", tmp_path)):
        result = stllm("bench", "latency", "--bundle", tiny_bundle, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2
        assert "--rea" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_board_s_sensors_and_mode_stand_in_the_rows(
    measure: Callable[..., Result], board: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measuring, "Run", partial(module.Run, root=board("agx-orin")))
    heats = [70.0, 65.0, 61.0, 60.0]
    monkeypatch.setattr(module, "COOLING_STEP", 0.0)
    monkeypatch.setattr(module.Monitor, "hottest", lambda monitor: heats.pop(0) if len(heats) > 1 else heats[0])
    result = measure("--cold", 0, "--subset", "first:1", "--cool-to", 60)
    # it waited until it was cool enough
    assert heats == [60.0]
    assert result.exit_code == 0, result.stderr
    rows = read_rows(tmp_path / "out/results.jsonl")
    (run,) = (row for row in rows if row["kind"] == "run")
    assert "Jetson" in run["device"]
    assert (run["jetpack"], run["clocks_locked"]) == ("L4T 35.4.1", True)
    assert run["idle_watts"] == pytest.approx(10.0)
    assert run["temperature_before"] > 40
    assert rows[-1]["temperature_after"] > 40
    for row in rows:
        if row["kind"] == "stage":
            assert row["joules"] == pytest.approx(10.0 * row["seconds"], rel=1e-3, abs=1e-9)
            assert row["joules"] == pytest.approx(sum(row[f"joules_{rail}"] for rail in run["rails"].split(" + ")))
    units = {row["unit"] for row in rows if row["kind"] == "sensor"}
    assert units == {"watt", "celsius", "hertz", "byte", "second"}
    # a fixed piece of work before each answer
    spins = [row["value"] for row in rows if row["kind"] == "sensor" and row["sensor"] == "spin"]
    assert len(spins) == sum(row["kind"] == "stage" and row["stage"] == "total" for row in rows)
    assert all(0 < value < 1 for value in spins)


@pytest.mark.parametrize(("growth", "throttled"), [(0.0, False), (0.05, True), (-0.05, False)])
def test_answers_that_get_slower_are_found(growth: float, throttled: bool) -> None:
    """Each question is compared with itself: one takes three times as long as the other."""
    rows = [
        {
            "kind": "stage",
            "stage": stage,
            "phase": phase,
            "warm_up": warm_up,
            "bundle": "a",
            "sample": sample,
            "seconds": factor * (1 + growth * again) * (1 + 0.003 * ((again * 7) % 5)),
        }
        for again in range(12)
        for sample, factor in (("short", 1.0), ("long", 3.0))
        for stage, phase, warm_up in (("total", "warm", False), ("total", "cold", False), ("vision", "warm", False))
    ]
    found = module.drift_of(rows)
    assert found is not None
    assert (found.found and found.change > 0) is throttled
    assert found.found == (growth != 0)
    assert module.drift_of(rows[:6]) is None


def test_the_process_is_ended_when_the_run_is(rea: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """SIGTERM ends a run as Ctrl-C does: with a last row, and nothing left behind."""
    program = "from stllm_edge.cli import bench; bench(prog_name='stllm-bench')"
    sources = ["--rea", rea.file, "--root", rea.root, "--frames", 3, "--bundle", tiny_bundle, "--out", tmp_path / "out"]
    command = [sys.executable, "-c", program, "latency", *sources, *ONCE, "--allow-unverified", "--min-seconds", "600"]
    path = tmp_path / "out/results.jsonl"
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(list(map(str, command)), **pipes)
    try:
        start = time.monotonic()
        while not path.exists() or '"total"' not in path.read_text():
            assert time.monotonic() - start < 100
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    rows = read_rows(path)
    assert (rows[-1]["kind"], rows[-1]["reason"]) == ("end", "interrupted")
    assert json.loads(stdout.splitlines()[-1])["results"] == str(path)
