"""Samples answered by the workers of a Dask scheduler; this process alone stores what they answer.

A clip is one task. When a worker dies, the scheduler gives its tasks to others; a clip whose workers keep dying is
broken. Every worker opens its own copy of the bundle, under the same path, once.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import BadBundle, BadInput, MissingDependency, StllmError
from ...runtime.options import Options
from ...runtime.session import Session
from .answering import Request, answer_clip
from .dataset import Broken, Sample
from .results import Record

__all__ = ["distribute", "require_scheduler"]

PATIENCE = "15s"
# submitted tasks for each thread of the workers: enough to keep them busy, few enough that a death suspects few
AHEAD = 2
STORED = "the answers so far are stored; run again to continue"

# of a worker's process: its threads share one session, and take turns
_OPENED: dict[tuple[Path, str | None, Options], Session] = {}
_TURN = threading.Lock()


def distribute(address: str, groups: Sequence[list[Sample]], request: Request) -> Iterator[Record | Broken]:
    """Answer groups of samples, each about one clip, on the workers of a scheduler; answers come in any order.

    Raises:
        MissingDependency: Dask is not installed.
        BadInput: no scheduler answers at the address, or it has no workers.
        StllmError: a worker cannot open the bundle, or the scheduler is gone.
    """
    distributed = dask_distributed()
    with connect(distributed, address) as client:
        try:
            yield from collect_all(distributed, client, groups, request)
        except OSError as error:
            raise StllmError(f"--scheduler {address}: gone ({type(error).__name__}); {STORED}") from None


def require_scheduler(address: str) -> None:
    """Raise BadInput unless a scheduler with a worker answers, MissingDependency when Dask is not installed."""
    with connect(dask_distributed(), address):
        pass


def collect_all(
    distributed: Any, client: Any, groups: Sequence[list[Sample]], request: Request
) -> Iterator[Record | Broken]:
    """Keep a few tasks submitted and yield their outcomes."""
    waiting = iter(groups)
    tasks = {submit(client, group, request): group for group in itertools.islice(waiting, window(client))}
    finished = distributed.as_completed(list(tasks), loop=client.loop)
    for task in finished:
        yield from collect(distributed, task, tasks.pop(task))
        for group in itertools.islice(waiting, max(0, window(client) - len(tasks))):
            added = submit(client, group, request)
            tasks[added] = group
            finished.add(added)


def submit(client: Any, group: list[Sample], request: Request) -> Any:
    # pure tasks would be answered from an earlier one with the same arguments
    return client.submit(answer_here, group, request, pure=False)


def answer_here(samples: list[Sample], request: Request) -> list[Record | Broken]:
    """What a worker does: answer with the session that it opened for its first task."""
    with _TURN:
        return list(answer_clip(opened(request), samples, request))


def opened(request: Request) -> Session:
    """The session of this process for a request; raises BadBundle when the bundle here is another one."""
    choice = (request.bundle, request.digest, request.options)
    if choice not in _OPENED:
        for session in _OPENED.values():
            session.close()
        _OPENED.clear()
        session = Session(request.bundle, request.options)
        if session.digest != request.digest:
            raise BadBundle(f"{request.bundle}: this worker's bundle differs; copy the same bundle to every machine")
        _OPENED[choice] = session
    return _OPENED[choice]


def collect(distributed: Any, task: Any, group: list[Sample]) -> list[Record | Broken]:
    """The outcome of a task."""
    try:
        return task.result()
    except distributed.KilledWorker:
        reason = "its workers died one after the other, most likely because memory ran out; fewer --frames need less"
        return [Broken(sample.id, reason) for sample in group]
    except StllmError:
        raise
    except Exception as error:  # whatever a worker's installation raises
        reason = f"{type(error).__name__}: {error}"
        raise StllmError(f"--scheduler: a task failed ({reason}); {STORED}") from None


def window(client: Any) -> int:
    """How many tasks to have submitted."""
    return AHEAD * max(1, sum(client.nthreads().values()))


@contextmanager
def connect(distributed: Any, address: str) -> Iterator[Any]:
    """A client whose scheduler has a worker; raises BadInput when there is none."""
    # a client that is given no address leaves a trace of its own when it is taken down
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        parse_host_port(parse_address(address)[1])
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"--scheduler {address}: no Dask scheduler answers ({type(error).__name__})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise BadInput(f"--scheduler {address}: it has no workers; start some: dask worker {address}") from None
        yield client


def dask_distributed() -> Any:
    """The distributed module; raises MissingDependency with the extra that brings it."""
    try:
        import distributed
    except ImportError as error:
        raise MissingDependency(f"Dask is not installed ({error}); pip install 'stllm-edge[scale]'") from None
    return distributed
