"""The stages from a scene and a clip to text, each callable alone: arrays in, arrays out.

`Session` runs them one after the other; a comparison, a measurement or
training calls a single one here.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from .bundle.geometry import VisionGeometry
from .bundle.manifest import ENCODERS
from .bundle.table import STAGES
from .control.control import Control
from .encoders.encoder import Kept
from .encoders.engines import choose_profile
from .encoders.pool import EncoderPool
from .host.maps import KernelMaps
from .host.pixels import pixel_values
from .host.rays import Rays, camera_rays, encode_directions
from .host.voxels import Voxels, voxelise
from .inputs.frames import Content
from .inputs.scene import Scene
from .inputs.selection import Selection
from .llm.embeddings import embedding_rows
from .llm.libllama import Flag
from .llm.model import LanguageModel
from .llm.pace.choose import Chosen
from .llm.rereading import RereadingModel
from .llm.sampler import Sampler
from .llm.sampling import Sampling
from .llm.speaker import LLM, Opened, Speaker
from .llm.vocabulary import Vocabulary
from .memory.allocator import keep_freed_blocks
from .memory.holdings import Holdings
from .memory.meter import Meter
from .memory.plan import Plan
from .setup import Setup

__all__ = ["EncodedRays", "HostStages", "Stages", "Step"]

Item = TypeVar("Item")
# tokens from one look at memory to the next
LOOKED_AT = 64


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
        for frame in self.read(selection, meter):
            yield self.pixels(frame, meter)

    def read(self, selection: Selection, meter: Meter | None = None) -> Iterator[np.ndarray]:
        """The chosen frames as they are, one [H, W, 3] uint8 after the other."""
        return one_by_one(selection.clip.read(selection.indices), len(selection), meter, counted)

    def contents(self, selection: Selection, meter: Meter | None = None) -> Iterator[Content]:
        """The same before they are decoded."""
        return one_by_one(selection.clip.contents(selection.indices), len(selection), meter, clocked)

    def decode(self, content: Content, meter: Meter | None = None) -> np.ndarray:
        """One of them as it is, [H, W, 3] uint8."""
        with counted(meter, "video"):
            return content.pixels()

    def pixels(self, frame: np.ndarray, meter: Meter | None = None) -> np.ndarray:
        """A frame [H, W, 3] uint8 as the tower takes it, [3, S, S] float32."""
        with counted(meter, "video"), clocked(meter, "resize"):
            return pixel_values(frame, self.vision.image_size)


class Stages:
    """All stages of one setup; encoders and language model are loaded when they are needed.

    Attributes:
        pace: how the language model that was loaded last is run.
    """

    pace: Chosen | None = None

    def __init__(self, setup: Setup):
        """Load nothing yet."""
        keep_freed_blocks()
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
            self._load_llm,
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
        tokens = np.empty((count, geometry.vision.grid, geometry.vision.grid + 1, geometry.llm.width), np.float32)
        for place, encoded in enumerate(self.encode_frames(islice(frames, count), meter)):
            tokens[place] = encoded
        return tokens

    def encode_frames(self, frames: Iterable[np.ndarray], meter: Meter | None = None) -> Iterator[np.ndarray]:
        """Video tokens [n, n+1, d] float32 of one frame after the other; without frames, no encoder is loaded."""
        source, together = iter(frames), self.setup.frames_at_once
        group = list(islice(source, 1))
        if not group:
            return
        with self._encoder("vision", meter) as encode:
            group += islice(source, together - 1)
            while group:
                yield from encode(frames=np.stack(group))
                group = list(islice(source, together))

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

    def sampler(self, sampling: Sampling) -> Sampler:
        """What chooses the tokens of an answer; raises BadInput where it can choose none."""
        return Sampler(sampling, self.speaker.vocabulary, self.setup.bundle.stop_ids)

    def prefill(self, model: LanguageModel, segments: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [vocabulary] float32 after a prompt (SPEC section 8).

        Args:
            model: which has read nothing yet, or the first positions of these segments.
            segments: ids [L] and embeddings [L, d], as `Prompt.segments` gives them.
        """
        if isinstance(model, RereadingModel) and model.aside and model.position < model.aside[0]:
            read(model, segments, model.aside[0])
            for begin, end in model.reread:
                model.take_back(begin)
                read(model, segments, end)
            model.take_back(model.aside[1])
        read(model, segments, sum(map(len, segments)))
        return model.logits()

    def generate(
        self,
        segments: Sequence[np.ndarray],
        choose: Callable[[np.ndarray], int],
        new_tokens: int,
        meter: Meter | None = None,
        opened: Callable[[Flag], AbstractContextManager[Opened]] | None = None,
    ) -> Generator[Step, None, None]:
        """Tokens one after the other, the stop id included; the language model is freed at the end.

        Args:
            segments: of the prompt, as `prefill` takes them.
            choose: the next id from logits [vocabulary].
            new_tokens: longest answer.
            meter: what it took; its control ends the work.
            opened: a language model that may have read the first positions; by default one that has read nothing.
                The flag that it gets ends its loading.
        """
        positions, flag = sum(map(len, segments)) + new_tokens, Flag()
        control = meter.control if meter else Control()
        with ExitStack() as stack:
            with counted(meter, "load_llm"), control.stopping(flag.set):
                model, require_turn = stack.enter_context((opened or partial(self.speaker.model, positions))(flag))
            stack.enter_context(interrupting(model, control))
            if meter:
                meter.reused["prefill"] = {"hits": model.position, "misses": positions - new_tokens - model.position}
            with measured(meter, "prefill"):
                # the compute buffers are touched here for the first time
                logits = self.holdings.work(LLM, self.prefill, model, segments)
            token: int | None = None
            with told(meter, "decode"):
                for number in range(new_tokens):
                    require_turn()
                    control.check()
                    # memory is looked at where it changes: at the first tokens, and now and then
                    with (clocked if number % LOOKED_AT > 1 else counted)(meter, "decode"):
                        # a token is decoded when the next one is asked for, so the last never is
                        if token is not None:
                            model.decode_tokens([token])
                            logits = model.logits()
                        with clocked(meter, "sampling"):
                            token = choose(logits)
                    yield Step(token, logits)
                    if token in self.setup.bundle.stop_ids:
                        break

    def _load_llm(self, positions: int, flag: Flag) -> LanguageModel:
        self.pace = self.setup.pace(positions, flag)
        return self.setup.load_llm(positions, flag, self.pace)

    @contextmanager
    def _encoder(self, name: str, meter: Meter | None) -> Iterator[Callable[..., Any]]:
        """An encoder, loaded; what it takes counts for the stage of its name."""
        count = (lambda usage: None) if meter is None else partial(meter.note, name)
        control = meter.control if meter else None
        loading = partial(counted, meter, f"load_{name}")
        with measured(meter, name), self.encoders.use(name, count, loading, control) as encode:
            yield encode

    def require_profiles(self, voxels: Voxels, maps: KernelMaps | None, frames: int) -> None:
        """Raise BadInput when an engine does not take the scene (whose maps are None once it has) or so many frames."""
        geometry = self.setup.bundle.geometry
        inputs = {"voxel_feats": voxels.feats, **maps.inputs()} if maps else {}
        shapes = {
            "points": {name: array.shape for name, array in inputs.items()},
            "aligner": {
                "pcd_features": (len(voxels), geometry.aligner.point_features),
                "pooled_features": (frames * geometry.vision.grid**2, geometry.llm.width),
            },
        }
        for name, engine in self.setup.placement.engines.items():
            choose_profile(engine.sidecar, shapes.get(name, {}))


