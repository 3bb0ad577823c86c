"""What was understood of scene, poses, intrinsics and frames, and what speaks against it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import BadInput
from ..inputs.cameras import AUTO, POSE_CONVENTIONS
from ..inputs.frames import Content
from ..inputs.scene import Scene, projected_share
from ..inputs.selection import Selection
from .colours import Agreement
from .evidence import Evidence, Preference, gather, look_at_some, preferred
from .intrinsics import Misfit, misfit, of_frames
from .reading import Reading, common_origin, meant, read_as
from .units import Measures, oddity

__all__ = ["Finding", "Fit", "Once", "Subject", "Verdict", "examine"]

LOG = logging.getLogger(__name__)
CONVENTION, SCALE, INTRINSICS = "--pose-convention", "--scale", "--intrinsics-of"
FEW_POINTS = 0.01
# agreement of colours that proves odd intrinsics, if those of a likelier size do not agree better
VINDICATED = 0.7
# metres a unit of cloud and poses, where the two are of different units
MIXED = tuple(pair for unit in (0.001, 0.01, 0.0254, 0.1, 0.3048) for pair in ((unit, 1.0), (1.0, unit)))


@dataclass(frozen=True)
class Finding:
    """What speaks against inputs as they are read.

    Attributes:
        option: that mends it; empty where none does.
        value: of the option; empty where it cannot be told.
        certain: whether nothing else explains it.
        reason: in words.
    """

    option: str
    value: str
    certain: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.option} {self.value or '…'}" if self.option else self.reason


@dataclass(frozen=True)
class Verdict:
    """What is found out of scene and clip, without them.

    Attributes:
        convention: that poses are best read by.
        conventions: how colours agree by each convention that was tried.
        findings: what speaks against it all, and is not mended by what was chosen.
        chosen: options that the inputs decided, with their values.
    """

    convention: str
    conventions: tuple[tuple[str, Agreement], ...]
    findings: tuple[Finding, ...]
    chosen: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Subject:
    """What a verdict is about.

    Attributes:
        scene, selection: in the units that a user names.
        reading: what a user says of them.
        asked: convention of the poses, as it was asked for; may be `auto`.
        voxel_size: edge of the model's voxels, metres.
        thorough: try all conventions, also where the one that was named fits.
    """

    scene: Scene
    selection: Selection
    reading: Reading
    asked: str
    voxel_size: float | None
    thorough: bool

    @property
    def given(self) -> str:
        """By which convention the poses were read."""
        return POSE_CONVENTIONS[0] if self.asked == AUTO else self.asked


# gives the verdict on a subject and some of its frames, and calls what finds it where that is not known
Once = Callable[[Subject, Sequence[Content], Callable[[], Verdict]], Verdict]


@dataclass(frozen=True)
class Fit:
    """Scene and clip held against each other.

    Attributes:
        scene: as it is meant.
        selection: the frames that the model sees, with their poses as they are meant.
        convention: of the poses.
        conventions: how colours agree by each convention that was tried.
        findings: what speaks against it all.
        chosen: options that the inputs decided, with their values.
    """

    scene: Scene
    selection: Selection
    convention: str
    conventions: dict[str, Agreement]
    findings: tuple[Finding, ...]
    chosen: dict[str, str]

    @cached_property
    def seen(self) -> float:
        """Share of the points that lie in a frame."""
        return projected_share(self.scene, self.selection.poses, self.selection.clip.size)

    def require(self) -> None:
        """Warn of what is likely wrong; raise BadInput for what certainly is, with the options that mend it."""
        for option, value in self.chosen.items():
            LOG.info("%s %s: chosen, since scene and frames agree so", option, value)
        if certain := [finding for finding in self.findings if finding.certain]:
            raise BadInput("; ".join(str(finding) for finding in certain))
        if self.findings:
            LOG.warning("%s", "; ".join(str(finding) for finding in self.findings))
        agreement = self.conventions[self.convention]
        if not self.findings and agreement.seen < FEW_POINTS and self.seen < FEW_POINTS:
            LOG.warning(
                "%.1f %% of the points project into a frame; likely causes: poses are world-to-camera or have OpenGL "
                "axes (--pose-convention), or K belongs to another image size than %dx%d",
                100 * self.seen,
                *self.selection.clip.size,
            )

    def summary(self) -> dict[str, Any]:
        """What was decided, and what speaks against it."""
        return {
            "pose_convention": self.convention,
            "colours_agree": rounded(max(self.conventions[self.convention].share, 0.0)),
            "chosen": self.chosen,
            "findings": [{"certain": finding.certain, "text": str(finding)} for finding in self.findings],
        }

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON takes them."""
        clip, indices = self.selection.clip, self.selection.indices
        low, high = self.scene.points.min(axis=0), self.scene.points.max(axis=0)
        return {
            "points": len(self.scene.points),
            "lowest": low.tolist(),
            "highest": high.tolist(),
            "frames": [
                {"name": clip.frames.name(index), "seconds": clip.times[index] if clip.times else None}
                for index in indices
            ],
            "size": list(clip.size),
            "intrinsics": self.scene.intrinsics.tolist(),
            "share_seen": rounded(self.seen),
            "colours": {
                name: {"agree": rounded(max(found.share, 0.0)), "difference": rounded(found.difference)}
                for name, found in self.conventions.items()
            },
            **self.summary(),
        }

    def __str__(self) -> str:
        said, clip = self.to_json(), self.selection.clip
        spans = " x ".join(f"{b - a:.2f}" for a, b in zip(said["lowest"], said["highest"], strict=True))
        lines = [
            f"{said['points']:,} points over {spans} m; {100 * self.seen:.0f} % of them lie in a frame",
            f"{len(self.selection)} frames of {clip.size[0]}x{clip.size[1]}, from {len(clip)}",
        ]
        for frame in said["frames"]:
            time = "" if frame["seconds"] is None else f"  {frame['seconds']:.2f} s"
            lines.append(f"  {frame['name']}{time}")
        for name, found in said["colours"].items():
            mark = "*" if name == self.convention else " "
            told = (
                "too few points in view" if found["difference"] is None else f"{found['difference']:.0f} of 255 apart"
            )
            lines.append(f"{mark} poses as {name:<10}  colours agree to {100 * found['agree']:.0f} %, {told}")
        lines += [f"{option} {value}: chosen" for option, value in self.chosen.items()]
        lines += [f"{'refused' if f.certain else 'likely wrong'}: {f}" for f in self.findings]
        return "\n".join(lines if self.findings else [*lines, "nothing speaks against it"])


