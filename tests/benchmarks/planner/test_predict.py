"""Memory and latency of a question on a device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.benchmarks.planner.devices import DepthCost, LayerRates, Range, find_device
from stllm_edge.benchmarks.planner.predict import Choice, Prediction, predict
from stllm_edge.benchmarks.planner.subject import Subject, of_bundle
from stllm_edge.benchmarks.planner.work import GPU_STAGES, HOST_STAGES, Question

QUESTION = Question(frames=8, voxels=10_000, new_tokens=32)


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path) -> Subject:
    return of_bundle(tiny_bundle)


def predicted(subject: Subject, device: str = "agx-orin-64gb@MAXN", question: Question = QUESTION) -> Prediction:
    return predict(find_device(device), subject, question, Choice("fp32", "Q8_0"))


def test_all_stages_are_predicted_as_ranges(subject: Subject) -> None:
    taken = predicted(subject).milliseconds
    assert set(taken) == {*HOST_STAGES, "start", *GPU_STAGES}
    assert all(0 < stage.low < stage.high for stage in taken.values())


def test_memory_is_the_runtimes_plan_and_the_gpus_libraries(subject: Subject) -> None:
    found = predicted(subject)
    libraries = found.device.gpu_process.high
    assert found.memory == {stage: int(size + libraries) for stage, size in found.plan.stages().items()}
    assert found.peak == max(found.memory.values())


def test_a_slower_mode_takes_longer_and_so_does_a_larger_question(subject: Subject) -> None:
    slower = predicted(subject, "agx-orin-64gb@MODE_15W").milliseconds
    larger = predicted(subject, question=Question(32, 30_000, 64)).milliseconds
    for stage, taken in predicted(subject).milliseconds.items():
        assert slower[stage].high > taken.high, stage
        assert larger[stage].high > taken.high or stage == "start", stage


def test_first_token_and_rate_come_from_the_stages(subject: Subject) -> None:
    found = predicted(subject)
    without_answer = [taken for stage, taken in found.milliseconds.items() if stage != "decode"]
    assert found.first_token.high == pytest.approx(sum(taken.high for taken in without_answer))
    assert found.tokens_per_second.high == pytest.approx(31e3 / found.milliseconds["decode"].low)


def test_layers_that_were_timed_take_the_place_of_shares(subject: Subject) -> None:
    rates = LayerRates(
        position=1e-5,
        token=1e-4,
        prompt_depth=DepthCost((0.0, 100.0), (0.0, 1e-7)),
        token_depth=DepthCost((0.0, 100.0, 1000.0), (0.0, 1e-6, 1e-5)),
    )
    device = replace(find_device("agx-orin-64gb@MAXN"), layers={"Q8_0": rates})
    found = predict(device, subject, QUESTION, Choice("fp32", "Q8_0"))
    positions = 8 * 6 + 8 + 160
    llm = subject.geometry.llm
    layers, fed = llm.layers, 3 * llm.width * llm.ffn
    # of the last layer, the feed-forward part computes one row
    attention = 2 * llm.width * (llm.width + llm.kv_heads * llm.head_width)
    prompt = positions * ((layers - fed / (fed + attention)) * 1e-5 + layers * 1e-9 * positions / 2) * 1e3
    assert found.milliseconds["prefill"].low < prompt * 1.05
    assert found.milliseconds["prefill"].high > prompt
    answer = 31 * layers * (1e-4 + 1e-8 * (positions + 15.5)) * 1e3
    assert Range(0.9 * answer, 1.3 * answer).low < found.milliseconds["decode"].high < 1.3 * answer


def test_what_depth_costs_bends_at_the_depths_that_were_timed() -> None:
    cost = DepthCost((0.0, 256.0, 2304.0, 6400.0), (0.0, 1.0, 2.0, 8.0))
    depths = np.array([0, 128, 256, 1280, 2304, 4352, 6400, 10496])
    assert cost.at(depths).tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 5, 8, 14])
