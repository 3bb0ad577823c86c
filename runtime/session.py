"""The pipeline: open a bundle, look at a scene and a clip, ask."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .answer import Answer, View
from .bundle.manifest import ENCODERS, Bundle, Graph
from .encoders.engines import choose_profile
from .encoders.local import Kept
from .encoders.providers import gpu_layers, place
from .errors import BadInput, require_at_least
from .host.maps import KernelMaps
from .host.pixels import pixel_values
from .host.rays import camera_rays
from .host.voxels import Voxels, voxelise
from .inputs.clip import Clip
from .inputs.scene import Scene, projected_share
from .inputs.selection import Selection, select_frames
from .llm.model import LanguageModel, Vocabulary, decode_text, embedding_rows, sample
from .llm.prompt import ASSISTANT_HEADER, Prompt, build_prompt, check_question
from .llm.prompt import time_instruction as time_line
from .memory.counters import own_usage
from .memory.meter import Meter
from .memory.plan import Plan, require_memory
from .options import Options
from .stages import Stages

__all__ = ["Session", "prefill"]

LOG = logging.getLogger(__name__)
PRECISION_ORDER = ("fp32", "fp16")
FEW_POINTS = 0.01
FRAMES_AT_ONCE = 1


class Session:
    """A bundle with the choices made for it; as a context manager, it frees at the end what it keeps loaded."""

    def __init__(self, bundle: Bundle | Path | str, options: Options | None = None, *, check: bool = True):
        """Choose graphs and language model, and check their files.

        Args:
            bundle: the bundle or its folder.
            options: how to run.
            check: whether files are compared with the manifest; only a tool that examines them leaves it out.

        Raises:
            BadBundle: the bundle lacks what was asked for, or its files are damaged.
            BadInput: an option has a value that is not known.
            MissingDependency: the options are strict, and the first choice of a device is not to be had.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(Path(bundle))
        options = options or Options()
        options.check()
        self.options = options
        self.threads = options.threads or len(os.sched_getaffinity(0))
        self.precision = options.precision or self._default_precision()
        self.quant = options.quant or self._default_quant()
        self.placement = place(options.device, options.strict, self.bundle, self.precision)
        self.provider = self.placement.graphs or options.provider
        self.graphs = {name: self.bundle.graph(name, self.precision, self.provider) for name in ENCODERS}
        self.llm = self.bundle.llm(self.quant)
        if check:
            self.bundle.check(self.files, fresh=options.check_digests)
        layers = gpu_layers(options.device, options.strict, options.gpu_layers)
        self._stages = Stages(self.bundle, self.graphs, self.llm, self.placement, layers, self.threads, options)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the stages that are kept loaded; a later question loads them again."""
        self._stages.close()

    @property
    def digest(self) -> str:
        """SHA-256 over all that the bundle contributes to an answer, the same on every device."""
        graphs = [self.bundle.graph(name, self.precision, self.options.provider) for name in ENCODERS]
        return self.bundle.digest([*graph_files(graphs), self.llm.file])

    @property
    def files(self) -> list[str]:
        """The bundle's files that this session reads."""
        engines = [f"{engine.file.relative_to(self.bundle.path)}" for engine in self.placement.engines.values()]
        return [*(engines or graph_files(self.graphs.values())), self.llm.file]

    def ask(
        self,
        scene: Scene,
        clip: Clip,
        question: str,
        *,
        frames: int | None = None,
        time_instruction: bool | None = None,
        assistant_header: bool = True,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Look at a scene and a clip and answer one question; see `look` and `answer`."""
        check_request(question, max_new_tokens, temperature, seed)
        self.require_positions(max_new_tokens)
        if self._timed(time_instruction):
            clip.timing()
        view = self.look(scene, clip, frames=frames, max_new_tokens=max_new_tokens)
        return self.answer(
            view,
            question,
            time_instruction=time_instruction,
            assistant_header=assistant_header,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def look(self, scene: Scene, clip: Clip, *, frames: int | None = None, max_new_tokens: int = 256) -> View:
        """Compute all that does not depend on a question.

        Args:
            scene: the environment.
            clip: the action just seen.
            frames: frames to sample; None takes the bundle's number.
            max_new_tokens: longest answer that is planned for.

        Raises:
            BadInput: scene and clip do not belong together.
            DoesNotFit: a stage, or the language model after it, needs more memory than is free.
        """
        meter = Meter()
        defaults, vision = self.bundle.defaults, self.bundle.geometry.vision
        selection = select_frames(clip, scene.poses, frames=frames, default=defaults.frames)
        self._warn_if_unseen(scene, selection)
        with meter.measure("voxels"):
            voxels = voxelise(scene.points, scene.colours, defaults.voxel_size)
        require_memory(
            Plan(
                bundle=self.bundle,
                precision=self.precision,
                quant=self.quant,
                provider=self.provider,
                kv=self.options.kv,
                frames=len(selection),
                voxels=len(voxels),
                new_tokens=max_new_tokens,
                resident=self.options.resident,
                engines=self.placement.engines,
                shared=self.placement.shared,
            ),
            held=own_usage().anonymous if self.options.resident else 0,
        )
        with meter.measure("maps"):
            maps = KernelMaps.build(voxels.coords, self._map_format())
        self._require_profiles(voxels, maps, len(selection))
        if self.options.precision is None or self.options.quant is None:
            LOG.info("encoders %s, language model %s, %d threads", self.precision, self.quant, self.threads)
        LOG.info("encoders run on %s", self.placement.name)
        with meter.measure("rays"):
            rays = camera_rays(voxels, selection.poses, scene.intrinsics, frame_size=clip.size, vision=vision)
        return View(
            selection=selection,
            voxels=voxels,
            rays=rays,
            video_tokens=self._encode_frames(selection, meter),
            points=self._encode_points(voxels, maps, meter),
            meter=meter,
        )

    def answer(
        self,
        view: View,
        question: str,
        *,
        time_instruction: bool | None = None,
        assistant_header: bool = True,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Answer a question about a view; the text is generated while the answer is iterated over.

        A resident session has one language model, so an answer is read to its end before the next one is begun.

        Args:
            view: from `look`.
            question: in words.
            time_instruction: whether the prompt states length and times; None takes the bundle's default.
            assistant_header: whether the prompt ends with the assistant's header.
            max_new_tokens: longest answer.
            temperature: 0 for the best token each time.
            seed: of the draws above temperature 0.

        Raises:
            BadInput: the question or an option cannot be used.
        """
        check_request(question, max_new_tokens, temperature, seed)
        meter = view.meter.copy()
        vocabulary = self._stages.vocabulary
        prompt = self.prompt(
            view, question, vocabulary, time_instruction=time_instruction, assistant_header=assistant_header
        )
        text = embedding_rows(self.bundle.file(self.llm.file), self.llm.embedding, prompt.aligner_token_ids)
        answer = Answer(view, prompt, self.align(view, text, meter), meter)
        ids = self._generate(answer, max_new_tokens, temperature, np.random.default_rng(seed))
        written_header = () if assistant_header else tuple(vocabulary.tokenize(ASSISTANT_HEADER))
        answer._pieces = decode_text(vocabulary.piece(token) for token in without_header(ids, written_header))
        return answer

    def prompt(
        self,
        view: View,
        question: str,
        vocabulary: Vocabulary,
        *,
        time_instruction: bool | None = None,
        assistant_header: bool = True,
    ) -> Prompt:
        """The prompt for a question about a view; arguments as in `answer`."""
        instruction = time_line(*view.selection.timing()) if self._timed(time_instruction) else None
        return build_prompt(question, vocabulary.tokenize, instruction=instruction, assistant_header=assistant_header)

    def align(self, view: View, text_embeds: np.ndarray, meter: Meter | None = None) -> np.ndarray:
        """Prefix tokens [latents, d] float32 for a view and the embeddings [L, d] of the user turn."""
        meter = meter or Meter()
        with meter.measure("rays"):
            pcd_rays, img_rays = view.encoded_rays if self.options.resident else view.encode_rays()
        pooled = view.pooled_features
        with self._stages.encoder("aligner", meter) as encode:
            return encode(
                pcd_features=view.points,
                pcd_rays=pcd_rays,
                pooled_features=pooled.reshape(-1, pooled.shape[-1]),
                img_rays=img_rays,
                text_embeds=text_embeds,
            )

    def load_llm(self, positions: int) -> LanguageModel:
        """The language model with a context for at least so many positions.

        Raises:
            BadInput: the model was made for fewer.
        """
        self.require_positions(positions)
        return self._stages.load_llm(positions)

    def _encode_frames(self, selection: Selection, meter: Meter) -> np.ndarray:
        """Video tokens [T, n, n+1, d]; a few frames are in memory at a time."""
        geometry = self.bundle.geometry
        grid, size = geometry.vision.grid, geometry.vision.image_size
        tokens = np.empty((len(selection), grid, grid + 1, geometry.llm.width), np.float32)
        source = selection.clip.read(selection.indices)
        at_once = self._frames_at_once()
        with self._stages.encoder("vision", meter) as encode:
            for start in range(0, len(selection), at_once):
                stop = min(start + at_once, len(selection))
                with meter.measure("video"):
                    batch = np.stack([pixel_values(next(source), size) for _ in range(start, stop)])
                tokens[start:stop] = encode(frames=batch)
        meter.milliseconds["vision"] -= meter.milliseconds["video"]
        return tokens

    def _encode_points(self, voxels: Voxels, maps: KernelMaps, meter: Meter) -> np.ndarray | Kept:
        """Point features [N, features] in the order of the voxels; on a GPU they stay there for the aligner."""
        with self._stages.encoder("points", meter) as encode:
            return encode(voxel_feats=voxels.feats, **maps.inputs())

    def _generate(
        self, answer: Answer, max_new_tokens: int, temperature: float, generator: np.random.Generator
    ) -> Iterator[int]:
        """Ids of the answer as they come, without the stop id."""
        meter, prompt = answer.meter, answer.prompt
        positions = answer.prompt_tokens + max_new_tokens
        self.require_positions(positions)
        with ExitStack() as stack:
            with meter.measure("prefill"):
                model, require_turn = stack.enter_context(self._stages.language_model(positions))
                prefill(model, prompt, answer.prefix_tokens, answer.view.video_tokens.reshape(-1, model.width))
                logits = answer.logits_last_prompt = model.logits()
            for count in range(max_new_tokens):
                require_turn()
                with meter.measure("decode"):
                    if count:
                        model.decode_tokens([answer.token_ids[-1]])
                        logits = model.logits()
                    token = sample(logits, temperature, generator)
                answer.token_ids.append(token)
                if token in self.bundle.stop_ids:
                    return
                yield token

    def require_positions(self, positions: int) -> None:
        """Raise BadInput when prompt and answer are longer than the model was made for."""
        limit = self.bundle.geometry.llm.context
        if positions > limit:
            raise BadInput(
                f"the prompt and the answer need {positions} positions, the model was made for {limit}; "
                "lower --frames or --max-new-tokens"
            )

    def _require_profiles(self, voxels: Voxels, maps: KernelMaps, frames: int) -> None:
        """Raise BadInput when an engine does not take the scene or so many frames."""
        geometry = self.bundle.geometry
        shapes = {
            "points": {name: array.shape for name, array in {"voxel_feats": voxels.feats, **maps.inputs()}.items()},
            "aligner": {
                "pcd_features": (len(voxels), geometry.aligner.point_features),
                "pooled_features": (frames * geometry.vision.grid**2, geometry.llm.width),
            },
        }
        for name, engine in self.placement.engines.items():
            choose_profile(engine.sidecar, shapes.get(name, {}))

    def _map_format(self) -> str:
        """Of the kernel maps that the point encoder takes."""
        engine = self.placement.engines.get("points")
        return (engine.sidecar.maps if engine else self.graphs["points"].maps) or "slabs"

    def _frames_at_once(self) -> int:
        """Frames that the vision tower encodes together: as many as its engine takes, or one."""
        engine = self.placement.engines.get("vision")
        return engine.sidecar.profiles[-1]["frames"][-1][0] if engine else FRAMES_AT_ONCE

    def _timed(self, time_instruction: bool | None) -> bool:
        return self.bundle.defaults.time_instruction if time_instruction is None else time_instruction

    def _default_precision(self) -> str:
        return next((name for name in PRECISION_ORDER if name in self.bundle.precisions), PRECISION_ORDER[0])

    def _default_quant(self) -> str:
        """The smallest language model that the bundle holds."""
        return min(
            self.bundle.quants, key=lambda quant: self.bundle.size(self.bundle.llm(quant).file), default="Q4_K_M"
        )

    def _warn_if_unseen(self, scene: Scene, selection: Selection) -> None:
        share = projected_share(scene, selection.poses, selection.clip.size)
        if share < FEW_POINTS:
            LOG.warning(
                "%.1f %% of the points project into a frame; likely causes: poses are world-to-camera or have OpenGL "
                "axes (--pose-convention), or K belongs to another image size than %dx%d",
                100 * share,
                *selection.clip.size,
            )


def graph_files(graphs: Iterable[Graph]) -> list[str]:
    """Graphs and weights as the bundle names them."""
    return [name for graph in graphs for name in (graph.file, graph.weights)]


def check_request(question: str, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Raise BadInput for what cannot be asked, before anything is computed for it."""
    check_question(question)
    require_at_least({"--max-new-tokens": (max_new_tokens, 1), "--seed": (seed, 0)})
    if not 0 <= temperature < float("inf"):
        raise BadInput(f"--temperature {temperature}: expected a number that is at least 0")


def prefill(model: LanguageModel, prompt: Prompt, prefix_tokens: np.ndarray, video_tokens: np.ndarray) -> None:
    """Read a prompt: its tokens, and the embeddings [latents, d] and [V, d] at its placeholders."""
    model.decode_tokens(prompt.head)
    model.decode_embeddings(prefix_tokens)
    model.decode_tokens(prompt.between)
    model.decode_embeddings(video_tokens)
    model.decode_tokens(prompt.tail)


def without_header(ids: Iterator[int], header: tuple[int, ...]) -> Iterator[int]:
    """Leave out the assistant's header where the model writes it itself at the start."""
    held: list[int] = []
    for token in ids:
        held.append(token)
        if tuple(held) == header[: len(held)]:
            if len(held) == len(header):
                held = []
                break
            continue
        break
    yield from held
    yield from ids
