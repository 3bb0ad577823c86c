"""What a comparison starts from: a scene and a clip, as far as the host takes them, and how a bundle is run."""

from dataclasses import dataclass

from ..runtime.bundle.geometry import VisionGeometry
from ..runtime.bundle.manifest import CPU, PORTABLE, TENSORRT, Bundle, Defaults
from ..runtime.bundle.precisions import FP16, formats_of
from ..runtime.host.rays import Rays
from ..runtime.host.voxels import Voxels
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.inputs.selection import Selection, select_frames, upright
from ..runtime.setup import Setup
from ..runtime.stages import HostStages

__all__ = ["Material", "exact_setup", "exact_setups"]

# whose graphs are compared, in this order; one that several share is run once
COMPARED = (CPU, PORTABLE, TENSORRT)


@dataclass(frozen=True)
class Material:
    """One scene and clip, as far as the host takes them.

    Attributes:
        host: the stages on the host.
        selection: the chosen frames.
        voxels: of the scene.
        rays: view directions.
        timing: the clip's length and the frames' times, where the prompt states them.
    """

    host: HostStages
    selection: Selection
    voxels: Voxels
    rays: Rays
    timing: tuple[float, list[float]] | None

    @classmethod
    def of(cls, bundle: Bundle, scene: Scene, clip: Clip) -> "Material":
        """A scene and a clip in the sizes of a bundle; the clip's frames, at most the bundle's number of them."""
        return cls.read(bundle.geometry.vision, bundle.defaults, scene, clip)

    @classmethod
    def read(cls, vision: VisionGeometry, defaults: Defaults, scene: Scene, clip: Clip) -> "Material":
        """The same without a bundle."""
        host = HostStages(vision, defaults.voxel_size)
        frames = min(defaults.frames, len(clip)) if len(clip) else None
        selection = select_frames(clip, scene.poses, frames=frames, default=defaults.frames, offset=scene.offset)
        voxels, scene = host.voxels(scene), upright(scene, clip)
        timed = defaults.time_instruction and clip.times
        timing = selection.timing() if timed else None
        return cls(host, selection, voxels, host.rays(scene, selection, voxels), timing)


def exact_setups(bundle: Bundle, precision: str, quant: str) -> list[Setup]:
    """How the graphs of a precision are run, a setup a provider."""
    return [exact_setup(bundle, precision, quant, provider) for provider in COMPARED]


def exact_setup(bundle: Bundle, precision: str, quant: str, provider: str = CPU) -> Setup:
    """How a part is run for a comparison: as exactly as it can be."""
    return Setup(
        bundle,
        precision,
        quant,
        kv="f32",
        flash_attention=False,
        provider=provider,
        literal=FP16 in formats_of(precision).values() or provider == TENSORRT,
        repack=False,
    )
