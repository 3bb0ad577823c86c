"""The stages from a scene and a clip to text, each callable alone: arrays in, arrays out.

`Session` runs them one after the other; a comparison, a measurement or
training calls a single one here.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .bundle.geometry import VisionGeometry
from .bundle.manifest import ENCODERS
from .bundle.table import STAGES
from .encoders.encoder import Kept
from .encoders.engines import choose_profile
from .encoders.pool import EncoderPool
from .host.maps import KernelMaps
from .host.pixels import pixel_values
from .host.rays import Rays, camera_rays, encode_directions
from .host.voxels import Voxels, voxelise
from .inputs.scene import Scene
from .inputs.selection import Selection
from .llm.embeddings import embedding_rows
from .llm.model import LanguageModel
from .llm.prompt import Prompt
from .llm.speaker import LLM, Speaker
from .llm.vocabulary import Vocabulary
from .memory.holdings import Holdings
from .memory.meter import Meter
from .memory.plan import Plan
from .setup import Setup

__all__ = ["EncodedRays", "HostStages", "Stages", "Step"]


class EncodedRays(NamedTuple):
    """Encodings of view directions.

    Attributes:
        points: [N, 387] float32, of the voxels.
        frames: [T*n*n, 387] float32, of the pooled pixels.
    """

    points: np.ndarray
    frames: np.ndarray


class Step(NamedTuple):
    """A token of an answer: its id, and the logits [vocabulary] float32 that it was chosen from."""

    token: int
    logits: np.ndarray


@dataclass(frozen=True)
class HostStages:
    """The stages that are computed on the host; they need sizes alone.

    Attributes:
        vision: sizes of frames and of what they are pooled to.
        voxel_size: edge of a voxel, metres.
        map_format: of the kernel maps.
    """

    vision: VisionGeometry
    voxel_size: float
    map_format: str = "slabs"

    def voxels(self, scene: Scene, meter: Meter | None = None) -> Voxels:
        """The occupied voxels of a scene (SPEC section 3)."""
        with measured(meter, "voxels"):
            return voxelise(scene.points, scene.colours, self.voxel_size)

    def maps(self, voxels: Voxels, meter: Meter | None = None) -> KernelMaps:
        """The kernel maps of voxels, in the format that the point encoder takes (SPEC section 4)."""
        with measured(meter, "maps"):
            return KernelMaps.build(voxels.coords, self.map_format)

    def rays(self, scene: Scene, selection: Selection, voxels: Voxels, meter: Meter | None = None) -> Rays:
        """Directions to all voxels and through all pooled pixels (SPEC section 5)."""
        size = selection.clip.size
        with measured(meter, "rays"):
            return camera_rays(voxels, selection.poses, scene.intrinsics, frame_size=size, vision=self.vision)

    def encode_rays(self, rays: Rays, meter: Meter | None = None) -> EncodedRays:
        """The encodings of directions that the aligner takes (SPEC section 5)."""
        with measured(meter, "rays"):
            return EncodedRays(encode_directions(rays.voxels), encode_directions(rays.frames.reshape(-1, 3)))

    def frames(self, selection: Selection, meter: Meter | None = None) -> Iterator[np.ndarray]:
        """The chosen frames as the tower takes them, one [3, S, S] float32 after the other (SPEC section 6)."""
        # one at a time: memory does not grow with the clip, and reading counts for no encoder
        source = selection.clip.read(selection.indices)
        for _ in range(len(selection)):
            with measured(meter, "video"):
                frame = next(source)
                with clocked(meter, "resize"):
                    pixels = pixel_values(frame, self.vision.image_size)
            yield pixels


class Stages:
    """All stages of one setup; encoders and language model are loaded when they are needed."""

    def __init__(self, setup: Setup):
        """Load nothing yet."""
        self.setup, bundle = setup, setup.bundle
        self.host = HostStages(bundle.geometry.vision, bundle.defaults.voxel_size, setup.map_format)
        self.holdings = Holdings()
        self.encoders = EncoderPool(
            {name: setup.encoder_file(name) for name in ENCODERS},
            threads=setup.threads,
            providers=setup.placement.providers,
            literal=setup.literal,
            resident=setup.resident,
            # on a GPU the aligner reads the points where they are
            outputs_kept=("points",) if setup.placement.on_gpu else (),
            holdings=self.holdings,
        )
        self.speaker = Speaker(
            setup.load_llm,
            lambda: Vocabulary(setup.bundle.file(setup.llm.file)),
            resident=setup.resident,
            holdings=self.holdings,
        )
        self._gguf: BinaryIO | None = None

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what is kept; it is loaded again when it is needed."""
        self.encoders.close()
        self.speaker.close()
        self.holdings.clear()
        if self._gguf is not None:
            self._gguf.close()
            self._gguf = None

    def held(self, plan: Plan) -> int:
        """Bytes of a plan that the stages which stay loaded hold already."""
        return self.holdings.within(plan.taken()) if self.setup.resident else 0

    def vision(self, frames: Iterable[np.ndarray], count: int, meter: Meter | None = None) -> np.ndarray:
        """Video tokens [T, n, n+1, d] float32 of `count` frames, of which a few are in memory at a time."""
        geometry = self.setup.bundle.geometry
        grid, source = geometry.vision.grid, iter(frames)
        tokens = np.empty((count, grid, grid + 1, geometry.llm.width), np.float32)
        with self._encoder("vision", meter) as encode:
            for start in range(0, count, self.setup.frames_at_once):
                stop = min(start + self.setup.frames_at_once, count)
                tokens[start:stop] = encode(frames=np.stack([next(source) for _ in range(start, stop)]))
        return tokens

    def points(self, voxels: Voxels, maps: KernelMaps, meter: Meter | None = None) -> np.ndarray | Kept:
        """Point features [N, features] in the order of the voxels; on a GPU they stay there for the aligner."""
        with self._encoder("points", meter) as encode:
            features: np.ndarray | Kept = encode(voxel_feats=voxels.feats, **maps.inputs())
        return features

    def aligner(
        self,
        points: np.ndarray | Kept,
        rays: EncodedRays,
        pooled: np.ndarray,
        text_embeds: np.ndarray,
        meter: Meter | None = None,
    ) -> np.ndarray:
        """Prefix tokens [latents, d] float32 (SPEC section 7).

        Args:
            points: from `points`.
            rays: from `encode_rays`.
            pooled: [T, n*n, d], the video tokens without row ends.
            text_embeds: [L, d], embeddings of the user turn.
            meter: what it took.
        """
        inputs = (points, rays.points, pooled.reshape(-1, pooled.shape[-1]), rays.frames, text_embeds)
        with self._encoder("aligner", meter) as encode:
            prefix: np.ndarray = encode(**dict(zip(STAGES["aligner"].inputs[None], inputs, strict=True)))
        return prefix

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Rows [L, d] float32 of the token embedding matrix."""
        llm = self.setup.llm
        if self._gguf is None:
            # kept open, so that the rows are those of the model that is loaded when its file is replaced
            self._gguf = self.setup.bundle.require_file(llm.file).open("rb")
        return embedding_rows(self._gguf, llm.embedding, ids)

    def prefill(self, model: LanguageModel, prompt: Prompt, prefix: np.ndarray, video: np.ndarray) -> np.ndarray:
        """Logits [vocabulary] float32 after a prompt (SPEC section 8).

        Args:
            model: with an empty context.
            prompt: its tokens.
            prefix: [latents, d] float32 embeddings in place of the point cloud.
            video: [V, d] float32 embeddings in place of the video.
        """
        # five calls, since a batch of libllama holds tokens or embeddings, never both
        model.decode_tokens(prompt.head)
        model.decode_embeddings(prefix)
        model.decode_tokens(prompt.between)
        model.decode_embeddings(video)
        model.decode_tokens(prompt.tail)
        return model.logits()

    def generate(
        self,
        prompt: Prompt,
        prefix: np.ndarray,
        video: np.ndarray,
        choose: Callable[[np.ndarray], int],
        new_tokens: int,
        meter: Meter | None = None,
    ) -> Generator[Step, None, None]:
        """Tokens one after the other, the stop id included; the language model is freed at the end.

        Args:
            prompt: the prompt.
            prefix: [latents, d], from `aligner`.
            video: [V, d], the video tokens.
            choose: the next id from logits [vocabulary].
            new_tokens: longest answer.
            meter: what it took.
        """
        positions = len(prompt) + len(prefix) + len(video) + new_tokens
        with ExitStack() as stack:
            with measured(meter, "load_llm"):
                model, require_turn = stack.enter_context(self.speaker.model(positions))
            with measured(meter, "prefill"):
                # the compute buffers are touched here for the first time
                logits = self.holdings.work(LLM, self.prefill, model, prompt, prefix, video)
            token: int | None = None
            for _ in range(new_tokens):
                require_turn()
                with measured(meter, "decode"):
                    # a token is decoded when the next one is asked for, so the last never is
                    if token is not None:
                        model.decode_tokens([token])
                        logits = model.logits()
                    with clocked(meter, "sampling"):
                        token = choose(logits)
                yield Step(token, logits)
                if token in self.setup.bundle.stop_ids:
                    return

    @contextmanager
    def _encoder(self, name: str, meter: Meter | None) -> Iterator[Callable[..., Any]]:
        """An encoder, loaded; what it takes counts for the stage of its name."""
        count = (lambda usage: None) if meter is None else partial(meter.note, name)
        loading = partial(measured, meter, f"load_{name}")
        with measured(meter, name), self.encoders.use(name, count, loading) as encode:
            yield encode

    def require_profiles(self, voxels: Voxels, maps: KernelMaps, frames: int) -> None:
        """Raise BadInput when an engine does not take the scene or so many frames."""
        geometry = self.setup.bundle.geometry
        shapes = {
            "points": {name: array.shape for name, array in {"voxel_feats": voxels.feats, **maps.inputs()}.items()},
            "aligner": {
                "pcd_features": (len(voxels), geometry.aligner.point_features),
                "pooled_features": (frames * geometry.vision.grid**2, geometry.llm.width),
            },
        }
        for name, engine in self.setup.placement.engines.items():
            choose_profile(engine.sidecar, shapes.get(name, {}))


def measured(meter: Meter | None, stage: str) -> AbstractContextManager[None]:
    """Count time and memory for a stage, where a meter is given."""
    return nullcontext() if meter is None else meter.measure(stage)


def clocked(meter: Meter | None, stage: str) -> AbstractContextManager[None]:
    """Count time alone, where a meter is given."""
    return nullcontext() if meter is None else meter.clock(stage)
