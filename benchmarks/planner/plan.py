"""What fits on a device: every precision and quantisation, the best that fits, and what would make it fit."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.bundle.precisions import exactness
from ...runtime.errors import BadInput, require_at_least
from .devices import THIS, Device, find_device, names
from .predict import Choice, Prediction, predict
from .subject import Subject, of_bundle, of_checkpoint
from .work import Question

__all__ = ["Outlook", "make_plans", "outlook", "parse_size", "remedies"]

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)?", re.IGNORECASE)
UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# of keys and values, for what does not fit
SMALLER_KV = "q8_0"


@dataclass(frozen=True)
class Outlook:
    """A model on a device.

    Attributes:
        device: where.
        question: what is asked for.
        also: bytes that other programs take.
        rows: a prediction for each precision and quantisation, the most exact first.
    """

    device: Device
    question: Question
    also: int
    rows: Sequence[Prediction]

    @property
    def room(self) -> int:
        """Bytes for a question."""
        return self.device.usable - self.also

    @property
    def best(self) -> Prediction | None:
        """The most exact language model that fits, and of its precisions the one that answers first."""
        fitting = [row for row in self.rows if row.peak <= self.room]
        if not fitting:
            return None
        same = [row for row in fitting if row.choice.quant == fitting[0].choice.quant]
        return min(same, key=lambda row: sum(row.first_token))


def make_plans(
    bundle: Path | None, checkpoint: Path | None, devices: Sequence[str], question: Question, also: str
) -> tuple[Subject, list[Outlook]]:
    """The model, and its outlook on each device.

    Args:
        bundle: an exported bundle; this or the checkpoint.
        checkpoint: whose headers are read.
        devices: `board@mode`, or `this`; none for all that are known.
        question: what is asked for.
        also: memory that other programs take, with its unit.

    Raises:
        BadInput: neither model or both are given, a device is not known, or a number is out of range.
        BadBundle: the bundle is none.
    """
    if (bundle is None) == (checkpoint is None):
        raise BadInput("give --bundle or --ckpt, one of them")
    other = parse_size("--also", also)
    # what is not known is said before anything is measured
    known = [None if name == THIS else find_device(name) for name in devices or names()]
    subject = of_bundle(bundle) if bundle is not None else of_checkpoint(Path(str(checkpoint)))
    found = []
    for device in known:
        if device is None:
            from .this import measure

            device = measure(subject)
        found.append(outlook(device, subject, question, other))
    return subject, found


def outlook(device: Device, subject: Subject, question: Question, also: int = 0) -> Outlook:
    """Predict every precision and quantisation; raises BadInput for a question of nothing."""
    require_at_least(
        {"--frames": (question.frames, 1), "--voxels": (question.voxels, 1), "--new-tokens": (question.new_tokens, 1)}
    )
    quants = sorted(subject.quants, key=lambda quant: -subject.quants[quant])
    choices = [Choice(precision, quant) for quant in quants for precision in sorted(subject.encoders, key=exactness)]
    return Outlook(device, question, also, [predict(device, subject, question, choice) for choice in choices])


def remedies(found: Outlook, subject: Subject) -> Iterator[str]:
    """What would make it fit where nothing does, the smallest change first."""
    smallest = min(found.rows, key=lambda row: row.peak)
    lighter = replace(smallest.choice, kv=SMALLER_KV)
    question, tried = found.question, [(f"--kv {SMALLER_KV}", found.question, lighter)]
    frames = question.frames
    while frames > 1:
        frames //= 2
        tried.append((f"--frames {frames}", replace(question, frames=frames), smallest.choice))
        tried.append((f"--frames {frames} --kv {SMALLER_KV}", replace(question, frames=frames), lighter))
    for words, asked, choice in tried:
        if predict(found.device, subject, asked, choice).peak <= found.room:
            yield f"{choice} with {words}"
            return
    missing = smallest.peak - found.room
    if found.also >= missing:
        yield f"--also {max(found.also - missing, 0) / 1e9:.1f}GB or less, with {smallest.choice}"
    yield f"{missing / 1e9:.1f} GB more memory, with {smallest.choice}"


def parse_size(option: str, text: str) -> int:
    """Bytes from a number with a unit, `1.5GB`; raises BadInput for anything else."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"{option} {text}: expected a size such as 1.5GB or 800MB")
    return int(float(found[1]) * UNITS[(found[2] or "B").lower()])
