from pathlib import Path

from stllm_edge.benchmarks.latency.process.prefill import compare, compare_calls, compare_loops


def test_both_sides_read_the_prompt_in_turns(tiny_bundle: Path) -> None:
    found = compare(tiny_bundle, "Q4_K_M", 32, 2)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert len(found["pairs"]) == 2
    assert found["ours"]["micro_batch"] == 512


def test_calls_of_two_sizes_take_turns(tiny_bundle: Path) -> None:
    found = compare_calls(tiny_bundle, "Q4_K_M", 40, 2, 2048)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert len(found["pairs"]) == 2


def test_the_bare_loop_has_the_same_settings(tiny_bundle: Path) -> None:
    found = compare_loops(tiny_bundle, "Q4_K_M", 40, 2, 3)
    assert all(found[stage]["low"] <= found[stage]["value"] <= found[stage]["high"] for stage in ("prefill", "decode"))
    assert [len(row) for row in found["pairs"]] == [4, 4]
