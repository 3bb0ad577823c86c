"""TensorRT engines in a bundle: what they were built from and for, checked before they are loaded.

An engine lies in `engines/<target>/` with a sidecar, JSON of the fields of `Sidecar`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..bundle.digests import joint_digest
from ..bundle.manifest import ENCODERS, TENSORRT, Bundle
from ..bundle.table import FORMATS
from ..bundle.values import typed
from ..errors import BadBundle, BadInput

__all__ = [
    "Engine",
    "Shapes",
    "Sidecar",
    "choose_profile",
    "find_engines",
    "graph_digest",
    "read_sidecar",
    "require_current",
]

# what an input's rows count, by the name that --profile has for it; other inputs are kernel maps
COUNTED = {
    "frames": "batch",
    "pooled_features": "frames",
    "img_rays": "frames",
    "text_embeds": "text",
    "voxel_feats": "voxels",
    "pcd_features": "voxels",
    "pcd_rays": "voxels",
}
NOUNS = {"batch": "frames at once", "frames": "frames", "text": "tokens of the question", "voxels": "voxels"}
# least, usual and largest shape of each input
BOUNDS = 3
Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Sidecar:
    """What an engine is.

    Attributes:
        target: kind of device, as `--target` takes it.
        encoder: vision, points or aligner.
        precision: of the encoders, as the bundle names it.
        backend: `tensorrt` or `tensorrt-rtx`.
        version: of that library; engines of another do not load.
        capability: CUDA compute capability, `8.6`.
        graph: SHA-256 over the graph and its weights.
        maps: kernel-map format that it takes, for the point encoder.
        profiles: shapes that it takes, one entry a bucket, the smallest first.
        patches: of a frame; an input that grows with the frames has a row for each.
        flags: how it was built.
        activation_bytes: device memory for activations, as the builder reported it.
    """

    target: str
    encoder: str
    precision: str
    backend: str
    version: str
    capability: str
    graph: str
    maps: str | None
    profiles: list[Shapes]
    patches: int
    flags: dict[str, Any]
    activation_bytes: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, file: Path) -> "Sidecar":
        """A sidecar from its file; raises BadBundle when it is damaged."""
        try:
            sidecar: Sidecar = typed(cls, json.loads(file.read_text(encoding="utf-8")), "sidecar", closed=True)
            sidecar._require_possible()
        except (OSError, ValueError, RecursionError) as error:
            raise BadBundle(f"{file}: damaged ({error}); build the engines again") from None
        return sidecar

    def _require_possible(self) -> None:
        """Raise ValueError for numbers and names that no engine has."""
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder {self.encoder!r}")
        if not self.profiles or not all(self.profiles) or self.patches < 1 or self.activation_bytes < 0:
            raise ValueError("no profiles, frames without patches, or negative memory")
        for bounds in (bounds for profile in self.profiles for bounds in profile.values()):
            axes = list(zip(*bounds, strict=True))
            if len(bounds) != BOUNDS or not axes or any([0, *axis] != sorted([0, *axis]) for axis in axes):
                raise ValueError("shapes that are not a least, a usual and a largest one")
        if self.maps not in (None, *FORMATS):
            raise ValueError(f"kernel maps {self.maps!r}")

    def require_inputs(self, names: Iterable[str]) -> None:
        """Raise BadBundle where a profile lacks one of these inputs."""
        for name in names:
            if not all(name in profile for profile in self.profiles):
                raise BadBundle(
                    f"{self.target}: the engine of {self.encoder} takes no {name}; build it again with --force"
                )


@dataclass(frozen=True)
class Engine:
    """An engine that this machine can load."""

    file: Path
    sidecar: Sidecar


def find_engines(bundle: Bundle, precision: str, capability: str, versions: Mapping[str, str]) -> dict[str, Engine]:
    """Engines of the three encoders that fit a GPU and its libraries.

    Args:
        bundle: where they lie.
        precision: of the encoders.
        capability: CUDA compute capability of the GPU.
        versions: of `tensorrt` and `tensorrt-rtx`, where they are installed.

    Raises:
        BadBundle: there are none; the message says what is there and what to run.
    """
    reasons, replaced = [], ""
    for target, precisions in bundle.engines.items():
        if precision not in precisions:
            reasons.append(f"{target} has engines for {', '.join(precisions)} only (--precision takes them)")
            continue
        try:
            return {name: load_entry(bundle, precisions[precision][name], capability, versions) for name in ENCODERS}
        except ForeignEngine as error:
            reasons.append(str(error))
        except KeyError as error:
            # the manifest has an entry of this target, which only --force replaces
            reasons.append(f"{target} lacks an engine for {error.args[0]}")
            replaced = " --force"
        except BadBundle as error:
            reasons.append(str(error))
            replaced = " --force"
    found = "; ".join(reasons) or "the bundle holds none"
    raise BadBundle(
        f"no engines for {precision} and compute capability {capability}: {found}; "
        f"run stllm-export tensorrt --bundle {bundle.path} --precision {precision}{replaced}"
    )


class ForeignEngine(BadBundle):
    """An engine is for another GPU, and stays beside one for this."""


def load_entry(bundle: Bundle, entry: Mapping[str, Any], capability: str, versions: Mapping[str, str]) -> Engine:
    """One engine with its sidecar, once it is known to fit and to be undamaged."""
    sidecar = read_sidecar(bundle, entry)
    if sidecar.capability != capability:
        raise ForeignEngine(f"{sidecar.target} is for compute capability {sidecar.capability}")
    installed = versions.get(sidecar.backend)
    if installed is None:
        raise BadBundle(f"{sidecar.target} needs {sidecar.backend} {sidecar.version}, which is not installed")
    if installed != sidecar.version:
        raise BadBundle(f"{sidecar.target} was built with {sidecar.backend} {sidecar.version}, here is {installed}")
    require_current(bundle, entry, sidecar)
    return Engine(bundle.file(entry["file"]), sidecar)


def read_sidecar(bundle: Bundle, entry: Mapping[str, Any]) -> Sidecar:
    """An engine's sidecar; raises BadBundle when it is damaged."""
    require_whole(bundle, entry["sidecar"])
    return Sidecar.read(bundle.file(entry["sidecar"]))


