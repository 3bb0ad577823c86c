import subprocess
import sys

import pytest
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.llm.kv_types import KV_TYPES, check_kv


@pytest.mark.parametrize("flash_attention", [True, None])
@pytest.mark.parametrize("kv", KV_TYPES)
def test_known_types(kv: str, flash_attention: bool | None) -> None:
    check_kv(kv, flash_attention)


def test_unknown_types_are_named_with_the_known() -> None:
    with pytest.raises(BadInput, match="--kv q4_0: unknown; known are f32, f16, q8_0"):
        check_kv("q4_0", None)


def test_quantised_keys_need_flash_attention() -> None:
    with pytest.raises(BadInput, match="--kv q8_0 needs flash attention"):
        check_kv("q8_0", False)


def test_checking_a_choice_loads_nothing_heavy() -> None:
    program = "import sys, stllm_edge.runtime.llm.kv_types; print(*sorted({'numpy', 'llama_cpp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "\n"
