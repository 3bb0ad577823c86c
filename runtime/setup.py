"""What runs, and how, once all is decided: the files of a bundle and the choices made for them."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .bundle.geometry import Geometry
from .bundle.manifest import CPU, ENCODERS, Bundle, Graph, Llm
from .encoders.providers import Placement
from .host.rays import LIVE_COLUMNS
from .llm.libllama import Flag
from .llm.model import LanguageModel
from .llm.pace.choose import Asked, Chosen, Subject, choose
from .llm.placement import ALL_LAYERS
from .llm.rereading import RereadingModel
from .memory.plan import MICRO_BATCH, EncoderBytes, Plan, Sizes, row_bytes, score_bytes

__all__ = ["Setup", "sizes_of"]

# frames that the vision tower encodes together, without an engine that says otherwise
FRAMES_AT_ONCE = 1


@dataclass(frozen=True)
class Setup:
    """What runs, and how, once all is decided.

    Attributes:
        bundle: where the files are.
        precision: of the encoders.
        quant: of the language model.
        threads: CPU threads; by default one for each core of the process.
        placement: where the encoders run.
        gpu_layers: layers of the language model on the GPU, -1 for all.
        kv: type of the language model's keys and values.
        flash_attention: on, off, or None for libllama's own choice.
        resident: whether encoders and language model stay loaded in this process.
        provider: whose graphs ONNX Runtime's CPU provider runs: its own, or the portable ones.
        literal: keep every rounding of the graphs, which ONNX Runtime's optimiser leaves out where it can; slow.
        repack: let libllama keep a packed copy of the weights for its CPU kernels; None leaves it open, and so do the
            two below.
        micro_batch: positions of a prompt that the language model evaluates at once.
        llm_threads: of the language model.
        measure: whether a measurement decides what is open for the language model, flash attention too; else it has
            mapped weights, 512 positions at once, `threads`, and libllama's own choice.
        live: whether these are the stages of a live view, which stay loaded beside those of a session; None where they
            are not, and else whether those stay loaded too.
        recompute: of a further question about the same video, the share of its positions that are read again, while
            keys and values of the others stay; None where all are.
        adapter: a LoRA adapter for the language model.
        outputs: of how many of the last positions the language model keeps the logits.
    """

    bundle: Bundle
    precision: str
    quant: str
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    placement: Placement = field(default_factory=lambda: Placement("the CPU"))
    gpu_layers: int = 0
    kv: str = "f16"
    flash_attention: bool | None = None
    resident: bool = False
    provider: str = CPU
    literal: bool = False
    repack: bool | None = None
    micro_batch: int | None = None
    llm_threads: int | None = None
    measure: bool = False
    live: bool | None = None
    recompute: float | None = None
    adapter: Path | None = None
    outputs: int = 1

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """The encoders' graphs by name; raises BadBundle where the bundle lacks the precision."""
        provider = self.placement.graphs or self.provider
        return {name: self.bundle.graph(name, self.precision, provider) for name in ENCODERS}

    @cached_property
    def llm(self) -> Llm:
        """The language model; raises BadBundle where the bundle lacks it."""
        return self.bundle.llm(self.quant)

    @property
    def files(self) -> list[str]:
        """The bundle's files that are read."""
        engines = [f"{engine.file.relative_to(self.bundle.path)}" for engine in self.placement.engines.values()]
        graphs = [name for graph in self.graphs.values() for name in (graph.file, graph.weights)]
        return [*(engines or graphs), self.llm.file]

    @property
    def map_format(self) -> str:
        """Of the kernel maps that the point encoder takes."""
        engine = self.placement.engines.get("points")
        return (engine.sidecar.maps if engine else self.graphs["points"].maps) or "slabs"

    @property
    def frames_at_once(self) -> int:
        """Frames that the vision tower encodes together: as many as its engine takes, or one."""
        engine = self.placement.engines.get("vision")
        if engine is None:
            return FRAMES_AT_ONCE
        engine.sidecar.require_inputs(["frames"])
        return engine.sidecar.profiles[-1]["frames"][-1][0]

    def encoder_file(self, name: str) -> Path:
        """Graph or engine of an encoder."""
        engine = self.placement.engines.get(name)
        return engine.file if engine else self.bundle.file(self.graphs[name].file)

    def plan(self, frames: int, voxels: int, new_tokens: int) -> Plan:
        """What a question of these sizes will need in memory."""
        bundle, placement = self.bundle, self.placement
        graphs = {name: EncoderBytes(bundle.size(graph.weights)) for name, graph in self.graphs.items()}
        engines = {
            name: EncoderBytes(engine.file.stat().st_size, engine.sidecar.activation_bytes, not placement.shared)
            for name, engine in placement.engines.items()
        }
        return Plan(
            sizes=sizes_of(bundle.geometry),
            encoders=graphs | engines,
            llm=bundle.size(self.llm.file),
            quants={quant: bundle.size(bundle.llm(quant).file) for quant in bundle.quants},
            kv=self.kv,
            frames=frames,
            voxels=voxels,
            new_tokens=new_tokens,
            resident=self.resident if self.live is None else self.live,
            micro_batch=max(self.micro_batch or 0, MICRO_BATCH),
            live=self.live is not None,
            recompute=self.recompute or 0.0,
        )

    def pace(self, context: int, flag: Flag) -> Chosen:
        """How the language model is run for so many positions; raises StllmError where the flag ends a measurement."""
        llm, file = self.bundle.geometry.llm, self.bundle.file(self.llm.file)
        subject = Subject(
            file,
            self.bundle.digest([self.llm.file]),
            layers=0 if self.gpu_layers == ALL_LAYERS else llm.layers - self.gpu_layers,
            on_gpu=self.gpu_layers != 0,
            kv=self.kv,
            positions=context,
            row_bytes=row_bytes(sizes_of(self.bundle.geometry), context),
            score_bytes=score_bytes(llm.heads, context),
        )
        asked = Asked(
            self.repack, self.llm_threads, self.micro_batch, self.flash_attention, self.measure and self.outputs == 1
        )
        return choose(subject, asked, self.threads, flag)

    def load_llm(self, context: int, flag: Flag | None = None, chosen: Chosen | None = None) -> LanguageModel:
        """The language model with a context of so many positions, run as `pace` has it; the caller closes it."""
        flag = flag or Flag()
        pace = (chosen or self.pace(context, flag)).pace
        kind = LanguageModel if self.recompute is None else RereadingModel
        return kind(
            self.bundle.file(self.llm.file),
            vocabulary=self.llm.embedding.rows,
            context=context,
            kv=self.kv,
            flash_attention=pace.flash_attention,
            threads=pace.threads,
            gpu_layers=self.gpu_layers,
            micro_batch=pace.micro_batch,
            repack=pace.packed,
            outputs=self.outputs,
            adapter=self.adapter,
            flag=flag,
        )


def sizes_of(geometry: Geometry) -> Sizes:
    """The sizes of a model that decide what it takes in memory."""
    vision, aligner, llm = geometry.vision, geometry.aligner, geometry.llm
    return Sizes(
        patches=vision.patches,
        vision_width=vision.width,
        vision_mlp=vision.mlp,
        grid=vision.grid,
        point_features=aligner.point_features,
        ray_columns=LIVE_COLUMNS,
        aligner_width=aligner.width,
        aligner_heads=aligner.heads,
        latents=aligner.latents,
        llm_width=llm.width,
        llm_ffn=llm.ffn,
        llm_layers=llm.layers,
        llm_kv=llm.kv_heads * llm.head_width,
        vocabulary=llm.vocabulary,
    )