def require_current(bundle: Bundle, entry: Mapping[str, Any], sidecar: Sidecar, *, fresh: bool = False) -> None:
    """Raise BadBundle unless an engine is undamaged, and was built from the graph that the bundle holds.

    Args:
        bundle: where it lies.
        entry: its entry in the manifest.
        sidecar: what it was built from.
        fresh: hash the file even if it looks unchanged.
    """
    if sidecar.graph != graph_digest(bundle, sidecar.encoder, sidecar.precision):
        raise BadBundle(f"{sidecar.target}: the graph of {sidecar.encoder} was changed after its engine was built")
    require_whole(bundle, entry["file"], fresh=fresh)


def require_whole(bundle: Bundle, name: str, *, fresh: bool = False) -> None:
    """Raise BadBundle, which leaves the remedy to the caller, unless a file is what the manifest says."""
    try:
        bundle.check([name], fresh=fresh)
    except BadBundle as error:
        raise BadBundle(str(error).rpartition("; ")[0]) from None


def graph_digest(bundle: Bundle, encoder: str, precision: str) -> str:
    """SHA-256 over the graph that engines are built from and its weights, from the manifest's digests."""
    graph = bundle.graph(encoder, precision, TENSORRT)
    return joint_digest(bundle.digests((graph.file, graph.weights)))


def choose_profile(sidecar: Sidecar, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Index of the first profile that takes inputs of these shapes.

    Raises:
        BadInput: none does; the message has the count, the limits and the option that moves them.
        BadBundle: a profile lacks an input.
    """
    sidecar.require_inputs(shapes)
    for index, profile in enumerate(sidecar.profiles):
        if all(within(profile[name], shape) for name, shape in shapes.items()):
            return index
    raise BadInput(describe_excess(sidecar, shapes))


def within(bounds: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> bool:
    least, _, most = bounds
    return len(shape) == len(most) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )


def describe_excess(sidecar: Sidecar, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What is outside the profiles: an input that none of them takes, else the first beyond the largest."""
    for profiles in (sidecar.profiles, sidecar.profiles[-1:]):
        outside = [name for name in shapes if not any(within(profile[name], shapes[name]) for profile in profiles)]
        if outside:
            break
    name = outside[0]
    counted = COUNTED.get(name, "voxels")
    unit = sidecar.patches if counted == "frames" else 1
    noun = NOUNS[counted] if name in COUNTED else f"rows of {name} in the kernel maps"
    taken = " or ".join(
        f"{least // unit} to {most // unit}"
        for least, most in joined((profile[name][0][0], profile[name][-1][0]) for profile in profiles)
    )
    measured = "" if name in COUNTED else " or with --profile-from such scenes"
    return (
        f"{sidecar.encoder}: {shapes[name][0] // unit} {noun}, the engine for {sidecar.target} takes {taken}; "
        f"build it with a wider --profile {counted}=MIN:OPT:MAX{measured}, or use --device cpu"
    )


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that overlap or touch as one."""
    spans: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if spans and low <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(high, spans[-1][1]))
        else:
            spans.append((low, high))
    return spans
