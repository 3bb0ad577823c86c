import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadBundle, StllmError
from stllm_edge.runtime.llm.libllama import Flag
from stllm_edge.runtime.llm.pace import choose as module
from stllm_edge.runtime.llm.pace.bench import Pace, Rates
from stllm_edge.runtime.llm.pace.choose import Asked, Subject, choose

SLOW, FAST = Rates(1000, 20), Rates(1500, 19)
OPEN = Asked()
PLAIN = Pace(False, 1, 512, None)


@pytest.fixture
def subject(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A language model of many layers before a long prompt, nothing remembered, and plenty of memory."""
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "available", lambda: 2**34)
    monkeypatch.setattr(module, "thread_counts", lambda cores: (cores,))
    file = tiny_bundle / "llm" / "Q4_K_M.gguf"
    return Subject(file, "a digest", 28, False, "f16", 7000, 10.0, 10.0)


class Rated:
    """Stands in for `Bench`: rates that a function gives, and the paces that were asked about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: Any):
        self.asked: list[Pace] = []
        self._rate = rate
        monkeypatch.setattr(module, "Bench", lambda *_: self)

    def __enter__(self) -> "Rated":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def rates(self, paces: Sequence[Pace], **how: object) -> list[Rates]:
        self.asked += paces
        return [self._rate(pace) for pace in paces]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Rated:
    """Finds that packed weights are faster, and nothing else is."""
    return Rated(monkeypatch, lambda pace: FAST if pace.packed else SLOW)


def pace_of(subject: Subject, asked: Asked = OPEN, cores: int = 1) -> Pace:
    return choose(subject, asked, cores, Flag()).pace


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
def test_the_faster_for_a_long_prompt_is_taken(monkeypatch, subject, mapped: Rates, packed: Rates, pays: bool) -> None:
    Rated(monkeypatch, lambda pace: packed if pace.packed else mapped)
    assert pace_of(subject).packed is pays


# without flash attention, memory grows with the square of the prompt: a gain of a tenth is not worth that
@pytest.mark.parametrize(("unfused", "flash"), [(1.3, False), (1.1, None)])
def test_each_choice_is_made_with_those_before_it(monkeypatch, subject, unfused: float, flash: bool | None) -> None:
    monkeypatch.setattr(module, "thread_counts", lambda cores: (1, cores))

    def rate(pace: Pace) -> Rates:
        gain = 2**pace.packed * 1.5 ** (pace.threads == 2) * 1.2 ** (pace.micro_batch == 256)
        return Rates(1000 * gain * unfused ** (pace.flash_attention is False), 2000)

    rated = Rated(monkeypatch, rate)
    assert pace_of(subject, cores=2) == Pace(True, 2, 256, flash)
    assert rated.asked == [
        *(Pace(packed, 2, 256, None) for packed in (False, True)),
        *(Pace(True, threads, 256, None) for threads in (1, 2)),
        *(Pace(True, 2, size, None) for size in (128, 256, 512)),
        *(Pace(True, 2, 256, flash) for flash in (None, False)),
    ]


def test_what_takes_less_is_kept_without_a_gain(monkeypatch, subject) -> None:
    Rated(monkeypatch, lambda pace: Rates(1000 + pace.micro_batch / 100, 20))
    assert pace_of(subject) == Pace(False, 1, 128, None)


def test_what_a_user_decides_is_not_measured(subject, bench) -> None:
    asked = Asked(packed=False, threads=3, micro_batch=2048, flash_attention=True)
    assert pace_of(subject, asked) == Pace(False, 3, 2048, True)
    assert not bench.asked
    assert pace_of(subject, replace(asked, micro_batch=None)).micro_batch == 128
    assert {(pace.packed, pace.threads, pace.flash_attention) for pace in bench.asked} == {(False, 3, True)}


def test_nothing_is_measured_where_that_is_switched_off(subject, bench) -> None:
    assert pace_of(subject, Asked(measure=False)) == PLAIN
    assert not bench.asked


