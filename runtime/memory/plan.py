"""What a question will need in memory, stage by stage, said before anything is loaded.

Two processes are resident at the peak of an encoder: the one that reads the inputs, and the encoder's own; what one
sends to the other is in both. The terms are those of the largest arrays of each. Their factors were fitted to peaks
measured on models of three sizes, and err on the side of more. For a TensorRT engine its builder's report takes their
place: on a board the GPU's memory is the host's. All is computed from numbers, so a plan can be made where neither
bundle nor device is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..errors import DoesNotFit
from .counters import available

__all__ = ["MICRO_BATCH", "EncoderBytes", "Plan", "Processes", "Sizes", "require_memory", "row_bytes", "score_bytes"]

FLOAT, HALF = 4, 2
# a voxel's kernel maps, and in this process its index, colour and direction too
MAP_BYTES, VOXEL_BYTES = 300, 380
# what the point encoder's first layers take of a voxel, whatever their widths are, besides its kernel maps
STEM_BYTES = 950
# of the tokenizer's tables, a token; and of the file's metadata, which libllama reads with the language model
TOKEN_BYTES, METADATA_BYTES = 120, 200
# for how many heads the aligner holds keys and values of the points together
HEADS_AT_ONCE = 4
# as the language model is run, a layer above this module
MICRO_BATCH, CONTEXT_STEP = 512, 256
TEXT_TOKENS = 160
# what a live view loads
LIVE = ("vision", "points")
# q8_0 has a 16-bit scale for every 32 values
KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}


@dataclass(frozen=True)
class Processes:
    """What processes take by themselves, with their libraries, bytes.

    By default as much as in the first run after an installation, 86 and 67 MB; where bytecode is compiled and files
    were read before, it is 72 and 58 MB. Compiling leaves 11 MB in the allocator, and the kernel maps more of a file
    that it has just read in one piece.

    Attributes:
        main: the one that reads the inputs and runs the language model.
        worker: one that runs an encoder.
    """

    main: int = 88 * 10**6
    worker: int = 70 * 10**6


@dataclass(frozen=True)
class Sizes:
    """A model's sizes that decide what it takes, in elements.

    Attributes:
        patches: patches of a frame, before pooling.
        vision_width: hidden size of the vision tower.
        vision_mlp: hidden size of its feed-forward part.
        grid: pooled patches along one side of a frame.
        point_features: width of a point feature.
        ray_columns: columns of an encoded view direction.
        aligner_width: hidden size of the aligner.
        aligner_heads: its attention heads.
        latents: its queries, which become the prefix tokens.
        llm_width: hidden size of the language model.
        llm_ffn: hidden size of its feed-forward part.
        llm_layers: its layers.
        llm_kv: width of its keys, and of its values, in a layer.
        vocabulary: its tokens.
    """

    patches: int
    vision_width: int
    vision_mlp: int
    grid: int
    point_features: int
    ray_columns: int
    aligner_width: int
    aligner_heads: int
    latents: int
    llm_width: int
    llm_ffn: int
    llm_layers: int
    llm_kv: int
    vocabulary: int


@dataclass(frozen=True)
class EncoderBytes:
    """What is known of an encoder's memory, bytes.

    Attributes:
        weights: of its weights, or of its engine.
        activations: what the engine's builder reported; with 0, or of a graph, they are computed from the sizes.
        on_card: whether it lies in a card's own memory, which is not counted.
    """

    weights: int
    activations: int = 0
    on_card: bool = False


@dataclass(frozen=True)
class Plan:
    """A question's sizes and the choices that decide what it takes.

    Attributes:
        sizes: of the model.
        encoders: vision, points and aligner.
        llm: bytes of the language model's file.
        quants: bytes of each quantisation that may be taken instead.
        kv: type of keys and values.
        frames: frames that are sampled.
        voxels: voxels of the scene.
        new_tokens: longest answer.
        resident: whether the stages stay loaded side by side.
        processes: what they take by themselves.
        micro_batch: positions of a prompt that the language model evaluates at once, at most.
        live: whether a live view's encoders of frames and points stay loaded too, beside all that comes after them.
        recompute: share of the video's positions that approximate reuse reads again, beside what it keeps.
    """

    sizes: Sizes
    encoders: Mapping[str, EncoderBytes]
    llm: int
    quants: Mapping[str, int]
    kv: str
    frames: int
    voxels: int
    new_tokens: int
    resident: bool = False
    processes: Processes = Processes()
    micro_batch: int = MICRO_BATCH
    live: bool = False
    recompute: float = 0.0

    def stages(self) -> dict[str, int]:
        """Bytes that are resident at the peak of each stage, over all processes."""
        main, both = self.processes.main, self.processes.main + self.processes.worker
        taken = self.taken()
        # a live view's are in this process, with the libraries that a worker has
        beside = self.processes.worker + sum(taken[name] for name in LIVE) if self.live else 0
        return {
            stage: int(beside + more + (main if stage == "llm" else both))
            for stage, more in taken.items()
            if not (self.live and stage in LIVE)
        }

    def taken(self) -> dict[str, float]:
        """Bytes that each stage adds to what the processes take by themselves."""
        sizes, patches = self.sizes, self.frames * self.sizes.grid**2
        tokens = self.video * sizes.llm_width * FLOAT
        features = self.voxels * sizes.point_features * FLOAT
        rays = (self.voxels + patches) * sizes.ray_columns * FLOAT
        rows = patches + sizes.latents + TEXT_TOKENS
        host = VOXEL_BYTES * self.voxels + tokens + TOKEN_BYTES * sizes.vocabulary
        return {
            "vision": host + self._encoder("vision", 12 * sizes.patches * (sizes.vision_mlp + 4 * sizes.vision_width)),
            "points": host
            + self._encoder("points", self.voxels * STEM_BYTES + features)
            + self.voxels * MAP_BYTES
            + 2 * features,
            "aligner": host
            + self._encoder("aligner", self._crossing() + 8 * rows * sizes.aligner_width * FLOAT)
            + 2 * (features + rays + tokens),
            "llm": host
            + sum(self.libllama().values())
            + METADATA_BYTES * sizes.vocabulary
            + tokens
            + features
            # the first layer by itself, and what it gave for two questions
            + (self.llm / sizes.llm_layers + 3 * tokens if self.recompute else 0),
        }

    @property
    def video(self) -> int:
        """Tokens of the frames, with one at the end of each row."""
        return self.frames * self.sizes.grid * (self.sizes.grid + 1)

    def libllama(self) -> dict[str, float]:
        """Bytes of the buffers that libllama reports: weights, keys and values, and what it computes in."""
        sizes = self.sizes
        positions = self.video * (1 + self.recompute) + sizes.latents + TEXT_TOKENS + self.new_tokens
        cells = int(-(-positions // CONTEXT_STEP)) * CONTEXT_STEP
        return {
            "weights": self.llm,
            "kv": 2 * cells * sizes.llm_layers * sizes.llm_kv * KV_BYTES[self.kv],
            "compute": self.micro_batch * row_bytes(sizes, cells),
        }

    def peak(self) -> int:
        """Bytes of the stage that needs most, or of all together when they stay loaded."""
        if not self.resident:
            return max(self.stages().values())
        # stages in one process have its libraries once
        taken = self.taken()
        live = sum(taken[name] for name in LIVE) if self.live else 0
        return int(self.processes.main + self.processes.worker + sum(taken.values()) + live)

    def smaller(self) -> Iterator[tuple[str, "Plan"]]:
        """Options that need less, with the plan that each leads to, and all of them together."""
        together = self
        if self.resident:
            together = replace(together, resident=False)
            yield "--no-resident", together
        for quant, size in self.quants.items():
            if size < together.llm:
                together = replace(together, llm=size)
                yield f"--quant {quant}", replace(self, llm=size)
        if self.kv != "q8_0":
            together = replace(together, kv="q8_0")
            yield "--kv q8_0", replace(self, kv="q8_0")
        if self.frames > 1:
            half = self.frames // 2
            together = replace(together, frames=half)
            yield f"--frames {half}", replace(self, frames=half)
        yield "all of these together", together

    def _crossing(self) -> float:
        """Bytes of the points in the aligner: with their rays, and as keys and values of some heads, each twice."""
        sizes = self.sizes
        share = min(HEADS_AT_ONCE, sizes.aligner_heads) / sizes.aligner_heads
        return self.voxels * sizes.aligner_width * FLOAT * (2.5 + 4 * share)

    def _encoder(self, name: str, activations: float) -> float:
        """Bytes of an encoder's weights and of what it computes, which the report of its builder knows better."""
        encoder = self.encoders[name]
        return 0 if encoder.on_card else encoder.weights + (encoder.activations or activations)


def row_bytes(sizes: Sizes, cells: int) -> float:
    """Bytes that libllama computes in, for each position of a micro-batch, with so many positions of context."""
    return (3 * sizes.llm_ffn + 4 * sizes.llm_width) * FLOAT + cells * HALF


def score_bytes(heads: int, cells: int) -> float:
    """Bytes more of each position without flash attention: its scores, before and after they are normalised."""
    return 2 * heads * cells * FLOAT


def require_memory(plan: Plan, held: int = 0) -> None:
    """Compare a plan with the memory that is free, and with `held` bytes that its stages occupy already.

    Raises:
        DoesNotFit: it does not fit; the message says what each stage needs, what is there, and what would fit.
    """
    free = available()
    if free is None:
        return
    free += held
    if plan.peak() <= free:
        return
    stages = ", ".join(f"{stage} {peak / 1e6:.0f} MB" for stage, peak in plan.stages().items())
    fitting = [option for option, other in plan.smaller() if other.peak() <= free]
    remedy = f"{' or '.join(fitting)} would fit" if fitting else "no option of stllm-run makes it fit"
    together = " together" if plan.resident else ""
    raise DoesNotFit(f"the question needs {stages}{together}; {free / 1e6:.0f} MB are free; {remedy}")
