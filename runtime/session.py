"""The pipeline: open a bundle, look at a scene and a clip, ask."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .answer import Answer, View
from .bundle.digests import file_digest, joint_digest
from .bundle.manifest import ENCODERS, Bundle
from .bundle.precisions import INT8, canonical, formats_of
from .bundle.table import CLOCKED
from .cache.features import Features, known_verdict
from .cache.keys import Arrays
from .cache.store import Folder, Store
from .control.control import Control
from .control.events import Listener
from .dialogue.asker import Asker
from .dialogue.conversation import Conversation, Turn
from .dialogue.gate import Gate
from .dialogue.live import LiveView
from .dialogue.saving import key_of, load, save
from .encoders.cpu import has_int8_dot_product
from .encoders.gpu import find_gpu
from .encoders.providers import place
from .errors import DoesNotFit, StllmError
from .fit.fit import examine
from .fit.reading import Reading
from .inputs.clip import Clip
from .inputs.scene import Scene
from .inputs.selection import Selection, select_frames, upright
from .llm.placement import gpu_layers
from .llm.prompt import Prompt
from .memory.meter import Meter
from .memory.plan import Plan, require_memory
from .options import Options, Request
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
        folder = Folder(self.options.cache, self.options.cache_size) if self.options.cache else None
        self.store = Store(self.options.cache_memory, folder)
        self._gate = Gate()
        self.asker = Asker(self.stages, self._gate)
        self._questions = ThreadPoolExecutor(1, "questions")
        self.conversation: Conversation | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End answers that are not read to their end, and free what is loaded; a later question loads it again."""
        with self._gate.closing():
            if self.conversation is not None:
                self.conversation.close()
            self.asker.close()
            self.stages.close()
            self.store.clear()

    @property
    def digest(self) -> str:
        """SHA-256 over all that the bundle contributes to an answer, the same on every device."""
        return with_adapter(self.bundle.digest_of(self.setup.precision, self.setup.quant), self.setup.adapter)

    def prepare(self) -> None:
        """Start what a question needs and no size decides: the encoders' processes, and the vocabulary.

        Called before scene and clip are read, it hides that time. Encoders of a resident session have no processes.
        """
        self.stages.encoders.prepare(*ENCODERS)
        self.stages.speaker.prepare()

    def ask(self, scene: Scene, clip: Clip, question: str, *, reading: Reading | None = None, **how: Any) -> Answer:
        """Look at a scene and a clip and answer one question; see `look` and `answer`."""
        return self._ask(scene, clip, reading, *asked(question, **how))

    def look(
        self,
        scene: Scene,
        clip: Clip,
        *,
        frames: int | None = None,
        max_new_tokens: int = 256,
        reading: Reading | None = None,
        listen: Listener = None,
        max_time: float | None = None,
    ) -> View:
        """Compute all that does not depend on a question, or take it from what is known of the same content.

        Args:
            scene: the environment.
            clip: the action just seen.
            frames: frames to sample; None takes the bundle's number.
            max_new_tokens: longest answer that is planned for.
            reading: what is known of units and intrinsics, and so not questioned.
            listen: is called with each event.
            max_time: seconds after which `Cancelled` is raised, wherever the work is.

        Raises:
            BadInput: scene and clip do not belong together, or are certainly not what they are taken for.
            DoesNotFit: a stage, or the language model after it, needs more memory than is free.
            Cancelled: `cancel` was called, or the time is over.
        """
        with self._gate.question(Control(listen, max_time)) as control:
            view = self._look(scene, clip, Looking(frames, max_new_tokens, reading), control)
            control.finish()
            return view

    def answer(self, view: View, question: str, **how: Any) -> Answer:
        """Answer a question about a view; the text is generated while the answer is iterated over.

        A resident session has one language model, so an answer is read to its end before the next one is begun.

        Args:
            view: from `look`.
            question: in words.
            how: fields of `Request`, as `max_new_tokens`, `max_time`, `temperature`, `choices`, `time_instruction`;
                `assistant_header=False` for a prompt whose header the model writes itself; and `listen`, which is
                called with each event.

        Raises:
            BadInput: the question or an option cannot be used.
            Cancelled: `cancel` was called, or the time is over before there is a token.
            StllmError: another thread is at work with the session.
        """
        return self._answer(view, *asked(question, **how))

    def ask_async(
        self, scene: Scene, clip: Clip, question: str, *, reading: Reading | None = None, **how: Any
    ) -> AsyncIterator[str]:
        """`ask` for `asyncio`: `async for piece in session.ask_async(…)`; questions wait for those before them."""
        request, control = asked(question, **how)
        return self._stream(partial(self._ask, scene, clip, reading, request), control)

    def answer_async(self, view: View, question: str, **how: Any) -> AsyncIterator[str]:
        """`answer` for `asyncio`, as `ask_async`."""
        request, control = asked(question, **how)
        return self._stream(partial(self._answer, view, request), control)

    def _stream(self, begin: Callable[[Control], Answer], control: Control) -> AsyncIterator[str]:
        # asyncio takes time and megabytes that a process without it is spared
        from .dialogue.asynchronous import stream

        return stream(self._questions, begin, control)

    def _ask(self, scene: Scene, clip: Clip, reading: Reading | None, request: Request, control: Control) -> Answer:
        with self._gate.question(control):
            self.asker.require_possible(clip, request)
            view = self._look(scene, clip, Looking(request.frames, request.max_new_tokens, reading), control)
            return self.asker.answer(view, request, view.meter)

    def _answer(self, view: View, request: Request, control: Control) -> Answer:
        with self._gate.question(control):
            return self.asker.answer(view, request, view.meter.copy(control))

    def converse(self, view: View, turns: Sequence[Turn] = ()) -> Conversation:
        """Questions about a view that follow each other, after those of a transcript if there is one."""
        self.conversation = Conversation(self.asker, view, turns)
        return self.conversation

    def save(self, path: Path | str) -> None:
        """Write the conversation that was begun last: its features, transcript, and keys and values; see `save`."""
        if self.conversation is None:
            raise StllmError("there is nothing to save; begin a conversation with converse(view)")
        save(Path(path), key_of(self.digest, self.setup), self.conversation)

    @classmethod
    def load(cls, path: Path | str, bundle: Bundle | Path | str, options: Options | None = None) -> "Session":
        """A session whose `conversation` is one that was saved; BadInput where that was with another bundle."""
        session = cls(bundle, options)
        session.conversation = load(Path(path), key_of(session.digest, session.setup), session.asker)
        return session

    def watch(
        self,
        scene: Scene,
        *,
        frames: int | None = None,
        window: int | None = None,
        backlog: int = 8,
        max_new_tokens: int = 256,
        reading: Reading | None = None,
    ) -> LiveView:
        """A view of a scene that takes frames as they come; see `LiveView`.

        By default it samples the bundle's number of frames, and keeps as many. Raises DoesNotFit where its encoders
        have no room beside the language model.
        """
        setup = replace(self.setup, resident=True, live=self.setup.resident)
        count, stages = frames or self.bundle.defaults.frames, Stages(setup)
        looking = Looking(None, max_new_tokens, reading, count, self.stages.held)
        require_memory(plan := setup.plan(count, 1, max_new_tokens), self.stages.held(plan))
        look = partial(look_at, stages, self.store, scene, looking=looking)

        def encode(clip: Clip, control: Control) -> None:
            every = Selection(clip, tuple(range(len(clip))), np.zeros((len(clip), 4, 4)))
            Features(stages, self.store, scene, every, Meter(CLOCKED, control=control)).vision()

        return LiveView(look, encode, self.answer, stages.close, frames=count, window=window or count, backlog=backlog)

    def cancel(self) -> None:
        """End the question that is at work, from any thread; its thread gets `Cancelled`, and the session goes on."""
        self._gate.cancel()

    def prompt(self, view: View, question: str, **how: Any) -> Prompt:
        """The prompt for a question about a view; arguments as in `answer`."""
        return self.asker.prompt(view, Request.of(question, **how))

    def _look(self, scene: Scene, clip: Clip, looking: "Looking", control: Control) -> View:
        view = look_at(self.stages, self.store, scene, clip, control, looking)
        log_choices(self.options, self.setup)
        return view

    def require_positions(self, positions: int) -> None:
        """Raise BadInput when prompt and answer are longer than the model was made for."""
        self.asker.require_positions(positions)


