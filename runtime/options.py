"""How to run a bundle, and what to ask it, as a user chooses."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import BadInput, require_at_least
from .inputs.recordings.choices import BagChoices
from .llm.placement import ALL_LAYERS, check_kv
from .llm.sampling import Sampling

__all__ = ["APPROXIMATE", "Options", "Recording", "Request"]

# libllama's own limit
MOST_THREADS = 512
APPROXIMATE = "approximate"
# positions of a prompt; more takes memory, and is no faster
MOST_AT_ONCE = 8192
GIGABYTE = 10**9
# of the longest wait that the system knows
MOST_SECONDS = 10**6


@dataclass(frozen=True)
class Options:
    """How to run; None lets the session decide, and what it decided is logged.

    Attributes:
        precision: of the encoders: fp32, fp16, int8 or a mix, as the bundle holds it.
        quant: of the language model, as the bundle names it.
        threads: CPU threads.
        kv: type of the language model's keys and values, f16, q8_0 or f32.
        flash_attention: on, off, or libllama's own choice.
        device: where the encoders run, auto, cpu, cuda or tensorrt.
        strict: whether running elsewhere than on that device is an error.
        packed: whether the language model is run from a copy of its weights in the layout of the CPU's kernels.
        micro_batch: positions of a prompt that it evaluates at once.
        measure: whether what is left open of these two, of flash attention and of the language model's threads is
            decided by a measurement, which is made once a machine and model, and remembered.
        gpu_layers: layers of the language model on the GPU, -1 for all; None for none with the device cpu, else all.
        resident: keep the encoders and the language model loaded in this process until the session is closed, instead
            of encoders in short-lived processes: quicker from the second question on, and takes more memory.
        adapter: GGUF file of a LoRA adapter for the language model.
        check_digests: hash the bundle's files even if they look unchanged.
        cache: folder where features of scenes and frames are kept for other processes; None for memory alone.
        cache_size: bytes that the folder takes at most.
        cache_memory: bytes of features that are kept in memory at most.
        reuse_video: `approximate` keeps the video's keys and values from one question to the next about the same scene
            and clip, though they depend on the question; None reads all again, which is exact.
        recompute: share of the video's positions that are read again all the same, 0..1; none by default.
    """

    precision: str | None = None
    quant: str | None = None
    threads: int | None = None
    kv: str = "f16"
    flash_attention: bool | None = None
    packed: bool | None = None
    micro_batch: int | None = None
    measure: bool = True
    device: str = "auto"
    strict: bool = False
    gpu_layers: int | None = None
    resident: bool = False
    adapter: Path | None = None
    check_digests: bool = False
    cache: Path | None = None
    cache_size: int = 2 * GIGABYTE
    cache_memory: int = GIGABYTE // 4
    reuse_video: str | None = None
    recompute: float | None = None

    def check(self) -> None:
        """Raise BadInput when a value is not known, or when two contradict each other."""
        check_kv(self.kv, self.flash_attention)
        if self.reuse_video not in (None, APPROXIMATE):
            raise BadInput(f"--reuse-video {self.reuse_video}: unknown; known is {APPROXIMATE}")
        if self.recompute is not None and self.reuse_video is None:
            raise BadInput(f"--recompute goes with --reuse-video {APPROXIMATE}; without it all is computed again")
        if self.recompute is not None and not 0 <= self.recompute < 1:
            raise BadInput(f"--recompute {100 * self.recompute:g}%: expected 0% up to less than 100%")
        require_at_least({"--cache-size": (self.cache_size, 0), "--cache-memory": (self.cache_memory, 0)})
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise BadInput(f"--threads {self.threads}: expected 1 to {MOST_THREADS}")
        if self.micro_batch is not None and not 1 <= self.micro_batch <= MOST_AT_ONCE:
            raise BadInput(f"--micro-batch {self.micro_batch}: expected 1 to {MOST_AT_ONCE} positions")
        if self.gpu_layers is not None and self.gpu_layers < ALL_LAYERS:
            raise BadInput(f"--gpu-layers {self.gpu_layers}: expected a number of layers, or {ALL_LAYERS} for all")


@dataclass(frozen=True)
class Recording:
    """Which files hold scene and clip, and how they are meant; fields as the options of `stllm-run`.

    Attributes:
        scene: scene folder or point cloud.
        video: folder of frames or video file.
        poses: folder of poses, if not in the scene's.
        intrinsics: file of intrinsics, if not in the scene's folder.
        intrinsics_of: size of the frames that the intrinsics are of, or auto; None where it is these frames'.
        cameras: file or folder of poses, and of intrinsics where its format holds some, in place of the scene's.
        pose_convention: how poses are meant.
        crop: leave out points further than this from the middle of the cloud along an axis, metres.
        glb: which geometries of a GLB, all or the first as it is stored.
        depth_scale: number in a depth frame that stands for one metre.
        scale: metres a unit, for cloud and poses or for each, or auto; None where they are metres.
        fps: frames a second, if the clip does not say.
        video_seconds: length, if the clip does not say.
        first_frame: number of the first frame.
        bag: a recording of a robot, in place of the video, and of the scene where none is given.
        bag_choices: what of the recording is meant.
    """

    scene: Path | None = None
    video: Path | None = None
    poses: Path | None = None
    intrinsics: Path | None = None
    intrinsics_of: str | None = None
    cameras: Path | None = None
    pose_convention: str = "c2w"
    scale: str | None = None
    crop: float | None = None
    glb: str = "all"
    depth_scale: float = 1000.0
    fps: float | None = None
    video_seconds: float | None = None
    first_frame: int = 0
    bag: Path | None = None
    bag_choices: BagChoices = field(default_factory=BagChoices)

    def check(self) -> None:
        """Raise BadInput unless either a bag is given, or a scene and a video, with nothing that is of the other."""
        if self.bag is None:
            if self.bag_choices != BagChoices():
                raise BadInput("options of a recording are given without one; give --bag with them")
            if self.scene is None or self.video is None:
                raise BadInput("--scene and --video go together; give both, or --bag")
            return
        plain = Recording()
        for name in ("video", "poses", "cameras", "fps", "video_seconds", "first_frame"):
            if getattr(self, name) != getattr(plain, name):
                raise BadInput(f"--bag and --{name.replace('_', '-')} are both given; the recording says that itself")


@dataclass(frozen=True)
class Request(Sampling):
    """What is asked, and how it is answered; fields as the options of `stllm-run`, those of `Sampling` among them.

    Attributes:
        question: in words.
        frames: frames to sample; None takes the bundle's number.
        time_instruction: whether the prompt states the clip's times; None takes the bundle's default.
        bare_prompt: whether the prompt leaves the assistant's header to the model.
        max_new_tokens: longest answer.
        max_time: seconds after which the answer ends with what there is; None for no end.
    """

    question: str = ""
    frames: int | None = None
    time_instruction: bool | None = None
    bare_prompt: bool = False
    max_new_tokens: int = 256
    max_time: float | None = None

    @classmethod
    def of(cls, question: str, *, assistant_header: bool = True, **how: Any) -> "Request":
        """A request from the keywords of `Session.answer`; raises BadInput for what cannot be asked."""
        request = cls(question=question, bare_prompt=not assistant_header, **how)
        request.check()
        return request

    def how(self) -> dict[str, Any]:
        """All but the question, as keywords of `Session.answer`."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        del named["question"]
        return {"assistant_header": not named.pop("bare_prompt"), **named}

    def about(self, question: str) -> "Request":
        """The same with another question."""
        return replace(self, question=question)

    def check(self) -> None:
        """Raise BadInput for what cannot be asked, before anything is computed for it."""
        # not above: it imports numpy, and every --help passes by here
        from .llm.prompt import check_question

        check_question(self.question)
        require_at_least({"--max-new-tokens": (self.max_new_tokens, 1)})
        if self.max_time is not None and not 0 < self.max_time < MOST_SECONDS:
            raise BadInput(f"--max-time {self.max_time}: expected seconds above 0")
        super().check()
        if self.bare_prompt and self.grammar is not None:
            raise BadInput("--bare-prompt leaves the header to the model, which no grammar allows; leave it out")
