"""Parts of the REA data set: in the authors' forms, by type and scene, and shards of one run."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from .dataset import QUESTION_TYPES, Sample

__all__ = ["Shard", "Subset"]

FORM = re.compile(r"(?:(?P<where>first|end|random):)?(?P<count>\d+)(?P<percent>%)?")
SHARD = re.compile(r"(\d+)/(\d+)")
FORMS = "all, first:N, end:N, random:N or N%, where N may be a percentage as well"


@dataclass(frozen=True)
class Subset:
    """Which samples: those of the types and scenes, and then so many of them.

    Attributes:
        spec: `all`, `first:N`, `end:N`, `random:N`; N may be `N%`, rounded up, which alone means the first.
        types: question types; none for all.
        scenes: scene ids; none for all.
        seed: of `random:N`. A smaller N chooses among what a larger one chooses.
    """

    spec: str = "all"
    types: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    seed: int = 0

    def of(self, samples: Sequence[Sample]) -> list[Sample]:
        """The chosen samples in their order.

        Raises:
            BadInput: the form, a type or a scene is not known, or there are too few samples.
        """
        require_known("--type", self.types, QUESTION_TYPES)
        require_known("--scene", self.scenes, {sample.scene_id: None for sample in samples})
        found = [
            sample
            for sample in samples
            if (not self.types or sample.question_type in self.types)
            and (not self.scenes or sample.scene_id in self.scenes)
        ]
        if not found:
            raise BadInput("no sample is of both the types and the scenes that were asked for")
        return self._cut(found)

    def to_json(self) -> dict[str, Any]:
        """What was asked for."""
        return asdict(self)

    def _cut(self, samples: list[Sample]) -> list[Sample]:
        if self.spec == "all":
            return samples
        form = FORM.fullmatch(self.spec)
        if not form or not (form["where"] or form["percent"]):
            raise BadInput(f"--subset {self.spec}: unknown; known are {FORMS}")
        count = int(form["count"])
        if form["percent"]:
            count = math.ceil(count * len(samples) / 100)
        if not 1 <= count <= len(samples):
            raise BadInput(f"--subset {self.spec}: asks for {count} of {len(samples)} samples")
        if form["where"] == "random":
            drawn = set(sorted(range(len(samples)), key=lambda place: self._rank(samples[place]))[:count])
            return [sample for place, sample in enumerate(samples) if place in drawn]
        return samples[-count:] if form["where"] == "end" else samples[:count]

    def _rank(self, sample: Sample) -> bytes:
        # a sample's rank depends on no other sample, so a subset is the same in a data set that has grown
        return hashlib.sha256(f"{self.seed} {sample.id}".encode()).digest()


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` of a subset; parts are cut between clips."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read i/n; raises BadInput unless 1 <= i <= n."""
        form = SHARD.fullmatch(text)
        shard = cls(*map(int, form.groups())) if form else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise BadInput(f"--shard {text}: expected i/n with 1 <= i <= n, such as 1/4")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, groups: Sequence[list[Sample]]) -> list[list[Sample]]:
        """Every `count`-th group."""
        return list(groups[self.number - 1 :: self.count])

    def file(self, folder: Path, stem: str, suffix: str) -> Path:
        """A file of this shard; the only shard of a run leaves its number out."""
        name = f"{stem}.{self.number}-of-{self.count}" if self.count > 1 else stem
        return folder / f"{name}{suffix}"


def require_known(option: str, asked: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    for value in asked:
        if value not in known:
            listed = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            raise BadInput(f"{option} {value}: unknown; known are {listed}")
