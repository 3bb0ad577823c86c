"""How the language model is run where a user leaves it open: measured once a machine, build and model.

Which is fastest cannot be told from the outside: with AVX-512, libllama's packed copy of quantised weights reads a
prompt in 1.6 times the time of the mapped ones; elsewhere it is the contrary. So one layer of the model is timed, a
choice after the other, and the rates are remembered. What a user decides is not measured.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import StllmError
from ...memory.counters import available
from ..libllama import Flag
from .bench import POSITIONS, Bench, Pace, Rates
from .memory import fingerprint, recall, remember

__all__ = ["Asked", "Chosen", "Subject", "choose"]

LOG = logging.getLogger(__name__)
# the mapped weights, a packed copy of them, and the rest
ROOM = 2.5
# a candidate takes the place of one that takes less memory, or leaves more cores, where it is faster by this factor
EARNS = 1.05
# flash attention is left out for more alone: without it answers differ in their last bits, and scores take much memory
EARNS_MUCH = 1.15
MICRO_BATCH, TRIED = 512, (128, 256, 512)
# of positions, before those by which flash attention is judged: without any, its kernels have nothing to do
DEPTH = 4096
LEAST_ROUNDS, SECONDS = 2, 0.5
# seconds after which no further choice is measured; what is left open stays as it is by default
LONGEST = 20.0
# of the time that a prompt takes, at most this part is spent on the measurement; keys and values are had for a fifth
SHARE, FILLING = 0.1, 0.2
FEW_CORES = 4


@dataclass(frozen=True)
class Asked:
    """What a user has decided; None leaves it open.

    Attributes:
        packed: see `Pace`; so are the others.
        measure: whether what is open is measured, else it is as by default.
    """

    packed: bool | None = None
    threads: int | None = None
    micro_batch: int | None = None
    flash_attention: bool | None = None
    measure: bool = True


@dataclass(frozen=True)
class Subject:
    """The language model and its prompt.

    Attributes:
        file: GGUF file.
        digest: of it.
        layers: that run on the CPU; none of the choices is measured on a GPU, but for the packed copy for the rest.
        on_gpu: whether others run on a GPU.
        kv: type of keys and values.
        positions: of prompt and answer.
        row_bytes: what is computed at once takes, for each position of a micro-batch.
        score_bytes: what it takes more without flash attention.
    """

    file: Path
    digest: str
    layers: int
    on_gpu: bool
    kv: str
    positions: int
    row_bytes: float
    score_bytes: float


@dataclass(frozen=True)
class Choice:
    """Candidates of one field of a `Pace`.

    Attributes:
        name: of the field.
        values: those first that take less.
        earns: by what factor one has to be faster than those before it.
        depth: positions before those that are timed.
    """

    name: str
    values: tuple[Any, ...]
    earns: float = EARNS
    depth: int = 0

    @property
    def cost(self) -> float:
        """Positions of a layer that are read to measure it."""
        sizes = (max(value, POSITIONS) if self.name == "micro_batch" else POSITIONS for value in self.values)
        return LEAST_ROUNDS * sum(size + FILLING * self.depth for size in sizes)


@dataclass(frozen=True)
class Step:
    """A choice that was measured: a rate for each candidate."""

    choice: Choice
    rates: tuple[Rates, ...]

    @property
    def best(self) -> Any:
        """The candidate that is taken."""
        place = 0
        for other, rate in enumerate(self.rates):
            if self.choice.earns * rate.seconds < self.rates[place].seconds:
                place = other
        return self.choice.values[place]

    def __str__(self) -> str:
        each = zip(self.choice.values, self.rates, strict=True)
        return f"{self.choice.name} " + ", ".join(f"{value} {r.prefill:.0f}/{r.decode:.0f}" for value, r in each)


@dataclass(frozen=True)
class Chosen:
    """A pace, and where it comes from.

    Attributes:
        pace: how the language model is run.
        source: in words.
        steps: what was measured for it.
    """

    pace: Pace
    source: str
    steps: tuple[Step, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a report shows it; rates are positions that a layer reads and writes a second."""
        fields = ("packed", "threads", "micro_batch", "flash_attention")
        rates = {
            step.choice.name: [
                [value, *astuple(rate)] for value, rate in zip(step.choice.values, step.rates, strict=True)
            ]
            for step in self.steps
        }
        return {**dict(zip(fields, astuple(self.pace), strict=True)), "chosen": self.source, "rates": rates}

    def __str__(self) -> str:
        pace = self.pace
        flash = {None: "as libllama has it", True: "on", False: "off"}[pace.flash_attention]
        said = (
            f"language model: weights {'packed' if pace.packed else 'as they are mapped'}, {pace.threads} threads, "
            f"micro-batches of {pace.micro_batch}, flash attention {flash}: {self.source}"
        )
        steps = "; ".join(map(str, self.steps))
        return f"{said}; positions that a layer reads/writes a second: {steps}" if steps else said


