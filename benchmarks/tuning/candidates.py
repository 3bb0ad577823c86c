"""Configurations to choose among: what bundles hold, times frames, times types of keys and values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from ...runtime.bundle.manifest import MOST_FRAMES, Bundle
from ...runtime.bundle.precisions import exactness
from ...runtime.errors import BadInput, require_at_least
from ...runtime.llm.placement import check_kv
from ...runtime.options import APPROXIMATE, Options
from ...runtime.preset import PresetOptions

__all__ = ["Candidate", "Choices", "grid"]

# the most exact first
KV_TYPES = ("f32", "f16", "q8_0")
# frames are tried from the bundle's number down to an eighth of it: 32, 16, 8, 4
SHARES = (1, 2, 4, 8)
# of encoders, language model, frames, keys and values, and how much of them is kept: lower is more exact
Place = tuple[tuple[int, ...], int, int, int, float]


@dataclass(frozen=True)
class Candidate:
    """One configuration.

    Attributes:
        bundle: the bundle's folder.
        digest: of its parts, as `Bundle.digest_of` gives it.
        options: what a preset would set.
        default_frames: whether the frames are the bundle's own number, which repeats frames of a short clip.
        named: whether the bundle's name tells it from others.
    """

    bundle: Path = field(compare=False)
    digest: str
    options: PresetOptions
    default_frames: bool = field(default=False, compare=False)
    named: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        options = self.options
        told = f"{self.bundle.name} " if self.named else ""
        plural = "s" * (options.frames != 1)
        kept = "" if options.recompute is None else f", approximate reuse, {100 * options.recompute:g} % recomputed"
        return f"{told}{options.precision} {options.quant}, {options.frames} frame{plural}, kv {options.kv}{kept}"

    @property
    def frames(self) -> int | None:
        """As a session takes them: None for the bundle's number."""
        return None if self.default_frames else self.options.frames

    def session_options(self, base: Options, *, resident: bool) -> Options:
        """Options of a session for it, which looks at each clip anew: a look that is known costs nothing."""
        mine = self.options
        reuse = None if mine.recompute is None else APPROXIMATE
        chosen = replace(base, precision=mine.precision, quant=mine.quant, kv=mine.kv, reuse_video=reuse)
        chosen = replace(chosen, recompute=mine.recompute)
        return replace(chosen, resident=resident, cache=None, cache_memory=0)


@dataclass(frozen=True)
class Choices:
    """What to choose among; nothing stands for all that the bundles hold, or for the usual values.

    Attributes:
        precisions: of the encoders.
        quants: of the language model.
        frames: frames to sample.
        kinds: types of keys and values.
        recomputed: of approximate reuse of the video's keys and values, which is tried beside reading all again: the
            shares that are read again; nothing stands for none of it.
    """

    precisions: tuple[str, ...] = ()
    quants: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    recomputed: tuple[float, ...] = ()

    def check(self, flash_attention: bool | None) -> None:
        """Raise BadInput for a value that cannot be."""
        for frames in self.frames:
            require_at_least({"--frames": (frames, 1)})
            if frames > MOST_FRAMES:
                raise BadInput(f"--frames {frames}: expected at most {MOST_FRAMES}")
        for kv in self.kinds:
            check_kv(kv, flash_attention)
        for share in self.recomputed:
            Options(reuse_video=APPROXIMATE, recompute=share).check()


def grid(bundles: Iterable[Path], choices: Choices, flash_attention: bool | None = None) -> list[Candidate]:
    """All configurations, the most exact first: by encoders, language model, frames, keys and values.

    Raises:
        BadInput: a value cannot be.
        BadBundle: no bundle holds what was asked for, or one cannot be read.
    """
    choices.check(flash_attention)
    opened = [Bundle(path) for path in dict.fromkeys(bundles)]
    require_held("--precision", choices.precisions, opened, [bundle.precisions for bundle in opened])
    require_held("--quant", choices.quants, opened, [bundle.quants for bundle in opened])
    found: dict[Candidate, Place] = {}
    for bundle in opened:
        for candidate, place in candidates_of(bundle, choices, flash_attention, named=len(opened) > 1):
            found.setdefault(candidate, place)
    if not found:
        raise BadInput(f"{', '.join(str(bundle.path) for bundle in opened)}: holds no encoders with a language model")
    return sorted(found, key=lambda candidate: found[candidate])


def candidates_of(
    bundle: Bundle, choices: Choices, flash_attention: bool | None, *, named: bool
) -> Iterator[tuple[Candidate, Place]]:
    """Candidates of one bundle, and where they stand: lower is more exact."""
    usual = bundle.defaults.frames
    kinds = choices.kinds or [kv for kv in KV_TYPES[1:] if kv != "q8_0" or flash_attention is not False]
    combined = product(
        [name for name in bundle.precisions if name in (choices.precisions or bundle.precisions)],
        [name for name in bundle.quants if name in (choices.quants or bundle.quants)],
        dict.fromkeys(choices.frames or [max(usual // share, 1) for share in SHARES]),
        dict.fromkeys(kinds),
        dict.fromkeys((None, *choices.recomputed)),
    )
    for precision, quant, frames, kv, share in combined:
        options = PresetOptions(precision, quant, frames, kv, share)
        digest = bundle.digest_of(precision, quant)
        size, kept = bundle.size(bundle.llm(quant).file), 0.0 if share is None else 1 - share / 2
        place = exactness(precision), -size, -frames, KV_TYPES.index(kv), kept
        yield Candidate(bundle.path, digest, options, frames == usual, named), place


def require_held(option: str, asked: Sequence[str], bundles: Sequence[Bundle], held: Sequence[Sequence[str]]) -> None:
    """Raise BadInput for a name that none of the bundles holds."""
    known = list(dict.fromkeys(name for names in held for name in names))
    for name in asked:
        if name not in known:
            where = ", ".join(str(bundle.path) for bundle in bundles)
            raise BadInput(f"{option} {name}: {where} does not hold it; held are {', '.join(known) or 'none'}")
