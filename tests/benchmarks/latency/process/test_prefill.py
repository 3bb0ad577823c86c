from pathlib import Path

from stllm_edge.benchmarks.latency.process.prefill import compare


def test_both_sides_read_the_prompt_in_turns(tiny_bundle: Path) -> None:
    found = compare(tiny_bundle, "Q4_K_M", 32, 2)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert len(found["pairs"]) == 2
    assert found["ours"]["micro_batch"] == 512
