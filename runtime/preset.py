"""A preset: options that `stllm-bench tune` chose for a bundle, in a small file that says what they were measured on.

{"preset": 1, "bundle": SHA-256, "options": {"precision", "quant", "frames", "kv", "recompute"}, "measured": {...}}
"""

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .bundle.files import atomic_path
from .bundle.manifest import MOST_FRAMES, Bundle
from .bundle.values import typed
from .errors import BadInput
from .llm.placement import KV_TYPES
from .options import APPROXIMATE, Options, Request

__all__ = ["PRESET", "Measured", "Preset", "PresetOptions", "read_preset"]

LOG = logging.getLogger(__name__)
# version of the format
PRESET = 1
REMEDY = "write it again with stllm-bench tune"


@dataclass(frozen=True)
class PresetOptions:
    """The options that a preset sets, as those of `stllm-run`.

    With `recompute`, further questions keep the video's keys and values, but for that share (`--reuse-video`).
    """

    precision: str
    quant: str
    frames: int
    kv: str
    recompute: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise ValueError(f"{self.frames} frames, expected 1 to {MOST_FRAMES}")
        if self.kv not in KV_TYPES:
            raise ValueError(f"kv {self.kv!r}, known are {', '.join(KV_TYPES)}")
        if self.recompute is not None and not 0 <= self.recompute < 1:
            raise ValueError(f"recompute {self.recompute}, expected 0 up to less than 1")

    def __str__(self) -> str:
        told = f"--precision {self.precision} --quant {self.quant} --frames {self.frames} --kv {self.kv}"
        reuse = "" if self.recompute is None else f" --reuse-video {APPROXIMATE} --recompute {100 * self.recompute:g}%"
        return told + reuse


@dataclass(frozen=True)
class Measured:
    """What a preset was measured on, and what came out.

    Attributes:
        bundle: name of the bundle's folder.
        machine: board or processor, its power mode, cores and memory.
        device: where the encoders ran.
        threads: of the CPU.
        rea: SHA-256 of the data set's file.
        questions: that were asked.
        max_new_tokens: longest answer.
        first_token: median seconds from files to the first text, what is loaded once aside; with the two below value,
            lower and upper bound of its 95 % interval.
        exact: share of answers that are the truth, 0..1.
        agreement: share of answers that are those of the most exact configuration, 0..1.
        answer: median seconds to the end of the answer.
        memory: bytes that were resident at most, by the kernel's counters.
    """

    bundle: str
    machine: str
    device: str
    threads: int
    rea: str
    questions: int
    max_new_tokens: int
    first_token: tuple[float, ...]
    exact: tuple[float, ...]
    agreement: tuple[float, ...]
    answer: float
    memory: int

    def __post_init__(self) -> None:
        for name in ("first_token", "exact", "agreement"):
            bounds = getattr(self, name)
            if len(bounds) != 3 or not 0 <= bounds[1] <= bounds[0] <= bounds[2]:
                raise ValueError(f"{name}: expected a value and its two bounds")


@dataclass(frozen=True)
class Preset:
    """Options for one bundle.

    Attributes:
        bundle: digest of the parts that were measured, as `Bundle.digest_of` gives it.
        options: what it sets.
        measured: on what.
    """

    bundle: str
    options: PresetOptions
    measured: Measured

    def write(self, path: Path) -> None:
        """Write the file; raises BadInput where that cannot be."""
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps({"preset": PRESET, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{path}: the preset cannot be written ({error.strerror})") from None

    def require_for(self, bundle: Bundle, path: Path) -> None:
        """Raise BadInput unless the bundle holds the very parts that were measured; `path` is the preset's file."""
        precision, quant = self.options.precision, self.options.quant
        held = precision in bundle.precisions and quant in bundle.quants
        if not held or bundle.digest_of(precision, quant) != self.bundle:
            found = "other ones" if held else f"no {precision} with {quant}"
            raise BadInput(
                f"--preset {path}: was measured on the parts {precision} and {quant} of another bundle "
                f"({self.measured.bundle}, {self.bundle[:12]}); {bundle.path} holds {found}; "
                "measure it with stllm-bench tune, or give its options"
            )

    def applied(
        self, bundle: Bundle, options: Options, request: Request, explicit: Collection[str], *, several: bool
    ) -> tuple[Options, Request]:
        """Options and request with what the preset sets, but for the options named in `explicit`.

        Keys and values of the video are kept for `several` questions alone.
        """
        chosen = {name: value for name, value in asdict(self.options).items() if name not in explicit}
        if chosen.get("recompute") is None or "reuse_video" in explicit:
            chosen.pop("recompute", None)
        elif not several:
            LOG.info("--recompute %g of the preset is for several questions, and left out", chosen.pop("recompute"))
        else:
            chosen["reuse_video"] = APPROXIMATE
        LOG.info("preset: %s; measured on %s", self.options, self.measured.machine)
        if kept := [name for name in asdict(self.options) if name in explicit]:
            LOG.info("given beside the preset and so not taken from it: %s", ", ".join(kept))
        frames = chosen.pop("frames", request.frames)
        if "frames" not in explicit and frames == bundle.defaults.frames:
            # the bundle's own number repeats the frames of a short clip, a number that was asked for is refused
            frames = None
        return replace(options, **chosen), replace(request, frames=frames)


def read_preset(path: Path) -> Preset:
    """A preset from its file.

    Raises:
        BadInput: it cannot be read, is no preset, or is of another version of the format.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"--preset {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--preset {path}: is damaged ({error}); {REMEDY}") from None
    if not isinstance(content, dict) or "preset" not in content:
        raise BadInput(f"--preset {path}: is no preset; {REMEDY}")
    version = content.pop("preset")
    if type(version) is not int or version != PRESET:
        stated = json.dumps(version)[:40]
        raise BadInput(f"--preset {path}: is of version {stated}, this program reads version {PRESET}; {REMEDY}")
    try:
        preset: Preset = typed(Preset, content, "preset", closed=True)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--preset {path}: {error}; {REMEDY}") from None
    return preset
