"""stllm-bench rea run --scheduler, with the processes of a real Dask cluster on this machine."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.rea import scheduler
from stllm_edge.benchmarks.rea.results import read_results
from stllm_edge.benchmarks.rea.run import run_subset
from stllm_edge.runtime import BadInput, Options, StllmError

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

CHOICES: dict[str, Any] = {
    "options": Options(precision="fp32", quant="Q8_0", threads=1, resident=True),
    "frames": 2,
    "max_new_tokens": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes that are started again when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0", memory_limit=None
    ) as started:
        yield started


@pytest.fixture(scope="module")
def alone(tiny_bundle: Path, pristine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What this process answers."""
    run = run_subset(tiny_bundle, pristine.open(), tmp_path_factory.mktemp("alone"), **CHOICES)
    return {record["id"]: record["pred"] for record in run.records}


def test_workers_answer_what_one_process_answers(cluster, tiny_bundle, rea, tmp_path, alone) -> None:
    rea.frame("P01_11", 3).unlink()
    address = cluster.scheduler_address
    run = run_subset(tiny_bundle, rea.open(), tmp_path / "out", scheduler=address, **CHOICES)
    assert {sample.id.rpartition("-")[0] for sample in run.broken} == {"P01_11-1"}
    assert len(run.records) == 6
    assert {record["id"]: record["pred"] for record in run.records}.items() <= alone.items()


def test_a_killed_worker_loses_nothing(cluster, tiny_bundle, pristine, tmp_path, alone) -> None:
    """The first answer that is stored costs a worker its life, while both have tasks."""
    killed: list[int] = []

    def kill(samples: int) -> None:
        if samples and not killed:
            with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
                killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    run = run_subset(
        tiny_bundle, pristine.open(), tmp_path, scheduler=cluster.scheduler_address, advance=kill, **CHOICES
    )
    assert killed
    assert {record["id"]: record["pred"] for record in run.records} == alone
    stored = [record["id"] for record in read_results(tmp_path / "results.jsonl")[1]]
    assert sorted(stored) == sorted(alone)


def test_a_worker_with_another_bundle_is_refused(cluster, tiny_bundle, pristine, tmp_path, monkeypatch) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    distribute = scheduler.distribute

    def replaced(*arguments: Any) -> Any:
        manifest = (bundle / "manifest.json").read_text()
        (bundle / "manifest.json").write_text(manifest.replace('"frames": 32', '"frames": 16'))
        return distribute(*arguments)

    monkeypatch.setattr(scheduler, "distribute", replaced)
    with pytest.raises(StllmError, match="this worker's bundle differs; copy the same bundle to every machine"):
        run_subset(bundle, pristine.open(), tmp_path / "out", scheduler=cluster.scheduler_address, **CHOICES)


def test_addresses_that_no_scheduler_has(tiny_bundle, pristine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", "1s")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(BadInput, match=f"--scheduler {address}: no Dask scheduler answers"):
            run_subset(tiny_bundle, pristine.open(), tmp_path, scheduler=address, **CHOICES)


def test_a_scheduler_without_workers(tiny_bundle, pristine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", "1s")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        with pytest.raises(BadInput, match=f"it has no workers; start some: dask worker {address}"):
            run_subset(tiny_bundle, pristine.open(), tmp_path, scheduler=address, **CHOICES)
