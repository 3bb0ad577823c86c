"""stllm-bench rea run --scheduler, with the processes of a real Dask cluster on this machine."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.rea import scheduler
from stllm_edge.benchmarks.rea.answering import Request
from stllm_edge.benchmarks.rea.results import read_results
from stllm_edge.benchmarks.rea.run import Task, run_subset
from stllm_edge.runtime import BadInput, Options, StllmError

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

OPTIONS = Options(precision="fp32", quant="Q8_0", threads=1, resident=True)


def task(bundle: Path, scheduler: str | None = None) -> Task:
    """All questions, answered by a scheduler's workers or by this process."""
    return Task(Request(bundle, OPTIONS, frames=2, max_new_tokens=3), scheduler=scheduler)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes that are started again when they die."""
    # how long the dead one's results are asked for before they are computed again
    with dask.config.set({"distributed.comm.timeouts.connect": "3s"}), local_cluster(n_workers=2) as started:
        yield started


def local_cluster(n_workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=2, processes=True, dashboard_address=":0", memory_limit=None
    )


@pytest.fixture(scope="module")
def alone(tiny_bundle: Path, pristine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What this process answers."""
    run = run_subset(task(tiny_bundle), pristine.open(), tmp_path_factory.mktemp("alone"))
    return {record["id"]: record["pred"] for record in run.records}


def test_workers_answer_what_one_process_answers(cluster, tiny_bundle, rea, tmp_path, alone) -> None:
    rea.frame("P01_11", 3).unlink()
    address = cluster.scheduler_address
    run = run_subset(task(tiny_bundle, address), rea.open(), tmp_path / "out")
    assert {sample.id.rpartition("-")[0] for sample in run.broken} == {"P01_11-1"}
    assert len(run.records) == 6
    assert {record["id"]: record["pred"] for record in run.records}.items() <= alone.items()


def test_killed_workers_lose_nothing(cluster, tiny_bundle, pristine, tmp_path, alone) -> None:
    """Once an answer is stored, all workers die, and with them every other clip that they had or had done."""
    killed: list[int] = []

    def kill(samples: int) -> None:
        if samples and not killed:
            with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
                killed.extend(client.run(os.getpid).values())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    run = run_subset(task(tiny_bundle, cluster.scheduler_address), pristine.open(), tmp_path, advance=kill)
    assert len(killed) == 2
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
        run_subset(task(bundle, cluster.scheduler_address), pristine.open(), tmp_path / "out")


def test_addresses_that_no_scheduler_has(tiny_bundle, pristine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", "1s")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(BadInput, match=f"--scheduler {address}: no Dask scheduler answers"):
            run_subset(task(tiny_bundle, address), pristine.open(), tmp_path)


def test_a_scheduler_without_workers(tiny_bundle, pristine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", "1s")
    with local_cluster(n_workers=0) as empty:
        address = empty.scheduler_address
        with pytest.raises(BadInput, match=f"it has no workers; start some: dask worker {address}"):
            run_subset(task(tiny_bundle, address), pristine.open(), tmp_path)


def test_a_scheduler_that_goes_away_leaves_what_was_answered(
    tiny_bundle, pristine, tmp_path, alone, monkeypatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", "5s")
    with local_cluster(n_workers=1) as leaving:

        def leave(samples: int) -> None:
            if samples:
                leaving.close()

        with pytest.raises(StllmError, match=r"--scheduler tcp:.* gone .*the answers so far are stored; run again"):
            run_subset(task(tiny_bundle, leaving.scheduler_address), pristine.open(), tmp_path, advance=leave)
    stored = {record["id"]: record["pred"] for record in read_results(tmp_path / "results.jsonl")[1]}
    assert stored
    assert stored.items() <= alone.items()
    run = run_subset(task(tiny_bundle), pristine.open(), tmp_path)
    assert {record["id"]: record["pred"] for record in run.records} == alone
