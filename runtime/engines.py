"""TensorRT engines in a bundle: what they were built from and for, checked before they are loaded.

An engine lies in `engines/<target>/` with a sidecar, JSON of the fields of `Sidecar`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .bundle import ENCODERS, TENSORRT, Bundle
from .digests import joint_digest
from .errors import BadBundle, BadInput

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

# the name in --profile of what an input's rows count; rows of kernel maps go with the voxels
OPTIONS = {"frames": "batch", "pooled_features": "frames", "img_rays": "frames", "text_embeds": "text"}
# least, usual and largest shape of each input
Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Sidecar:
    """What an engine is.

    Attributes:
        target: kind of device, as `--target` takes it.
        encoder: vision, points or aligner.
        precision: of the graph, fp32 or fp16.
        backend: `tensorrt` or `tensorrt-rtx`.
        version: of that library; engines of another do not load.
        capability: CUDA compute capability, `8.6`.
        graph: SHA-256 over the graph and its weights.
        maps: kernel-map format that it takes, for the point encoder.
        profiles: shapes that it takes, one entry a bucket, the smallest first.
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
    flags: dict[str, Any]
    activation_bytes: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, file: Path) -> "Sidecar":
        """A sidecar from its file; raises BadBundle when it is damaged."""
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            profiles = [
                {name: tuple(map(tuple, bounds)) for name, bounds in shapes.items()}
                for shapes in fields.pop("profiles")
            ]
            return cls(profiles=profiles, **fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadBundle(f"{file}: damaged ({error}); build the engines again") from None


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
    reasons = []
    for target, precisions in bundle.engines.items():
        if precision not in precisions:
            reasons.append(f"{target} has engines for {', '.join(precisions)} only")
            continue
        try:
            return {name: load_entry(bundle, precisions[precision][name], capability, versions) for name in ENCODERS}
        except KeyError as error:
            reasons.append(f"{target} lacks an engine for {error.args[0]}")
        except BadBundle as error:
            reasons.append(str(error))
    found = "; ".join(reasons) or "the bundle holds none"
    raise BadBundle(
        f"no engines for {precision} and compute capability {capability}: {found}; "
        f"run stllm-export tensorrt --bundle {bundle.path}"
    )


def load_entry(bundle: Bundle, entry: Mapping[str, Any], capability: str, versions: Mapping[str, str]) -> Engine:
    """One engine with its sidecar, once it is known to fit and to be whole."""
    sidecar = read_sidecar(bundle, entry)
    if sidecar.capability != capability:
        raise BadBundle(f"{sidecar.target} is for compute capability {sidecar.capability}")
    installed = versions.get(sidecar.backend)
    if installed is None:
        raise BadBundle(f"{sidecar.target} needs {sidecar.backend} {sidecar.version}, which is not installed")
    if installed != sidecar.version:
        raise BadBundle(f"{sidecar.target} was built with {sidecar.backend} {sidecar.version}, here is {installed}")
    require_current(bundle, entry, sidecar)
    return Engine(bundle.file(entry["file"]), sidecar)


def read_sidecar(bundle: Bundle, entry: Mapping[str, Any]) -> Sidecar:
    """An engine's sidecar; raises BadBundle when it is damaged."""
    bundle.check([entry["sidecar"]])
    return Sidecar.read(bundle.file(entry["sidecar"]))


def require_current(bundle: Bundle, entry: Mapping[str, Any], sidecar: Sidecar, *, fresh: bool = False) -> None:
    """Raise BadBundle unless an engine is whole, and was built from the graph that the bundle holds.

    Args:
        bundle: where it lies.
        entry: its entry in the manifest.
        sidecar: what it was built from.
        fresh: hash the file even if it looks unchanged.
    """
    if sidecar.graph != graph_digest(bundle, sidecar.encoder, sidecar.precision):
        raise BadBundle(f"{sidecar.target}: the graph of {sidecar.encoder} was changed after its engine was built")
    bundle.check([entry["file"]], fresh=fresh)


def graph_digest(bundle: Bundle, encoder: str, precision: str) -> str:
    """SHA-256 over the graph that engines are built from and its weights, from the manifest's digests."""
    graph = bundle.graph(encoder, precision, TENSORRT)
    return joint_digest({name: bundle.sha256(name) for name in (graph.file, graph.weights)})


def choose_profile(sidecar: Sidecar, inputs: Mapping[str, Any]) -> int:
    """Index of the first profile that takes the inputs.

    Raises:
        BadInput: none does; the message has the count, the limit and the option that raises it.
    """
    for index, shapes in enumerate(sidecar.profiles):
        if not any(beyond(shapes[name], array.shape) for name, array in inputs.items()):
            return index
    largest = sidecar.profiles[-1]
    name, limit = next(
        (name, limit) for name, array in inputs.items() if (limit := beyond(largest[name], array.shape)) is not None
    )
    rows, option = inputs[name].shape[0], OPTIONS.get(name, "voxels")
    raise BadInput(
        f"{sidecar.encoder}: {rows} rows of {name}, the engine for {sidecar.target} takes {limit[0]} to {limit[1]}; "
        f"build it with a wider --profile {option}=MIN:OPT:MAX, or use --device cpu"
    )


def beyond(bounds: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Least and most rows of a profile, if a shape lies outside."""
    least, _, most = bounds
    inside = len(shape) == len(most) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )
    return None if inside else (least[0], most[0])
