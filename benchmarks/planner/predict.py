"""How long each stage will take on a device, as a range, and what it will need in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...runtime.bundle.precisions import formats_of
from ...runtime.memory.plan import KV_BYTES, TEXT_TOKENS, EncoderBytes, Plan
from ...runtime.setup import sizes_of
from .devices import Device, Range
from .subject import Subject
from .work import HOST_STAGES, Question, Work, feed_forward_share, output_share, work_of

__all__ = ["Choice", "Prediction", "predict"]

FIRST_TOKEN = (*HOST_STAGES, "start", "vision", "points", "aligner", "prefill")
WANDERS = 0.1


@dataclass(frozen=True)
class Choice:
    """What runs: precision of the encoders, quantisation of the language model, type of its keys and values."""

    precision: str
    quant: str
    kv: str = "f16"

    def __str__(self) -> str:
        return f"{self.precision} encoders, {self.quant}" + (f", {self.kv} keys and values" if self.kv != "f16" else "")


@dataclass(frozen=True)
class Prediction:
    """What a question will take on a device.

    Attributes:
        device: where.
        choice: what runs.
        question: what is asked for.
        plan: of memory.
        memory: bytes at the peak of each stage.
        milliseconds: of each stage.
    """

    device: Device
    choice: Choice
    question: Question
    plan: Plan
    memory: Mapping[str, int]
    milliseconds: Mapping[str, Range]

    @property
    def peak(self) -> int:
        """Bytes of the stage that needs most."""
        return max(self.memory.values())

    @property
    def first_token(self) -> Range:
        """Milliseconds until there is a token, with files in the page cache."""
        stages = [self.milliseconds[stage] for stage in FIRST_TOKEN]
        return Range(sum(stage.low for stage in stages), sum(stage.high for stage in stages))

    @property
    def tokens_per_second(self) -> Range:
        """Rate of the tokens after the first."""
        taken, tokens = self.milliseconds["decode"], self.question.new_tokens - 1
        return Range(tokens / taken.high * 1e3, tokens / taken.low * 1e3) if tokens else Range(0.0, 0.0)


def predict(device: Device, subject: Subject, question: Question, choice: Choice) -> Prediction:
    """Memory and latency of a question."""
    weights, llm = subject.encoders[choice.precision], subject.quants[choice.quant]
    plan = Plan(
        sizes=sizes_of(subject.geometry),
        encoders={name: EncoderBytes(size) for name, size in weights.items()},
        llm=llm,
        quants=subject.quants,
        kv=choice.kv,
        frames=question.frames,
        voxels=question.voxels,
        new_tokens=question.new_tokens,
        processes=device.processes,
    )
    memory = {stage: int(size + device.gpu_process.high) for stage, size in plan.stages().items()}
    work = work_of(subject.geometry, question, weights, llm, KV_BYTES[choice.kv])
    taken = host_stages(device, question, subject.geometry.vision.grid)
    taken["start"] = device.start
    formats, usual = formats_of(choice.precision), "fp16" if device.gpu_process.high else "fp32"
    for stage, needed in work.items():
        taken[stage] = roofline(device, stage, needed, formats.get(stage, usual))
    if choice.quant in device.layers:
        taken |= layered(device, subject, plan, choice.quant)
    return Prediction(device, choice, question, plan, memory, taken)


def host_stages(device: Device, question: Question, grid: int) -> dict[str, Range]:
    """Milliseconds of the stages that the CPU computes."""
    frames, voxels = question.frames, question.voxels
    units = {
        "voxels": {"voxels": voxels},
        "maps": {"maps": voxels},
        "rays": {"rays_frame": frames, "rays": voxels + frames * grid**2},
        "video": {"video": frames},
    }

    def seconds(stage: str) -> Range:
        parts = [(device.host[name] * count, device.fixed.get(name, 0.0)) for name, count in units[stage].items()]
        return Range(*(sum(part[side] + fixed for part, fixed in parts) for side in (0, 1)))

    return {stage: seconds(stage) * 1e3 for stage in HOST_STAGES}


def roofline(device: Device, stage: str, work: Work, precision: str) -> Range:
    """Milliseconds of a stage: loading, and what arithmetic or traffic takes, whichever is more, at the best.

    At the worst, and where a backend lets them take turns, it is their sum.
    """
    share = device.shares[stage]

    def seconds(worst: bool) -> float:
        compute, bandwidth, loading = (
            values.low if worst else values.high for values in (share.compute, share.bandwidth, share.loading)
        )
        arithmetic, traffic = (
            work.flops / (device.flops[precision] * compute),
            work.moved / (device.bandwidth * bandwidth),
        )
        together = arithmetic + traffic if worst or share.apart else max(arithmetic, traffic)
        return together + work.weights / loading

    around_it = share.fixed, share.call * work.calls
    low, high = (sum(each[side] for each in around_it) for side in (0, 1))
    return Range(1e3 * seconds(worst=False) + low, 1e3 * seconds(worst=True) + high)


def layered(device: Device, subject: Subject, plan: Plan, quant: str) -> dict[str, Range]:
    """Milliseconds of prompt and answer from those of one layer, and of the output matrix.

    A prompt's first pass also maps the file's pages, and touches buffers for the first time.
    """
    rates, llm = device.layers[quant], subject.geometry.llm
    positions, more = plan.video + subject.geometry.aligner.latents + TEXT_TOKENS, plan.new_tokens - 1
    output = plan.llm * output_share(llm) / device.bandwidth
    whole = llm.layers - feed_forward_share(llm)
    before = float(rates.prompt_depth.at(np.arange(positions)).sum())
    prompt = positions * whole * rates.position + llm.layers * before
    buffers = plan.libllama()
    prompt += plan.llm / device.mapping + (buffers["kv"] + buffers["compute"]) / device.clearing + output
    read = float(rates.token_depth.at(np.arange(positions, positions + more)).sum())
    answer = more * (llm.layers * rates.token + output) + llm.layers * read
    return {"prefill": around(prompt * 1e3), "decode": around(answer * 1e3)}


def around(milliseconds: float) -> Range:
    """As far to both sides as such a machine's times wander from minute to minute."""
    return Range(milliseconds * (1 - WANDERS), milliseconds * (1 + WANDERS))
