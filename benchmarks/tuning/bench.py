"""Configurations asked on this machine: a clip is looked at once for all that share encoders and frames.

Sessions stay loaded side by side as far as memory allows, and take turns on each clip, so that all of them see the same
weather. Memory is that of one question in a process of its own, as `stllm-run` answers it.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...runtime.answer import View
from ...runtime.errors import BadInput, DoesNotFit, StllmError
from ...runtime.memory.counters import highest_peak
from ...runtime.memory.plan import require_memory
from ...runtime.options import Options
from ...runtime.session import Session
from ..rea.dataset import Sample
from .candidates import Candidate
from .search import Skipped, Unfit

__all__ = ["Answered", "Bench", "peak_of"]

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
Key = tuple[str, str, str, str, float | None]


@dataclass(frozen=True)
class Answered:
    """An answer's text, seconds to its first piece, and seconds to its end, looking at the clip included."""

    text: str
    first: float
    whole: float


class Bench:
    """Sessions of candidates, loaded when they are needed; a context manager that frees them at its end."""

    def __init__(self, base: Options, max_new_tokens: int):
        """Load nothing yet; `base` holds the options that all candidates share."""
        self.base, self.max_new_tokens = base, max_new_tokens
        self._sessions: dict[Key, Session] = {}
        self._warm: set[Key] = set()
        self._apart: set[Key] = set()
        self._forward = False

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free all that is loaded."""
        while self._sessions:
            self._sessions.popitem()[1].close()
        self._warm.clear()

    def ask(
        self, wanted: Mapping[Candidate, Sequence[Sample]]
    ) -> Iterator[tuple[Candidate, Sample, Answered | Skipped | Unfit]]:
        """Ask candidates samples about one and the same scene and clip.

        Those that share encoders and frames share the looking, whose time counts for each of them; the order in which
        they answer is turned around from clip to clip.
        """
        groups: dict[tuple[str, str, int], list[Candidate]] = {}
        for candidate in wanted:
            groups.setdefault(looking(candidate), []).append(candidate)
        self._forward = not self._forward
        for sharing in groups.values() if self._forward else reversed(groups.values()):
            yield from self._ask_sharing({candidate: wanted[candidate] for candidate in sharing})

    def _ask_sharing(
        self, wanted: Mapping[Candidate, Sequence[Sample]]
    ) -> Iterator[tuple[Candidate, Sample, Answered | Skipped | Unfit]]:
        """Ask candidates of the same encoders and frames."""
        left = dict(wanted)
        for candidate, samples in wanted.items():
            look = partial(self._look, candidate=candidate, sample=samples[0])
            try:
                view, looked = self._fitting(candidate, look)
            except DoesNotFit as error:
                # the next one may be smaller
                yield candidate, samples[0], Unfit(str(error))
                del left[candidate]
                continue
            except (BadInput, OSError) as error:
                yield from ((one, sample, Skipped(str(error))) for one, several in left.items() for sample in several)
                return
            for one in left if self._forward else reversed(left):
                yield from self._answer_all(one, view, looked, left[one])
            return

    def _answer_all(
        self, candidate: Candidate, view: View, looked: float, samples: Sequence[Sample]
    ) -> Iterator[tuple[Candidate, Sample, Answered | Skipped | Unfit]]:
        for sample in samples:
            try:
                answered = self._fitting(
                    candidate, partial(self._answer, candidate=candidate, view=view, sample=sample)
                )
            except DoesNotFit as error:
                yield candidate, sample, Unfit(str(error))
                return
            except BadInput as error:
                yield candidate, sample, Skipped(str(error))
            else:
                yield candidate, sample, replace(answered, first=answered.first + looked, whole=answered.whole + looked)

    def _look(self, session: Session, candidate: Candidate, sample: Sample) -> tuple[View, float]:
        """A view, and the seconds from files to it; a session that was just opened looks twice."""
        for _ in range(1 if key_of(candidate) in self._warm else 2):
            start = time.perf_counter()
            scene, clip = sample.load()
            view = session.look(scene, clip, frames=candidate.frames, max_new_tokens=self.max_new_tokens)
            spent = time.perf_counter() - start
        # it outlives the session that looked, which the next one may take the place of
        return replace(view, points=view.pcd_features), spent

    def _answer(self, session: Session, candidate: Candidate, view: View, sample: Sample) -> Answered:
        plan = session.setup.plan(len(view.selection), len(view.voxels), self.max_new_tokens)
        require_memory(plan, session.stages.held(plan))
        if key_of(candidate) not in self._warm:
            "".join(session.answer(view, sample.question, max_new_tokens=1))
            if session.asker.revisit is not None:
                # the first question about a clip reads all of it
                session.asker.revisit.close()
            self._warm.add(key_of(candidate))
        first = None
        start = time.perf_counter()
        answer = session.answer(view, sample.question, max_new_tokens=self.max_new_tokens)
        for _ in answer:
            if first is None and answer.text.strip():
                first = time.perf_counter() - start
        whole = time.perf_counter() - start
        return Answered(answer.text.strip(), whole if first is None else first, whole)

    def _fitting(self, candidate: Candidate, work: Callable[[Session], Result]) -> Result:
        """What a session does with the memory that is free: beside the others, without them, or part by part.

        Raises:
            DoesNotFit: none of the three has enough.
        """
        reason: DoesNotFit | None = None
        for open_session in (self._kept, self._alone, self._part_by_part):
            try:
                return work(open_session(candidate))
            except DoesNotFit as error:
                reason = error
        assert reason is not None
        raise reason

    def _kept(self, candidate: Candidate) -> Session:
        """The candidate's session, opened where it is not."""
        key = key_of(candidate)
        if key not in self._sessions:
            options = candidate.session_options(self.base, resident=key not in self._apart)
            self._sessions[key] = Session(candidate.bundle, options)
        return self._sessions[key]

    def _alone(self, candidate: Candidate) -> Session:
        """Its session, once all others are closed."""
        self.close()
        return self._kept(candidate)

    def _part_by_part(self, candidate: Candidate) -> Session:
        """A session that loads each part when its turn comes, from now on, as `stllm-run` does."""
        self.close()
        self._apart.add(key_of(candidate))
        return self._kept(candidate)

    def memory(self, candidate: Candidate, sample: Sample) -> int:
        """Bytes that are resident at most while one question is answered in a new process, over all its processes.

        Raises:
            DoesNotFit: it needs more memory than is free, or the kernel ended it.
            BadInput: the sample cannot be asked.
        """
        options = candidate.session_options(self.base, resident=False)
        job = {
            "bundle": str(candidate.bundle),
            "options": asdict(options),
            "sample": {
                name: str(value) if isinstance(value, Path) else value for name, value in asdict(sample).items()
            },
            "frames": candidate.frames,
            "max_new_tokens": self.max_new_tokens,
        }
        command = [sys.executable, "-m", __name__]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
        if done.returncode < 0:
            raise DoesNotFit(f"its process was ended by signal {-done.returncode}; 9 is the kernel's where memory ends")
        if done.returncode:
            raise StllmError(f"{candidate}: its process failed: {' '.join(done.stderr.split())[-200:]}")
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if "error" in outcome:
            raise (DoesNotFit if outcome["fits"] is False else BadInput)(outcome["error"])
        return int(outcome["bytes"])


def peak_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """The work of `Bench.memory` inside its process: the peak, or the error and whether it is one of memory."""
    paths = ("video", "pointcloud", "c2ws", "intrinsics")
    sample = Sample(**job["sample"] | {name: Path(job["sample"][name]) for name in paths})
    try:
        with Session(job["bundle"], Options(**job["options"])) as session:
            scene, clip = sample.load()
            lengths = {"frames": job["frames"], "max_new_tokens": job["max_new_tokens"]}
            "".join(session.ask(scene, clip, sample.question, **lengths))
    except (StllmError, OSError) as error:
        return {"error": str(error), "fits": not isinstance(error, DoesNotFit)}
    return {"bytes": highest_peak()}


def looking(candidate: Candidate) -> tuple[str, str, int]:
    """What decides what a session sees of a clip."""
    return str(candidate.bundle), candidate.options.precision, candidate.options.frames


def key_of(candidate: Candidate) -> Key:
    """What decides what a session loads and keeps."""
    options = candidate.options
    return str(candidate.bundle), options.precision, options.quant, options.kv, options.recompute


if __name__ == "__main__":
    print(json.dumps(peak_of(json.load(sys.stdin))))
