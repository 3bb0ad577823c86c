"""Runs against each other, in noise like a machine's: what is found, what is left alone, and what cannot be told."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stllm_edge.benchmarks.reports import compare as module
from stllm_edge.benchmarks.reports.compare import Comparison, compare
from stllm_edge.benchmarks.reports.runs import Run

Writer = Callable[..., Path]
# quiet enough to tell 5 %, and of one phase, so that twenty pairs take a moment
QUIET = {"questions": 12, "repetitions": 5, "phases": ("warm",), "noise": 0.02, "wander": 0.003}


@pytest.fixture(scope="module")
def pairs(run_recipe: Any, run_of: Callable[..., Run]) -> Callable[..., list[Comparison]]:
    """Comparisons of pairs of runs, in turn or one after the other."""

    def compared(
        slower: dict[str, float], count: int = 20, in_turn: bool = False, other_machine: float = 1.0, **recipe: Any
    ) -> list[Comparison]:
        found = []
        for seed in range(count):
            other = {"bundle": "bb"} if in_turn else {"run": "other"}
            weather = {"weather": 2 * seed if in_turn else 2 * seed + 1}
            after = {**recipe, "machine": other_machine}
            first = run_of(run_recipe(seed=2 * seed, weather=2 * seed, **recipe))
            second = run_of(run_recipe(seed=2 * seed + 1, slower=slower, **weather, **other, **after))
            found.append(compare(first, second))
        return found

    return compared


def verdicts(comparisons: list[Comparison]) -> Counter[str]:
    return Counter(comparison.verdict for comparison in comparisons)


def test_a_run_and_the_same_again_do_not_differ(pairs: Callable[..., list[Comparison]]) -> None:
    found = pairs({}, **QUIET)
    assert verdicts(found)["no difference"] >= 19
    assert not any(change.verdict in ("slower", "faster") for one in found for change in one.changes)


def test_a_stage_slower_by_15_percent_is_found(pairs: Callable[..., list[Comparison]]) -> None:
    found = pairs({"aligner": 1.15}, in_turn=True, **QUIET)
    assert all(comparison.alternated for comparison in found)
    slow = [{change.stage for change in one.changes if change.verdict == "slower"} for one in found]
    assert sum(stages == {"aligner"} for stages in slow) >= 18


def test_a_faster_stage_is_found_one_run_after_the_other(pairs: Callable[..., list[Comparison]]) -> None:
    found = pairs({"vision": 1 / 1.15}, 8, **QUIET)
    assert verdicts(found)["faster"] == 8


def test_a_machine_that_wanders_cannot_tell_and_says_why(pairs: Callable[..., list[Comparison]]) -> None:
    found = pairs({}, 10, **{**QUIET, "noise": 0.06, "wander": 0.02})
    told = verdicts(found)
    assert told["cannot tell"] >= 9
    assert told["no difference"] == 0
    for comparison in found:
        if comparison.verdict == "cannot tell":
            whys = ("first half against second", "spread by", "the machine was not the same")
            assert any(why in said for said in comparison.reasons for why in whys)


def test_a_slower_machine_is_no_slower_bundle(
    pairs: Callable[..., list[Comparison]],
) -> None:
    for comparison in pairs({}, 6, other_machine=1.2, **QUIET):
        assert comparison.verdict == "cannot tell"
        said = [one for one in comparison.reasons if one.startswith("warm total: the machine was not the same")]
        assert re.search(r"a fixed spin took (1[89]|2[012])\.\d% longer in one of the runs", said[0])


def test_what_is_slower_beyond_the_machine_is_found(pairs: Callable[..., list[Comparison]]) -> None:
    assert verdicts(pairs({"vision": 1.25}, 6, other_machine=1.02, **QUIET))["slower"] == 6


def test_bundles_in_turn_are_told_apart_where_the_machine_wanders(pairs: Callable[..., list[Comparison]]) -> None:
    found = pairs({"vision": 1.15}, 8, in_turn=True, **{**QUIET, "wander": 0.03})
    assert verdicts(found)["slower"] == 8


def test_a_change_as_large_as_the_margin_straddles(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    every = dict.fromkeys(["video", "vision", "points", "aligner", "prefill", "decode"], 1.05)
    first, second = run_of(run_recipe(**QUIET)), run_of(run_recipe(**QUIET, run="b", seed=1, slower=every))
    comparison = compare(first, second)
    assert comparison.verdict == "cannot tell"
    assert "warm total: the change is about as large as the margin" in comparison.reasons
    assert compare(first, second, margin=0.02).verdict == "slower"
    assert compare(first, second, margin=0.1).verdict == "no difference"
    assert compare(second, first, margin=0.02).verdict == "faster"


def test_what_one_of_many_figures_may_be_by_chance_is_told_but_no_verdict(
    run_recipe: Any, run_of: Callable[..., Run]
) -> None:
    first = run_of(run_recipe(**QUIET))
    second = run_of(run_recipe(**QUIET, run="b", seed=1, slower={"vision": 1.07}))
    comparison = compare(first, second)
    assert comparison.verdict == "no difference"
    (vision,) = (change for change in comparison.changes if change.stage == "vision")
    assert (vision.verdict, vision.alone) == ("cannot tell", True)
    assert vision.low is not None
    assert vision.low > 1.05
    many = f"of {len(comparison.changes)} figures one may come out so by chance"
    assert comparison.reasons == (f"warm vision: by itself it would be sure, but {many}",)


def test_the_interval_is_that_of_scipy_where_a_question_is_asked_once(
    run_recipe: Any, run_of: Callable[..., Run]
) -> None:
    recipe = {"questions": 30, "repetitions": 1, "phases": ("warm",), "noise": 0.05}
    first, second = (run_of(run_recipe(run=str(seed), seed=seed, **recipe)) for seed in (1, 2))
    change = next(change for change in compare(first, second).changes if change.stage == "vision")
    pairs = zip(first.answers, second.answers, strict=True)
    ratios = np.array([after.seconds["vision"] / before.seconds["vision"] for before, after in pairs])
    expected = stats.bootstrap(
        (ratios,), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    )
    assert change.ratio == pytest.approx(np.median(ratios))
    assert change.low == pytest.approx(expected.confidence_interval.low, abs=0.005)
    assert change.high == pytest.approx(expected.confidence_interval.high, abs=0.005)


def test_questions_asked_unequally_often_are_compared(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    """The second run stopped in its last round."""
    first, second = run_of(run_recipe(**QUIET)), run_of(run_recipe(**QUIET, run="b", seed=1))
    short = Run(second.path, second.about, second.answers[:-5], (), None)
    comparison = compare(first, short)
    assert comparison.verdict == "no difference"
    assert {change.repetitions for change in comparison.changes} == {4}
    assert "run.jsonl: the run is not complete" in comparison.reasons


def test_a_phase_of_too_few_pairs_does_not_hide_the_others(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    """Cold starts are few; what is warm is judged all the same."""
    runs = [run_of(run_recipe(**{**QUIET, "phases": ("cold", "warm")}, run=str(seed), seed=seed)) for seed in (1, 2)]
    cold_once = [tuple(one for one in run.answers if one.phase == "warm" or one.sample == "P01-000") for run in runs]
    first, second = (Run(run.path, run.about, kept, (), run.end) for run, kept in zip(runs, cold_once, strict=True))
    comparison = compare(first, second)
    assert comparison.verdict == "no difference"
    assert comparison.reasons == ("cold total: too few pairs: 5, at least 6 are needed",)


def test_a_stage_of_one_run_only_is_told(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    first, second = (run_of(run_recipe(**QUIET, run=str(seed), seed=seed)) for seed in (1, 2))
    without = tuple(
        replace(one, seconds={stage: spent for stage, spent in one.seconds.items() if stage != "maps"})
        for one in second.answers
    )
    comparison = compare(first, Run(second.path, second.about, without, (), second.end))
    assert comparison.verdict == "no difference"
    assert comparison.reasons == ("warm: not in every answer and so not compared: maps",)
    assert "maps" not in {change.stage for change in comparison.changes}


def test_too_few_and_too_short(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    few = {"questions": 5, "repetitions": 1, "phases": ("warm",)}
    comparison = compare(run_of(run_recipe(**few)), run_of(run_recipe(**few, run="b", slower={"vision": 9.0})))
    assert comparison.verdict == "cannot tell"
    reasons = {change.stage: change.reason for change in comparison.changes}
    assert reasons["vision"] == "too few pairs: 5, at least 6 are needed"
    assert reasons["detokenise"].startswith("too short to tell: 0.")


def test_what_a_machine_did_is_said_with_the_verdict(run_recipe: Any, run_of: Callable[..., Run]) -> None:
    ended = {"drift": 0.12, "throttled": True}
    first = run_of(run_recipe(**QUIET, about={"noise": 0.3, "verified": False, "quant": "Q8_0"}, end=ended))
    comparison = compare(first, run_of(run_recipe(**QUIET, run="b", seed=1)))
    assert comparison.reasons == (
        "run.jsonl: the machine was busy, a fixed spin took up to 30% longer than usual",
        "run.jsonl: drifted by +12% from the first third of the run to the last",
        "run.jsonl: the device throttled",
        "run.jsonl: the bundle has no passing parity record",
    )
    assert comparison.differences == ("quant: Q8_0, Q4_K_M", "verified: False, True")


# the command


def test_the_status_tells_a_gate_what_it_needs(tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any) -> None:
    first = write_run(tmp_path / "a.jsonl", run_recipe(**QUIET))
    second = write_run(tmp_path / "b.jsonl", run_recipe(**QUIET, run="b", seed=1, slower={"vision": 1.15}))
    gated = stllm("bench", "compare", first, second, "--fail-above", "5%")
    assert gated.exit_code == 1
    assert gated.stdout.splitlines()[-1].startswith("slower by more than 5 % in ")
    assert "; most in warm vision, by 1" in gated.stdout
    assert stllm("bench", "compare", first, second).exit_code == 0
    assert stllm("bench", "compare", second, first, "--fail-above", "5%").exit_code == 0
    assert stllm("bench", "compare", first, second, "--fail-above", "0.4").exit_code == 0
    same = stllm("bench", "compare", first, first, "--fail-above", "5%", "--json")
    assert same.exit_code == 0
    told = json.loads(same.stdout)
    assert (told["verdict"], told["margin"]) == ("no difference", 0.05)
    assert {change["ratio"] for change in told["changes"]} == {1.0}


def test_a_file_of_two_bundles_is_compared_alone(
    tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any
) -> None:
    slow = run_recipe(**QUIET, bundle="bb", seed=1, slower={"vision": 1.15})
    both = write_run(tmp_path / "both.jsonl", run_recipe(**QUIET), slow)
    result = stllm("bench", "compare", both)
    assert result.exit_code == 0
    assert "bundles took turns in one run" in result.stdout
    assert "slower by more than 5 %" in result.stdout
    alone = write_run(tmp_path / "alone.jsonl", run_recipe(**QUIET))
    refused = stllm("bench", "compare", alone)
    assert refused.exit_code == 2
    assert "alone.jsonl: holds 1 runs; give a second file" in refused.stderr
    assert "holds 2 runs" in stllm("bench", "compare", alone, both).stderr
    assert "3 files: expected" in stllm("bench", "compare", alone, alone, alone).stderr


@pytest.mark.parametrize(
    ("about", "guard", "said"),
    [
        ({"workload_digest": "other"}, "workload", "another workload than"),
        ({"device": "NVIDIA Jetson AGX Orin"}, "device", "(device NVIDIA Jetson AGX Orin, not NVIDIA Jetson Orin Nano"),
        ({"power_mode": "15W"}, "power-mode", "another power mode than"),
        ({"power_mode": None}, "power-mode", "(power_mode None, not MAXN_SUPER)"),
    ],
)
def test_other_workloads_devices_and_power_modes_are_refused_unless_told(
    about: dict[str, Any],
    guard: str,
    said: str,
    tmp_path: Path,
    write_run: Writer,
    run_recipe: Any,
    stllm: Any,
) -> None:
    first = write_run(tmp_path / "a.jsonl", run_recipe(**QUIET))
    second = write_run(tmp_path / "b.jsonl", run_recipe(**QUIET, run="b", seed=1, about=about))
    refused = stllm("bench", "compare", first, second)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert said in refused.stderr
    assert f"--across {guard} compares them all the same" in refused.stderr
    assert stllm("bench", "compare", first, second, "--across", guard).exit_code == 0


def test_questions_that_were_other_work_are_refused(
    tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any
) -> None:
    first = write_run(tmp_path / "a.jsonl", run_recipe(**QUIET))
    second = write_run(tmp_path / "b.jsonl", run_recipe(**QUIET, run="b", prompt=lambda question: 6900))
    refused = stllm("bench", "compare", first, second)
    assert refused.exit_code == 2
    assert "warm question 'P01-000' is not always the same work (32 frames, 30000 voxels, 6846 prompt" in refused.stderr
    cold = write_run(tmp_path / "c.jsonl", run_recipe(**{**QUIET, "phases": ("cold",)}, run="c"))
    assert "has no question in common" in stllm("bench", "compare", first, cold).stderr


@pytest.mark.parametrize("share", ["0", "5", "x", "100%", "-1%", "nan"])
def test_a_margin_that_is_no_share_is_refused(share: str, tmp_path: Path, stllm: Any) -> None:
    result = stllm("bench", "compare", tmp_path / "a", tmp_path / "b", "--fail-above", share)
    assert result.exit_code == 2
    assert "write 5% or 0.05" in result.stderr


def test_guards_are_what_the_option_offers() -> None:
    from stllm_edge.benchmarks.reports.commands import compare as command

    across = next(option for option in command.params if option.name == "across")
    assert list(across.type.choices) == list(module.GUARDS)
