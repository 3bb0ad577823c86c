"""What runs, and how, once all is decided: the files of a bundle and the choices made for them."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .bundle.geometry import Geometry
from .bundle.manifest import CPU, ENCODERS, Bundle, Graph, Llm
from .encoders.providers import Placement
from .host.rays import LIVE_COLUMNS
from .llm.model import LanguageModel
from .llm.packing import pays_to_pack
from .llm.placement import ALL_LAYERS
from .memory.plan import EncoderBytes, Plan, Sizes

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
        repack: let libllama keep a packed copy of the weights for its CPU kernels; None does where the memory is free
            and a measurement says that it pays.
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
            resident=self.resident,
        )

    def load_llm(self, context: int) -> LanguageModel:
        """The language model with a context of so many positions; the caller closes it."""
        path, repack, layers = self.bundle.file(self.llm.file), self.repack, self.bundle.geometry.llm.layers
        if repack is None:
            on_cpu = 0 if self.gpu_layers == ALL_LAYERS else layers - self.gpu_layers
            repack = pays_to_pack(path, layers=on_cpu, positions=context, threads=self.threads)
        return LanguageModel(
            path,
            vocabulary=self.llm.embedding.rows,
            context=context,
            kv=self.kv,
            flash_attention=self.flash_attention,
            threads=self.threads,
            gpu_layers=self.gpu_layers,
            repack=repack,
            outputs=self.outputs,
            adapter=self.adapter,
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
