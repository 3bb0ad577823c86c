import logging
from pathlib import Path

import pytest
from stllm_edge.runtime import BadBundle
from stllm_edge.runtime.llm import packing
from stllm_edge.runtime.llm.packing import Rates, measure, pays_to_pack

LONG = {"layers": 28, "positions": 7000, "threads": 1}
SLOW, FAST = Rates(1000, 20), Rates(1500, 19)


@pytest.fixture
def file(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model, nothing remembered, and plenty of memory."""
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packing, "available", lambda: 2**34)
    return tiny_bundle / "llm" / "Q4_K_M.gguf"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads of each measurement, which finds that the packed copy is faster."""
    calls: list[int] = []

    def find(path: Path, threads: int) -> tuple[Rates, Rates]:
        calls.append(threads)
        return SLOW, FAST

    monkeypatch.setattr(packing, "measure", find)
    return calls


def decide(monkeypatch: pytest.MonkeyPatch, file: Path, mapped: Rates, packed: Rates) -> bool:
    monkeypatch.setattr(packing, "measure", lambda *_: (mapped, packed))
    return pays_to_pack(file, **LONG)


@pytest.mark.parametrize(
    ("mapped", "packed", "pays"),
    [
        (SLOW, FAST, True),
        (FAST, SLOW, False),
        (SLOW, SLOW, False),
        # a prompt of thousands of positions weighs more than an answer of some tens
        (Rates(1240, 20), Rates(760, 21), False),
        # a gain that memory and loading would eat up
        (Rates(1000, 20), Rates(1020, 20), False),
    ],
)
def test_the_faster_for_a_long_prompt_is_taken(monkeypatch, file, mapped: Rates, packed: Rates, pays: bool) -> None:
    assert decide(monkeypatch, file, mapped, packed) is pays


def test_the_choice_and_both_rates_are_said(file, measured, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        pays_to_pack(file, **LONG)
        pays_to_pack(file, **LONG)
    said = "weights are packed: a layer reads 1000 and writes 20 positions a second from them as they are mapped, 1500"
    first, again = caplog.messages
    assert first == f"{said} and 19 from a packed copy (measured now, and remembered)"
    assert again == f"{said} and 19 from a packed copy (measured before)"


def test_a_layer_is_measured_once(file, measured) -> None:
    assert [pays_to_pack(file, **LONG) for _ in range(3)] == [True] * 3
    assert measured == [1]


def test_what_is_known_serves_short_prompts_too(file, measured) -> None:
    assert pays_to_pack(file, **LONG)
    assert pays_to_pack(file, **{**LONG, "positions": 100})


def test_another_number_of_threads_model_or_libllama_is_measured_anew(file, measured, monkeypatch) -> None:
    pays_to_pack(file, **LONG)
    pays_to_pack(file, **{**LONG, "threads": 2})
    pays_to_pack(file.with_name("Q8_0.gguf"), **LONG)
    assert measured == [1, 2, 1]
    monkeypatch.setattr("llama_cpp.llama_print_system_info", lambda: b"CPU : SVE = 1")
    pays_to_pack(file, **LONG)
    assert measured == [1, 2, 1, 1]


@pytest.mark.parametrize("layers_and_positions", [(2, 300), (28, 300), (0, 7000), (-4, 7000)])
def test_what_is_read_at_once_is_not_measured(file, measured, caplog, layers_and_positions: tuple[int, int]) -> None:
    layers, positions = layers_and_positions
    with caplog.at_level(logging.INFO):
        assert not pays_to_pack(file, layers=layers, positions=positions, threads=1)
    assert caplog.messages == [
        "weights are used as they are mapped: the prompt is too short for a packed copy to matter"
    ]
    assert measured == []


def test_without_memory_for_a_copy_nothing_is_measured(file, measured, monkeypatch, caplog) -> None:
    monkeypatch.setattr(packing, "available", lambda: int(2.4 * file.stat().st_size))
    with caplog.at_level(logging.INFO):
        assert not pays_to_pack(file, **LONG)
    assert caplog.messages == ["weights are used as they are mapped: there is no memory for a packed copy"]
    monkeypatch.setattr(packing, "available", lambda: int(2.6 * file.stat().st_size))
    assert pays_to_pack(file, **LONG)
    assert measured == [1]


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "{", "null", '{"%s": [[1, 2]]}', '{"%s": [[1, 2], [3, "x"]]}', '{"%s": [[1, 2], [0, 3]]}', "\udcff"],
)
def test_a_damaged_memory_is_replaced(file, measured, tmp_path, damage: str) -> None:
    pays_to_pack(file, **LONG)
    (memory,) = (tmp_path / "cache").iterdir()
    (key,) = packing.json.loads(memory.read_text())
    memory.write_bytes(damage.replace("%s", key).encode(errors="surrogateescape"))
    assert [pays_to_pack(file, **LONG) for _ in range(2)] == [True] * 2
    assert measured == [1, 1]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["packing.json"]


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_it_is_measured_each_time(file, measured, monkeypatch, caplog) -> None:
    monkeypatch.delenv("STLLM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.INFO):
        assert [pays_to_pack(file, **LONG) for _ in range(2)] == [True] * 2
    assert measured == [1, 1]
    assert "rates are not remembered: Could not determine home directory." in caplog.messages


@pytest.mark.parametrize("error", [BadBundle("no layers"), OSError("no memory files")])
def test_what_cannot_be_timed_is_used_as_it_is(file, monkeypatch, caplog, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(packing, "measure", fail)
    with caplog.at_level(logging.INFO):
        assert not pays_to_pack(file, **LONG)
    assert caplog.messages == [f"weights are used as they are mapped: a packed copy could not be timed ({error})"]


def test_a_measurement_gives_rates_both_ways(file, monkeypatch) -> None:
    monkeypatch.setattr(packing, "SECONDS", 0)
    for rates in measure(file, 1):
        assert rates.decode > 1
        assert rates.prefill > rates.decode