def read(model: LanguageModel, segments: Sequence[np.ndarray], end: int) -> None:
    """Decode what a model has not read yet of segments, up to a position."""
    # a call for each, since a batch of libllama holds tokens or embeddings, never both
    known, left = model.position, end
    for segment in segments:
        fresh = segment[known:left]
        known, left = max(known - len(segment), 0), max(left - len(segment), 0)
        if len(fresh):
            (model.decode_tokens if fresh.ndim == 1 else model.decode_embeddings)(fresh)


@contextmanager
def interrupting(model: LanguageModel, control: Control) -> Iterator[None]:
    """Let a control end what the language model decodes."""
    try:
        with control.stopping(model.flag.set):
            yield
    finally:
        model.flag.clear()


def one_by_one(
    source: Iterator[Item], count: int, meter: Meter | None, timed: Callable[[Meter | None, str], Any]
) -> Iterator[Item]:
    """What is read of a clip; memory does not grow with the clip, and reading counts for no encoder."""
    with told(meter, "video"):
        for _ in range(count):
            with timed(meter, "video"):
                item = next(source)
            yield item


def counted(meter: Meter | None, stage: str) -> AbstractContextManager[None]:
    """Count time and memory for a stage, where a meter is given."""
    return nullcontext() if meter is None else meter.measure(stage)


def told(meter: Meter | None, stage: str) -> AbstractContextManager[None]:
    """Tell that a stage begins and ends, where a meter is given."""
    return nullcontext() if meter is None else meter.tell(stage)


@contextmanager
def measured(meter: Meter | None, stage: str) -> Iterator[None]:
    """Both."""
    with told(meter, stage), counted(meter, stage):
        yield


def clocked(meter: Meter | None, stage: str) -> AbstractContextManager[None]:
    """Count time alone, where a meter is given."""
    return nullcontext() if meter is None else meter.clock(stage)