def test_choice_rates_and_source_are_said(subject, bench, caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(micro_batch=64, flash_attention=True)
    with caplog.at_level(logging.INFO):
        choose(subject, asked, 1, Flag())
        told = choose(subject, asked, 1, Flag()).to_json()
    first, again = caplog.messages
    said = "language model: weights packed, 1 threads, micro-batches of 64, flash attention on: measured "
    assert first.startswith(f"{said}now in ")
    steps = "positions that a layer reads/writes a second: packed False 1000/20, True 1500/19"
    assert first.endswith(f" s, and remembered; {steps}")
    assert again == f"{said}before; {steps}"
    assert told == {
        "packed": True,
        "threads": 1,
        "micro_batch": 64,
        "flash_attention": True,
        "chosen": "measured before",
        "rates": {"packed": [[False, 1000.0, 20.0], [True, 1500.0, 19.0]]},
    }


def test_it_is_measured_once(subject, bench) -> None:
    first = pace_of(subject)
    count = len(bench.asked)
    assert pace_of(subject) == pace_of(replace(subject, positions=100)) == first
    assert len(bench.asked) == count


def test_other_threads_model_kv_or_libllama_are_measured_anew(subject, bench, monkeypatch) -> None:
    def measured_anew(*arguments: Any) -> bool:
        before = len(bench.asked)
        pace_of(*arguments)
        return len(bench.asked) > before

    assert measured_anew(subject)
    assert measured_anew(subject, Asked(threads=2))
    assert measured_anew(replace(subject, digest="another"))
    assert measured_anew(replace(subject, kv="f32"))
    assert not measured_anew(subject)
    monkeypatch.setattr("llama_cpp.llama_print_system_info", lambda: b"CPU : SVE = 1")
    assert measured_anew(subject)


@pytest.mark.parametrize(("layers", "positions"), [(2, 7000), (28, 300)])
def test_what_is_read_at_once_is_not_measured(subject, bench, caplog, layers: int, positions: int) -> None:
    with caplog.at_level(logging.INFO):
        assert pace_of(replace(subject, layers=layers, positions=positions)) == PLAIN
    assert caplog.messages[0].endswith(": by default, since the prompt is too short for a measurement to pay")
    assert not bench.asked


def test_on_a_gpu_only_the_layers_left_on_the_cpu_are_measured(subject, bench) -> None:
    assert pace_of(replace(subject, layers=0, on_gpu=True)) == PLAIN
    assert not bench.asked
    assert pace_of(replace(subject, on_gpu=True)).packed
    assert {pace.micro_batch for pace in bench.asked} == {256}


def test_candidates_without_room_are_left_out(subject, bench, monkeypatch) -> None:
    size = subject.file.stat().st_size
    monkeypatch.setattr(module, "available", lambda: int(2.4 * size))
    tight = replace(subject, row_bytes=2.4 * size / 300)
    assert pace_of(tight) == Pace(False, 1, 128, None)
    assert [pace.micro_batch for pace in bench.asked] == [128, 256]
    bench.asked.clear()
    assert pace_of(replace(subject, row_bytes=size)) == Pace(False, 1, 128, None)
    assert not bench.asked


@pytest.mark.parametrize("damage", ["", "[]", "{", "null", '{"%s": {"packed": [[1, 2]]}}', '{"%s": [1]}', "\udcff"])
def test_a_damaged_memory_is_replaced(subject, bench, tmp_path, damage: str) -> None:
    asked = Asked(micro_batch=64, flash_attention=True)
    pace_of(subject, asked)
    (memory,) = (tmp_path / "cache").iterdir()
    (key,) = json.loads(memory.read_text())
    memory.write_bytes(damage.replace("%s", key).encode(errors="surrogateescape"))
    assert [pace_of(subject, asked).packed for _ in range(2)] == [True] * 2
    assert len(bench.asked) == 4
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["pace.json"]


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_it_is_measured_each_time(subject, bench, monkeypatch, caplog) -> None:
    monkeypatch.delenv("STLLM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.INFO):
        assert [pace_of(subject, Asked(micro_batch=64, flash_attention=True)).packed for _ in range(2)] == [True] * 2
    assert len(bench.asked) == 4
    assert "rates are not remembered: Could not determine home directory." in caplog.messages


@pytest.mark.parametrize("error", [BadBundle("no layers"), OSError("no memory files")])
def test_what_cannot_be_timed_is_run_as_by_default(subject, monkeypatch, caplog, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "Bench", fail)
    with caplog.at_level(logging.INFO):
        assert pace_of(subject) == PLAIN
    assert caplog.messages[0].endswith(f": by default, since a layer could not be timed ({error})")


def test_no_choice_is_begun_once_the_time_is_over(subject, bench, monkeypatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.0)
    assert pace_of(subject) == Pace(True, 1, 512, None)
    assert {pace.micro_batch for pace in bench.asked} == {256}


def test_a_measurement_can_be_ended(subject, tmp_path) -> None:
    flag = Flag()
    flag.set()
    with pytest.raises(StllmError):
        choose(subject, OPEN, 1, flag)
    assert not (tmp_path / "cache").exists()
