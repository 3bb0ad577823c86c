"""What a question is said to need, before anything is loaded."""

from dataclasses import replace

import pytest
from stllm_edge.runtime import Bundle, DoesNotFit, plan
from stllm_edge.runtime.plan import PROCESS, Plan, require_memory


@pytest.fixture
def one(tiny_bundle) -> Plan:
    return Plan(Bundle(tiny_bundle), "fp32", "F32", "cpu", "f16", frames=32, voxels=30_000, new_tokens=256)


def test_stages_that_stay_loaded_add_up(one) -> None:
    together = replace(one, resident=True)
    apart = [peak - PROCESS for peak in one.stages().values()]
    assert one.peak() == PROCESS + max(apart)
    assert together.peak() == PROCESS + sum(apart)


def test_memory_that_is_held_counts_as_free(one, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available", lambda: one.peak() - 1000)
    with pytest.raises(DoesNotFit, match=r"the question needs vision .* would fit"):
        require_memory(one)
    require_memory(one, held=1000)


def test_what_does_not_fit_together_may_fit_apart(one, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available", one.peak)
    with pytest.raises(DoesNotFit, match=r"MB together; .* MB are free; --no-resident or "):
        require_memory(replace(one, resident=True))
