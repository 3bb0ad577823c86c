"""What a question will need in memory, stage by stage, said before anything is loaded.

The terms are those of the largest arrays of each stage. Their factors were fitted to peaks measured on the released
model's size, and err on the side of more. For a TensorRT engine its builder's report takes their place: on a board the
GPU's memory is the host's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..bundle.manifest import Bundle
from ..encoders.engines import Engine
from ..errors import DoesNotFit
from ..host.rays import LIVE_COLUMNS
from .counters import available

__all__ = ["Plan", "require_memory"]

FLOAT = 4
# this process and one that works for it, with their libraries
PROCESS = 150 * 2**20
MICRO_BATCH = 512
TEXT_TOKENS = 160
KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}


@dataclass(frozen=True)
class Plan:
    """A question's sizes and the choices that decide what it takes.

    Attributes:
        bundle: the bundle.
        precision: of the encoders.
        quant: of the language model.
        provider: whose graphs.
        kv: type of keys and values.
        frames: frames that are sampled.
        voxels: voxels of the scene.
        new_tokens: longest answer.
        resident: whether the stages stay loaded side by side.
        engines: TensorRT engines by encoder, where they run.
        shared: whether the GPU's memory is the system's; what lies on a card is not counted.
    """

    bundle: Bundle
    precision: str
    quant: str
    provider: str
    kv: str
    frames: int
    voxels: int
    new_tokens: int
    resident: bool = False
    engines: Mapping[str, Engine] = field(default_factory=dict)
    shared: bool = True

    def stages(self) -> dict[str, int]:
        """Bytes that are resident at the peak of each stage, over all processes."""
        geometry = self.bundle.geometry
        vision, aligner, llm = geometry.vision, geometry.aligner, geometry.llm
        tokens = self.frames * vision.grid * (vision.grid + 1) * llm.width * FLOAT
        features = self.voxels * aligner.width * FLOAT
        rays = (self.voxels + self.frames * vision.grid**2) * LIVE_COLUMNS * FLOAT
        rows = self.frames * vision.grid**2 + aligner.latents + TEXT_TOKENS
        positions = self.frames * vision.grid * (vision.grid + 1) + aligner.latents + TEXT_TOKENS + self.new_tokens
        kv = 2 * positions * llm.layers * llm.kv_heads * llm.head_width * KV_BYTES[self.kv]
        buffer = MICRO_BATCH * (3 * llm.ffn + 8 * llm.width) * FLOAT + positions * MICRO_BATCH * 2
        peaks = {
            "vision": self._encoder("vision", 12 * vision.patches * (vision.mlp + 4 * vision.width)) + tokens,
            "points": self._encoder("points", self.voxels * FLOAT * (12 * geometry.points.channels[-1])) + 2 * features,
            "aligner": self._encoder("aligner", 5 * features + 2 * tokens + 8 * rows * aligner.width * FLOAT)
            + 2 * (features + rays + tokens),
            "llm": self.bundle.size(self.bundle.llm(self.quant).file) + kv + buffer + 2 * tokens + features,
        }
        return {stage: int(PROCESS + peak) for stage, peak in peaks.items()}

    def peak(self) -> int:
        """Bytes of the stage that needs most, or of all together when they stay loaded."""
        peaks = self.stages().values()
        return sum(peaks) - (len(peaks) - 1) * PROCESS if self.resident else max(peaks)

    def smaller(self) -> Iterator[tuple[str, "Plan"]]:
        """Options that need less, with the plan that each leads to, and all of them together."""
        together = self
        if self.resident:
            together = replace(together, resident=False)
            yield "--no-resident", together
        for quant in self.bundle.quants:
            if self.bundle.size(self.bundle.llm(quant).file) < self.bundle.size(self.bundle.llm(together.quant).file):
                together = replace(together, quant=quant)
                yield f"--quant {quant}", replace(self, quant=quant)
        if self.kv != "q8_0":
            together = replace(together, kv="q8_0")
            yield "--kv q8_0", replace(self, kv="q8_0")
        if self.frames > 1:
            half = self.frames // 2
            together = replace(together, frames=half)
            yield f"--frames {half}", replace(self, frames=half)
        yield "all of these together", together

    def _encoder(self, name: str, activations: int) -> int:
        """Bytes of an encoder's weights and of what it computes, which an engine's sidecar knows better."""
        engine = self.engines.get(name)
        if engine is None:
            return self.bundle.size(self.bundle.graph(name, self.precision, self.provider).weights) + activations
        # an engine whose builder reported nothing is taken to need what the graph does
        return engine.file.stat().st_size + (engine.sidecar.activation_bytes or activations) if self.shared else 0


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