def rounded(value: float) -> float | None:
    """As a report shows it; None for what is not known."""
    return None if np.isnan(value) else round(float(value), 4)


def examine(
    scene: Scene,
    selection: Selection,
    reading: Reading | None = None,
    *,
    voxel_size: float | None = None,
    thorough: bool = False,
    once: Once = lambda subject, contents, judge: judge(),
) -> Fit:
    """Hold scene, poses, intrinsics and some frames against each other; nothing is refused yet.

    Args:
        scene: as it was read.
        selection: the frames that the model sees.
        reading: what a user says of them.
        voxel_size: edge of the model's voxels, metres.
        thorough: try all conventions, also where the one that was named fits.
        once: finds out, or knows it of the same content.

    Raises:
        BadInput: a frame cannot be read; or a convention was to be chosen, and the inputs do not tell which.
    """
    reading = reading or Reading()
    scene, selection = read_as(*common_origin(scene, selection), reading)
    asked = selection.clip.pose_convention or scene.pose_convention
    subject = Subject(scene, selection, reading, asked, voxel_size, thorough)
    places, contents = look_at_some(selection)
    verdict = once(subject, contents, lambda: judge(subject, gather(scene, selection, subject.given, places, contents)))
    chosen = dict(verdict.chosen)
    selection = replace(selection, poses=meant(selection.poses, subject.given, verdict.convention))
    scene, selection = read_as(scene, selection, Reading.of(chosen.get(SCALE), chosen.get(INTRINSICS)))
    return Fit(scene, selection, verdict.convention, dict(verdict.conventions), verdict.findings, chosen)


