"""Encoders of a session: prepared, loaded, used and ended, or kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.encoders import pool as module
from stllm_edge.runtime.encoders.child import ChildEncoder
from stllm_edge.runtime.encoders.local import CPU_PROVIDER
from stllm_edge.runtime.encoders.pool import EncoderPool
from stllm_edge.runtime.memory.counters import Usage
from stllm_edge.runtime.memory.holdings import Holdings

FRAMES = np.zeros((1, 3, 56, 56), np.float32)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with processes, in order."""
    told: list[str] = []

    class Watched(ChildEncoder):
        def __init__(self, path: Path, *choice: Any):
            self.name = path.name
            told.append(f"prepared {self.name}")
            super().__init__(path, *choice)

        def load(self) -> None:
            told.append(f"loaded {self.name}")
            super().load()

        def close(self) -> None:
            told.append(f"closed {self.name}")
            super().close()

    monkeypatch.setattr(module, "ChildEncoder", Watched)
    return told


def pool_of(bundle: Path, *, resident: bool) -> EncoderPool:
    files = {name: bundle / f"onnx/{name}.onnx" for name in ("vision", "points")}
    return EncoderPool(files, threads=1, providers=(CPU_PROVIDER,), resident=resident, holdings=Holdings())


@pytest.fixture(params=[False, True], ids=["apart", "resident"])
def pool(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[EncoderPool]:
    made = pool_of(tiny_bundle, resident=request.param)
    yield made
    made.close()


def run(pool: EncoderPool) -> np.ndarray:
    with pool.use("vision", lambda usage: None) as encode:
        return np.asarray(encode(frames=FRAMES))


def test_results_do_not_depend_on_when_an_encoder_is_prepared(pool: EncoderPool) -> None:
    at_once = run(pool)
    pool.prepare("vision", "points")
    pool.load("vision")
    assert np.array_equal(run(pool), at_once)


def test_a_closed_pool_is_used_again(pool: EncoderPool) -> None:
    before = run(pool)
    pool.close()
    assert np.array_equal(run(pool), before)


def test_a_process_is_prepared_once_loaded_when_told_and_ends_after_its_use(tiny_bundle, started: list[str]) -> None:
    pool = pool_of(tiny_bundle, resident=False)
    pool.prepare("vision", "points")
    pool.prepare("vision")
    assert started == ["prepared vision.onnx", "prepared points.onnx"]
    pool.load("vision")
    run(pool)
    assert started[2] == "loaded vision.onnx"
    assert started[-1] == "closed vision.onnx"
    pool.close()
    assert started[-1] == "closed points.onnx"
    assert "loaded points.onnx" not in started


def test_what_a_process_used_is_counted_when_its_work_is_done(tiny_bundle) -> None:
    used: list[Usage] = []
    with pool_of(tiny_bundle, resident=False).use("vision", used.append) as encode:
        encode(frames=FRAMES)
        assert not used
    (usage,) = used
    assert usage.peak > 10**7


@pytest.mark.parametrize("resident", [False, True])
def test_the_load_of_an_encoder_is_waited_for_once(tiny_bundle, resident: bool) -> None:
    pool, waits = pool_of(tiny_bundle, resident=resident), []

    @contextmanager
    def loading() -> Iterator[None]:
        waits.append("begun")
        yield
        waits.append("done")

    with pool.use("vision", lambda usage: None, loading) as encode:
        encode(frames=FRAMES)
        encode(frames=FRAMES)
    assert waits == ["begun", "done"]
    pool.close()


def test_a_resident_pool_starts_no_process(tiny_bundle, started: list[str]) -> None:
    pool = pool_of(tiny_bundle, resident=True)
    pool.prepare("vision")
    pool.load("vision")
    run(pool)
    pool.close()
    assert started == []
