from pathlib import Path

import pytest
from stllm_edge.runtime import StllmError
from stllm_edge.runtime.llm.libllama import Flag
from stllm_edge.runtime.llm.pace.bench import Bench, Pace

PACES = [
    Pace(packed, 1, size, flash) for packed, size, flash in [(False, 128, None), (True, 256, None), (False, 512, False)]
]


@pytest.mark.parametrize("depth", [0, 700])
def test_a_layer_is_timed_in_every_way(tiny_bundle: Path, depth: int) -> None:
    with Bench(tiny_bundle / "llm" / "Q4_K_M.gguf", "f16", Flag()) as bench:
        for rates in bench.rates(PACES, depth=depth, rounds=1, seconds=0):
            assert 0 < rates.decode < 10**7
            assert 0 < rates.prefill < 10**8
            assert rates.seconds > 0


def test_a_flag_ends_it(tiny_bundle: Path) -> None:
    flag = Flag()
    with Bench(tiny_bundle / "llm" / "Q4_K_M.gguf", "f16", flag) as bench:
        flag.set()
        with pytest.raises(StllmError):
            bench.rates(PACES[:1], depth=0, rounds=1, seconds=0)