def choose(subject: Subject, asked: Asked, cores: int, flag: Flag) -> Chosen:
    """How to run a language model; the choice and its reason are logged.

    A prompt that is read in less than ten times what measuring takes is not worth it, and is read as by default.

    Args:
        subject: the language model.
        asked: what is decided.
        cores: threads by default.
        flag: ends a measurement when it is set.

    Raises:
        StllmError: the flag was set.
    """
    plain = Pace(
        bool(asked.packed), asked.threads or cores, asked.micro_batch or fitting(subject)[-1], asked.flash_attention
    )
    choices = tuple(open_choices(subject, asked, cores))
    chosen = Chosen(plain, "as given, and else by default")
    if choices and asked.measure:
        chosen = measured(subject, plain, choices, flag)
    LOG.info("%s", chosen)
    return chosen


def open_choices(subject: Subject, asked: Asked, cores: int) -> Iterator[Choice]:
    """What is left open, but for candidates that memory has no room for."""
    free = available() or np.inf
    if asked.packed is None and subject.layers > 0 and free > ROOM * subject.file.stat().st_size:
        yield Choice("packed", (False, True))
    if subject.on_gpu or subject.layers <= 0:
        return
    if asked.threads is None and len(counts := thread_counts(cores)) > 1:
        yield Choice("threads", counts)
    if asked.micro_batch is None and len(sizes := fitting(subject)) > 1:
        yield Choice("micro_batch", sizes)
    scores = (asked.micro_batch or MICRO_BATCH) * (subject.row_bytes + subject.score_bytes)
    # a quantised type of keys and values needs it
    if asked.flash_attention is None and subject.kv != "q8_0" and scores < free:
        yield Choice("flash_attention", (None, False), EARNS_MUCH, DEPTH)


def fitting(subject: Subject) -> tuple[int, ...]:
    """Sizes of a micro-batch that memory has room for, and the smallest at any rate."""
    free = available() or np.inf
    return TRIED[:1] + tuple(size for size in TRIED[1:] if size * subject.row_bytes < free)


def thread_counts(cores: int) -> tuple[int, ...]:
    """Numbers of threads worth trying: one a core, or one a thread of a core, or one left for others."""
    siblings = set()
    for number in os.sched_getaffinity(0):
        try:
            siblings.add(Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text())
        except OSError:
            return (cores,)
    return tuple(sorted({len(siblings), cores, cores - 1 if cores >= FEW_CORES else cores}))


def measured(subject: Subject, plain: Pace, choices: tuple[Choice, ...], flag: Flag) -> Chosen:
    """What was measured before, or is now and then remembered; as by default where it cannot be, or is not worth it."""
    key = fingerprint(subject.digest, subject.kv, astuple(plain), [astuple(choice) for choice in choices])
    steps = understood(recall(key), choices)
    if steps is not None:
        return Chosen(settled(plain, steps), "measured before", steps)
    if SHARE * subject.positions * subject.layers < sum(choice.cost for choice in choices):
        return Chosen(plain, "by default, since the prompt is too short for a measurement to pay")
    begin = time.perf_counter()
    try:
        steps = measure(subject, plain, choices, flag)
    except (StllmError, OSError) as error:
        if flag.is_set:
            raise
        return Chosen(plain, f"by default, since a layer could not be timed ({error})")
    remember(key, {step.choice.name: [astuple(rate) for rate in step.rates] for step in steps})
    spent = time.perf_counter() - begin
    return Chosen(settled(plain, steps), f"measured now in {spent:.1f} s, and remembered", steps)


def measure(subject: Subject, plain: Pace, choices: Sequence[Choice], flag: Flag) -> tuple[Step, ...]:
    """Rates for one choice after the other, each with what was found best before it.

    Raises:
        StllmError: libllama cannot run the layer, or the flag was set.
        OSError: the layer cannot be copied.
    """
    steps: list[Step] = []
    begin = time.perf_counter()
    with Bench(subject.file, subject.kv, flag) as bench:
        for choice in choices:
            if steps and time.perf_counter() - begin > LONGEST:
                break
            start = settled(plain, steps)
            # where it is open, as much as is read at once
            sized = "micro_batch" in (choice.name, *(step.choice.name for step in steps))
            start = start if sized else replace(start, micro_batch=min(start.micro_batch, POSITIONS))
            paces = [replace(start, **{choice.name: value}) for value in choice.values]
            rates = bench.rates(paces, depth=choice.depth, rounds=LEAST_ROUNDS, seconds=SECONDS)
            steps.append(Step(choice, tuple(rates)))
    return tuple(steps)


def settled(plain: Pace, steps: Sequence[Step]) -> Pace:
    """The pace that steps lead to."""
    return replace(plain, **{step.choice.name: step.best for step in steps})


def understood(known: Any, choices: Sequence[Choice]) -> tuple[Step, ...] | None:
    """Steps from what was remembered; None where that is damaged."""
    try:
        named = {choice.name: choice for choice in choices}
        steps = [Step(named[name], tuple(Rates(*map(float, rate)) for rate in rates)) for name, rates in known.items()]
        usable = all(
            len(step.rates) == len(step.choice.values)
            and all(0 < rate < np.inf for each in step.rates for rate in astuple(each))
            for step in steps
        )
    except (AttributeError, ValueError, TypeError, LookupError):
        return None
    return tuple(steps) if steps and usable else None