def judge(subject: Subject, evidence: Evidence) -> Verdict:
    """What there is to say of samples of a scene and its frames; raises BadInput as `examine`."""
    reading, given = subject.reading, subject.given
    evidence, odd = question_intrinsics(evidence) if reading.frame is None else (evidence, None)
    prefer = preferred(evidence, subject.thorough or subject.asked == AUTO)
    best = prefer.convention if prefer else given
    if subject.asked == AUTO and not (prefer.certain if prefer else evidence.proves(given)):
        raise BadInput(f"{CONVENTION} auto: the colours of scene and frames do not tell which; name one")
    findings = [*intrinsics_found(odd, evidence.proves(best)), *convention_found(prefer, given)]
    if reading.scale is None:
        mixed = [] if prefer or evidence.fits(given) else list(mixed_units(evidence))
        findings += mixed or units_found(measure(subject.selection, evidence, best), subject.voxel_size)
    auto = reading.auto | ({CONVENTION} if subject.asked == AUTO else set())
    chosen = {found.option: found.value for found in findings if found.option in auto and found.certain and found.value}
    if subject.asked == AUTO:
        chosen[CONVENTION] = best
    left = tuple(found for found in findings if found.option not in chosen)
    return Verdict(chosen.get(CONVENTION, given), tuple(evidence.known.items()), left, tuple(chosen.items()))


def question_intrinsics(evidence: Evidence) -> tuple[Evidence, Misfit | None]:
    """Evidence with intrinsics of the frames' size, and what speaks against those that it has."""
    odd = misfit(evidence.intrinsics, evidence.size)
    if odd is None or odd.size is None:
        return evidence, odd
    mended = evidence.with_intrinsics(of_frames(evidence.intrinsics, odd.size, evidence.size))
    ours, theirs = evidence.agree(evidence.given), mended.agree(evidence.given)
    # those of a part that was cut out of larger frames are odd, and right
    if ours.share >= max(VINDICATED, theirs.share) and ours.cells >= theirs.cells / 2:
        return evidence, None
    return mended, odd


def intrinsics_found(odd: Misfit | None, proved: bool) -> Iterator[Finding]:
    """What speaks against the intrinsics; a size is certain once colours have proved it."""
    if odd:
        size = f"{odd.size[0]}x{odd.size[1]}" if odd.size else ""
        certain = odd.certain and (proved or odd.alone)
        yield Finding(INTRINSICS if size else "", size, certain, odd.reason)


def convention_found(prefer: Preference | None, given: str) -> Iterator[Finding]:
    """What speaks against the convention of the poses."""
    if prefer and prefer.convention != given:
        reason = f"poses fit the frames as {prefer.convention}, not as {given}: {prefer.reason}"
        yield Finding(CONVENTION, prefer.convention, prefer.certain, reason)


def mixed_units(evidence: Evidence) -> Iterator[Finding]:
    """What shows that cloud and poses are of different units: frames that fit once they are the same."""
    tried = {scale: evidence.scaled(*scale).agree(evidence.given) for scale in MIXED}
    scale = max(tried, key=lambda one: tried[one].share)
    certain = evidence.compare(tried[scale])
    if certain is not None:
        cloud, poses = (f"{factor:g}" for factor in scale)
        reason = f"cloud and poses are of different units: frames fit with {cloud} and {poses} metres a unit"
        yield Finding(SCALE, f"{cloud},{poses}", certain, reason)


def units_found(measures: Measures, voxel_size: float | None) -> Iterator[Finding]:
    """What speaks against metres."""
    if odd := oddity(measures, voxel_size):
        yield Finding(SCALE, f"{odd.factor:g}" if odd.factor else "", odd.certain, odd.reason)


def measure(selection: Selection, evidence: Evidence, convention: str) -> Measures:
    """The sizes of things, where poses are meant by a convention."""
    clip, poses = selection.clip, meant(selection.poses, evidence.given, convention)
    times = [clip.times[index] for index in selection.indices] if clip.times else None
    return Measures.of(evidence.points, poses, evidence.agree(convention).depth, times)
