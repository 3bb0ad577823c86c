"""The pipeline: open a bundle, look at a scene and a clip, ask."""

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from weakref import WeakSet

import numpy as np

from .answer import Answer, Transcript, View
from .bundle.manifest import ENCODERS, Bundle
from .bundle.precisions import INT8, canonical, formats_of
from .bundle.table import CLOCKED
from .encoders.cpu import has_int8_dot_product
from .encoders.gpu import find_gpu
from .encoders.providers import place
from .errors import BadInput, require_at_least
from .fit.fit import examine
from .fit.reading import Reading
from .inputs.clip import Clip
from .inputs.scene import Scene
from .inputs.selection import select_frames, upright
from .llm.placement import gpu_layers
from .llm.prompt import ASSISTANT_HEADER, Prompt, build_prompt, check_question, without_header
from .llm.sampling import sample
from .llm.vocabulary import Vocabulary, decode_text
from .memory.meter import Meter
from .memory.plan import require_memory
from .options import Options
from .setup import Setup
from .stages import Stages

__all__ = ["Session"]

LOG = logging.getLogger(__name__)
PRECISION_ORDER = ("fp32", "fp16", "int8")


class Session:
    """A bundle with the choices made for it; as a context manager, it frees at the end what it keeps loaded."""

    def __init__(self, bundle: Bundle | Path | str, options: Options | None = None):
        """Choose graphs and language model, and check their files.

        Args:
            bundle: the bundle or its folder.
            options: how to run.

        Raises:
            BadBundle: the bundle lacks what was asked for, or its files are damaged.
            BadInput: an option has a value that is not known.
            MissingDependency: the options are strict, and the first choice of a device is not available.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(Path(bundle))
        self.options = options or Options()
        self.options.check()
        self.setup = decide(self.bundle, self.options)
        self.stages = Stages(self.setup)
        self.bundle.check(self.setup.files, fresh=self.options.check_digests)
        # weak: an answer that its caller drops frees itself
        self._answers: WeakSet[Answer] = WeakSet()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End answers that are not read to their end, and free what is loaded; a later question loads it again."""
        for answer in list(self._answers):
            answer.close()
        self.stages.close()

    @property
    def digest(self) -> str:
        """SHA-256 over all that the bundle contributes to an answer, the same on every device."""
        return self.bundle.digest_of(self.setup.precision, self.setup.quant)

    def prepare(self) -> None:
        """Start what a question needs and no size decides: the encoders' processes, and the vocabulary.

        Called before scene and clip are read, it hides that time. Encoders of a resident session have no processes.
        """
        self.stages.encoders.prepare(*ENCODERS)
        self.stages.speaker.prepare()

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
        reading: Reading | None = None,
    ) -> Answer:
        """Look at a scene and a clip and answer one question; see `look` and `answer`."""
        check_request(question, max_new_tokens, temperature, seed)
        self.require_positions(max_new_tokens)
        if self._timed(time_instruction):
            # a clip that has no times is refused before encoders run
            clip.timing()
        view = self.look(scene, clip, frames=frames, max_new_tokens=max_new_tokens, reading=reading)
        return self.answer(
            view,
            question,
            time_instruction=time_instruction,
            assistant_header=assistant_header,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def look(
        self,
        scene: Scene,
        clip: Clip,
        *,
        frames: int | None = None,
        max_new_tokens: int = 256,
        reading: Reading | None = None,
    ) -> View:
        """Compute all that does not depend on a question.

        Args:
            scene: the environment.
            clip: the action just seen.
            frames: frames to sample; None takes the bundle's number.
            max_new_tokens: longest answer that is planned for.
            reading: what is known of units and intrinsics, and so not questioned.

        Raises:
            BadInput: scene and clip do not belong together, or are certainly not what they are taken for.
            DoesNotFit: a stage, or the language model after it, needs more memory than is free.
        """
        stages, meter = self.stages, Meter(CLOCKED)
        with meter.measure("scene"):
            scene = upright(scene, clip)
            selection = select_frames(
                clip, scene.poses, frames=frames, default=self.bundle.defaults.frames, offset=scene.offset
            )
            fit = examine(scene, selection, reading, voxel_size=self.bundle.defaults.voxel_size)
        fit.require()
        scene, selection = fit.scene, fit.selection
        voxels = stages.host.voxels(scene, meter)
        # as early as the number of voxels is known: what does not fit is refused before an encoder runs
        self._require_memory(len(selection), len(voxels), max_new_tokens)
        maps = stages.host.maps(voxels, meter)
        stages.require_profiles(voxels, maps, len(selection))
        log_choices(self.options, self.setup)
        # its process reads the graph while this one computes rays
        stages.encoders.load("vision")
        rays = stages.host.rays(scene, selection, voxels, meter)
        video_tokens = stages.vision(stages.host.frames(selection, meter), len(selection), meter)
        points = stages.points(voxels, maps, meter)
        # they are 387 columns for each voxel and patch, worth keeping only for further questions
        encoded = stages.host.encode_rays(rays, meter) if self.options.resident else None
        return View(selection, voxels, rays, points, video_tokens, meter, fit, encoded)

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
        stages, meter = self.stages, view.meter.copy()
        # the vocabulary is read here the first time
        with meter.measure("prompt"):
            prompt = self.prompt(view, question, time_instruction=time_instruction, assistant_header=assistant_header)
            text = stages.embed(prompt.aligner_token_ids)
        rays = view.encoded_rays or stages.host.encode_rays(view.rays, meter)
        prefix = stages.aligner(view.points, rays, view.pooled_features, text, meter)
        video = view.video_tokens.reshape(-1, view.video_tokens.shape[-1])
        self.require_positions(len(prompt) + len(prefix) + len(video) + max_new_tokens)
        choose = partial(sample, temperature=temperature, generator=np.random.default_rng(seed))
        steps = stages.generate(prompt, prefix, video, choose, max_new_tokens, meter)
        transcript = Transcript(steps, self.bundle.stop_ids)
        pieces = text_of(transcript, stages.speaker.vocabulary, assistant_header, meter)
        answer = Answer(view, prompt, prefix, meter, transcript, pieces)
        self._answers.add(answer)
        return answer

    def prompt(
        self, view: View, question: str, *, time_instruction: bool | None = None, assistant_header: bool = True
    ) -> Prompt:
        """The prompt for a question about a view; arguments as in `answer`."""
        timing = view.selection.timing() if self._timed(time_instruction) else None
        tokenize = self.stages.speaker.vocabulary.tokenize
        return build_prompt(question, tokenize, timing=timing, assistant_header=assistant_header)

    def require_positions(self, positions: int) -> None:
        """Raise BadInput when prompt and answer are longer than the model was made for."""
        limit = self.bundle.geometry.llm.context
        if positions > limit:
            raise BadInput(
                f"the prompt and the answer need {positions} positions, the model was made for {limit}; "
                "lower --frames or --max-new-tokens"
            )

    def _require_memory(self, frames: int, voxels: int, max_new_tokens: int) -> None:
        """Raise DoesNotFit when a question of these sizes needs more memory than is free."""
        plan = self.setup.plan(frames, voxels, max_new_tokens)
        require_memory(plan, self.stages.held(plan))

    def _timed(self, time_instruction: bool | None) -> bool:
        return self.bundle.defaults.time_instruction if time_instruction is None else time_instruction


def text_of(transcript: Transcript, vocabulary: Vocabulary, assistant_header: bool, meter: Meter) -> Iterator[str]:
    """Text of an answer as it comes; without the header in the prompt, the model writes it itself."""
    header = () if assistant_header else tuple(vocabulary.tokenize(ASSISTANT_HEADER))

    def piece(token: int) -> bytes:
        with meter.clock("detokenise"):
            return vocabulary.piece(token)

    return decode_text(map(piece, without_header(iter(transcript), header)))


def decide(bundle: Bundle, options: Options) -> Setup:
    """What runs where, with all that the options leave open; arguments and errors as in `Session`."""
    held = (name for name in (*PRECISION_ORDER, *bundle.precisions) if name in bundle.precisions)
    precision = canonical(options.precision) if options.precision else next(held, "fp32")
    # where nothing is said, memory decides: the smallest fits wherever one does
    smallest = min(bundle.quants, key=lambda quant: bundle.size(bundle.llm(quant).file), default="Q4_K_M")
    return Setup(
        bundle=bundle,
        precision=precision,
        quant=options.quant or smallest,
        # cores that this process may use, which a container or taskset may have made fewer
        threads=options.threads or len(os.sched_getaffinity(0)),
        placement=place(options.device, options.strict, bundle, precision),
        gpu_layers=gpu_layers(options.device, options.strict, options.gpu_layers, find_gpu() is not None),
        kv=options.kv,
        flash_attention=options.flash_attention,
        resident=options.resident,
    )


def log_choices(options: Options, setup: Setup) -> None:
    """Say what was decided where the options left it open."""
    if options.precision is None or options.quant is None:
        LOG.info("encoders %s, language model %s, %d threads", setup.precision, setup.quant, setup.threads)
    LOG.info("encoders run on %s", setup.placement.name)
    if setup.precision in setup.bundle.unverified:
        LOG.warning("encoders %s failed their gate at the export, where this was allowed", setup.precision)
    if not setup.placement.on_gpu and INT8 in formats_of(setup.precision).values() and not has_int8_dot_product():
        LOG.warning("this CPU has no dot product of bytes (VNNI): INT8 encoders work, but may be slower than fp32")


def check_request(question: str, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Raise BadInput for what cannot be asked, before anything is computed for it."""
    check_question(question)
    require_at_least({"--max-new-tokens": (max_new_tokens, 1), "--seed": (seed, 0)})
    if not 0 <= temperature < float("inf"):
        raise BadInput(f"--temperature {temperature}: expected a number that is at least 0")
