"""What a question will need in memory is said before anything is loaded."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stllm_edge.benchmarks.world.rooms import write_room
from stllm_edge.export.sample import write_sample
from stllm_edge.runtime.bundle.manifest import Bundle
from stllm_edge.runtime.encoders import pool
from stllm_edge.runtime.encoders.providers import Placement
from stllm_edge.runtime.errors import DoesNotFit
from stllm_edge.runtime.inputs.clip import load_clip
from stllm_edge.runtime.inputs.scene import load_scene
from stllm_edge.runtime.memory.plan import Plan, require_memory
from stllm_edge.runtime.options import Options
from stllm_edge.runtime.session import Session
from stllm_edge.runtime.setup import Setup

# bytes that an allocator keeps or gives back as it likes
ALLOCATOR = 6e6


@pytest.fixture(scope="module")
def plan(tiny_bundle: Path) -> Plan:
    return plan_on(Bundle(tiny_bundle), Placement("CPU"))


def plan_on(bundle: Bundle, placement: Placement) -> Plan:
    """As a session with this placement would make it."""
    return Setup(bundle, "fp32", "F32", placement=placement).plan(4, 11_000, 24)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the bytes that are free."""

    def setter(value: int | None) -> None:
        monkeypatch.setattr("stllm_edge.runtime.memory.plan.available", lambda: value)

    return setter


@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ({"voxels": 22_000}, {"vision", "points", "aligner", "llm"}),
        ({"frames": 8}, {"vision", "points", "aligner", "llm"}),
        ({"kv": "f32"}, {"llm"}),
        ({"new_tokens": 2000}, {"llm"}),
    ],
    ids=["voxels", "frames", "kv", "answer"],
)
def test_larger_questions_need_more_where_they_are_larger(plan: Plan, more: dict[str, Any], stages: set[str]) -> None:
    before, after = plan.stages(), replace(plan, **more).stages()
    assert {stage for stage in before if after[stage] > before[stage]} == stages
    assert all(after[stage] >= before[stage] for stage in before)
    assert replace(plan, **more).peak() == max(after.values())