def asked(question: str, *, listen: Listener = None, **how: Any) -> tuple[Request, Control]:
    """A question with its options, and what ends it; raises BadInput for what cannot be asked."""
    request = Request.of(question, **how)
    return request, Control(listen, request.max_time)


@dataclass(frozen=True)
class Looking:
    """How to look; fields as the arguments of `Session.look`, and two more.

    Attributes:
        default: for the bundle's number of frames.
        beside: bytes of a plan that other stages hold.
    """

    frames: int | None = None
    max_new_tokens: int = 256
    reading: Reading | None = None
    default: int | None = None
    beside: Callable[[Plan], int] = lambda plan: 0


def look_at(
    stages: Stages, store: Store, scene: Scene, clip: Clip, control: Control, looking: Looking = Looking()
) -> View:
    """The stages that do not depend on a question; arguments and errors as in `Session.look`."""
    setup, defaults, meter = stages.setup, stages.setup.bundle.defaults, Meter(CLOCKED, control=control)
    arrays = Arrays()
    with meter.measure("scene"):
        scene, default = upright(scene, clip), looking.default or defaults.frames
        selection = select_frames(clip, scene.poses, frames=looking.frames, default=default, offset=scene.offset)
        once = partial(known_verdict, store, arrays)
        fit = examine(scene, selection, looking.reading, voxel_size=defaults.voxel_size, once=once)
    fit.require()
    known = Features(stages, store, fit.scene, fit.selection, meter, arrays)
    voxels = known.voxels()
    # as early as the number of voxels is known: what does not fit is refused before an encoder runs
    plan = setup.plan(len(selection), len(voxels), looking.max_new_tokens)
    held = stages.held(plan) + looking.beside(plan)
    try:
        require_memory(plan, held)
    except DoesNotFit:
        # what is known of other scenes and clips goes first
        store.clear()
        require_memory(plan, held)
    maps = known.maps(voxels)
    stages.require_profiles(voxels, maps, len(selection))
    if maps is not None:
        # frames of a new scene are new: their encoder's process reads its graph while this one computes rays
        stages.encoders.load("vision")
    rays = known.rays(voxels)
    video_tokens = known.vision()
    points = known.points(voxels, maps)
    # they are 387 columns for each voxel and patch, worth keeping only for further questions
    encoded = known.encode_rays(rays) if setup.resident else None
    return View(fit.selection, voxels, rays, points, video_tokens, meter, fit, encoded)


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
        repack=options.packed,
        micro_batch=options.micro_batch,
        llm_threads=options.threads,
        measure=options.measure,
        recompute=None if options.reuse_video is None else options.recompute or 0.0,
        adapter=options.adapter,
    )


def with_adapter(digest: str, adapter: Path | None) -> str:
    """A bundle's digest together with that of an adapter, if there is one."""
    return digest if adapter is None else joint_digest({"bundle": digest, "adapter": file_digest(adapter)})


def log_choices(options: Options, setup: Setup) -> None:
    """Say what was decided where the options left it open."""
    if options.precision is None or options.quant is None:
        LOG.info("encoders %s, language model %s, %d threads", setup.precision, setup.quant, setup.threads)
    LOG.info("encoders run on %s", setup.placement.name)
    if setup.precision in setup.bundle.unverified:
        LOG.warning("encoders %s failed their gate at the export, where this was allowed", setup.precision)
    if not setup.placement.on_gpu and INT8 in formats_of(setup.precision).values() and not has_int8_dot_product():
        LOG.warning("this CPU has no dot product of bytes (VNNI): INT8 encoders work, but may be slower than fp32")