def test_engines_need_what_their_builder_reported(plan: Plan, tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "points.engine"
    file.write_bytes(bytes(1000))

    def stages(activations: int, shared: bool = True) -> dict[str, int]:
        engine: Any = SimpleNamespace(file=file, sidecar=SimpleNamespace(activation_bytes=activations))
        return plan_on(Bundle(tiny_bundle), Placement("GPU", engines={"points": engine}, shared=shared)).stages()

    assert stages(501)["points"] == stages(1)["points"] + 500
    assert stages(1)["points"] < plan.stages()["points"]
    assert {**stages(1), "points": 0} == {**plan.stages(), "points": 0}
    assert stages(500, shared=False)["points"] == stages(1)["points"] - 1001
    # a report of nothing is no report
    assert stages(0)["points"] > stages(1)["points"]


def test_what_fits_passes_and_so_does_what_nobody_knows(plan: Plan, free: Any) -> None:
    for memory in (plan.peak(), None):
        free(memory)
        require_memory(plan)


def test_message_names_stages_free_memory_and_what_would_fit(plan: Plan, free: Any) -> None:
    smaller = replace(plan, frames=plan.frames // 2).peak()
    assert smaller < plan.peak()
    free((smaller + plan.peak()) // 2)
    with pytest.raises(DoesNotFit) as caught:
        require_memory(plan)
    message = str(caught.value)
    for stage, peak in plan.stages().items():
        assert f"{stage} {peak / 1e6:.0f} MB" in message
    assert "MB are free" in message
    assert "--frames 2" in message
    assert "\n" not in message


def test_message_says_when_nothing_helps(plan: Plan, free: Any) -> None:
    free(1_000_000)
    with pytest.raises(DoesNotFit, match=r"no option of stllm-run makes it fit"):
        require_memory(plan)


def test_stages_that_stay_loaded_add_up(plan: Plan) -> None:
    both = plan.processes.main + plan.processes.worker
    assert plan.peak() == max(plan.stages().values())
    assert replace(plan, resident=True).peak() == int(both + sum(plan.taken().values()))


def test_memory_that_is_held_counts_as_free(plan: Plan, free: Any) -> None:
    free(plan.peak() - 1000)
    with pytest.raises(DoesNotFit):
        require_memory(plan)
    require_memory(plan, held=1000)


def test_what_does_not_fit_together_may_fit_apart(plan: Plan, free: Any) -> None:
    free(plan.peak())
    with pytest.raises(DoesNotFit, match=r"MB together; .* MB are free; --no-resident or "):
        require_memory(replace(plan, resident=True))


def test_nothing_is_loaded_when_it_does_not_fit(
    tiny_bundle: Path, tmp_path: Path, free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(1_000_000)
    monkeypatch.setattr(pool, "ChildEncoder", None)
    scene, video = write_sample(tmp_path)
    with pytest.raises(DoesNotFit):
        Session(tiny_bundle, Options(quant="F32")).look(load_scene(scene), load_clip(video), frames=2)


def test_a_plan_is_what_the_stages_take(plan: Plan, tiny_bundle: Path, tmp_path: Path) -> None:
    planned, measured = {}, {}
    for voxels in (4_000, 30_000):
        measured[voxels] = peaks(tiny_bundle, tmp_path / f"{voxels}", voxels)
        planned[voxels] = replace(plan, voxels=voxels, new_tokens=4).stages()
        for stage, peak in measured[voxels].items():
            assert peak <= planned[voxels][stage], (voxels, stage)
    # what the processes take by themselves differs from machine to machine and from run to run; it is no part of growth
    for stage in plan.stages():
        growth, said = (sizes[30_000][stage] - sizes[4_000][stage] for sizes in (measured, planned))
        assert abs(said - growth) <= 0.1 * growth + ALLOCATOR, (stage, said, growth)


def peaks(bundle: Path, folder: Path, voxels: int) -> dict[str, float]:
    """What the stages of a question about a room took at most, bytes, by their names in a plan."""
    scene, video = write_room(folder, voxels, 4)
    command = [sys.executable, "-c", "from stllm_edge.cli import run; run()", "--bundle", bundle, "--quant", "F32"]
    options = ["--scene", scene, "--video", video, "-q", "Where is the cup?", "--frames", "4", "-n", "4", "--json"]
    printed = json.loads(subprocess.run([*command, *options], check=True, capture_output=True).stdout)
    stages = {"vision": "vision", "points": "points", "aligner": "aligner", "llm": "prefill"}
    return {stage: printed["peak_mb"][measured] * 1e6 for stage, measured in stages.items()}


@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
def test_terms_of_libllama_are_those_that_it_reports(
    plan: Plan, tiny_bundle: Path, kv: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup(Bundle(tiny_bundle), "fp32", "F32", kv=kv, placement=Placement("CPU"))
    # 16 frames, so that the context is some cells long
    said = replace(plan, kv=kv, frames=128).libllama()
    with caplog.at_level("DEBUG", "stllm_edge"), setup.load_llm(1024):
        pass
    names = {"weights": "CPU_Mapped model", "kv": "CPU KV", "compute": "CPU compute"}
    for term, name in names.items():
        (reported,) = {
            float(found) * 2**20 for found in re.findall(rf"{name} buffer size = +([\d.]+) MiB", caplog.text)
        }
        # of compute, so narrow a model has a matrix of 1 MiB less than a wide one
        assert said[term] == pytest.approx(reported, rel=0.06, abs=1.1 * 2**20 if term == "compute" else 0), term


def test_a_live_view_s_encoders_stay_beside_all_else(plan: Plan) -> None:
    live = replace(plan, live=True)
    taken = plan.taken()
    beside = taken["vision"] + taken["points"]
    assert set(live.stages()) == {"aligner", "llm"}
    assert live.stages()["llm"] == pytest.approx(plan.stages()["llm"] + beside + plan.processes.worker, abs=2)
    assert live.peak() == max(live.stages().values()) > plan.peak()
    resident = replace(plan, resident=True)
    assert replace(resident, live=True).peak() == pytest.approx(resident.peak() + beside, abs=2)


def test_a_live_view_that_does_not_fit_is_refused_before_it_encodes(tiny_bundle: Path, inputs: Any, free: Any) -> None:
    with Session(tiny_bundle, Options(quant="F32")) as session:
        free(session.setup.plan(3, 1, 256).peak() + 2**20)
        with pytest.raises(DoesNotFit, match=r"MB are free"):
            session.watch(load_scene(inputs.scene), frames=3)
        free(2**40)
        session.watch(load_scene(inputs.scene), frames=3).close()


def test_what_is_read_again_is_held_beside_what_it_takes_the_place_of(plan: Plan) -> None:
    assert replace(plan, recompute=0.3).taken()["llm"] > replace(plan, frames=5).taken()["llm"] > plan.taken()["llm"]
