"""The machine itself as a device: bandwidth, products, process start, host stages and layers, in under a minute."""

import json
import logging
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.geometry import VisionGeometry
from ...runtime.encoders.child import ChildEncoder
from ...runtime.encoders.cpu import has_int8_dot_product
from ...runtime.encoders.local import LocalEncoder
from ...runtime.errors import BadInput, StllmError
from ...runtime.fit.fit import examine
from ...runtime.inputs.clip import load_clip
from ...runtime.inputs.scene import load_scene
from ...runtime.inputs.selection import select_frames
from ...runtime.llm.libllama import Flag, libllama
from ...runtime.llm.pace.bench import Bench, Pace
from ...runtime.memory.allocator import keep_freed_blocks
from ...runtime.memory.counters import PROC, own_usage
from ...runtime.memory.plan import Processes
from ...runtime.session import Session
from ...runtime.stages import HostStages
from ..world.rooms import write_room
from .devices import THIS, DepthCost, Device, LayerRates, Range, cpu_shares
from .subject import Subject

__all__ = ["measure"]

LOG = logging.getLogger(__name__)
# one matrix product, `onnx.helper.make_node("MatMul", ["a", "b"], ["product"])`: what the encoders' graphs are made of
GRAPH = Path(__file__).with_name("matmul.onnx")
# larger than caches, in bytes; rows and columns of a product that is as fast as products get
LARGE, SIDE = 2**28, 1536
# how much more a tower in INT8 does a second than in float32, of which the products are the most
INT8_GAIN = 2.4
SECONDS = 1.0
ROUNDS = 3
# processes that compute rays while others load: how much they are held up differs; where rays stand among the stages
PROCESSES, RAYS = 7, slice(2, 4)
# voxels and frames that the host's stages are timed at
SIZES = ((2_000, 4), (20_000, 16))
# positions that a layer reads at once when it is timed; type of keys and values
BATCH, KV = 512, "f16"
# positions before those: scores of attention leave the caches on the way to a long prompt, so it is no straight line
DEPTHS = (2048, 6144)


def measure(subject: Subject) -> Device:
    """Measure this machine for the sizes of a model.

    Raises:
        BadInput: the machine does not tell its memory.
        MissingDependency: ONNX Runtime or libllama is not installed.
    """
    threads = len(os.sched_getaffinity(0))
    begin = time.perf_counter()
    visible, free = memory()
    bandwidth, gemm = read_rate(threads), product_rate(threads)
    start, worker = worker_start(threads)
    host, fixed, main = host_costs(subject)
    LOG.info(
        "this machine: %.1f GB/s, %.0f GFLOP/s in fp32 on %d threads, a process in %.0f ms; measured in %.0f s",
        *(bandwidth / 1e9, gemm / 1e9, threads, start * 1e3, time.perf_counter() - begin),
    )
    return Device(
        name=THIS,
        title=f"this machine, {threads} threads of its CPU",
        visible=visible,
        idle=Range(visible - free, visible - free),
        bandwidth=bandwidth,
        # on a CPU, fp16 graphs are computed in fp32
        flops={"fp32": gemm, "fp16": gemm, "int8": gemm * (INT8_GAIN if has_int8_dot_product() else 1)},
        gpu_process=Range(0, 0),
        host=host,
        fixed=fixed,
        start=Range(0.0, 0.0),
        shares=cpu_shares(),
        sources={"all": "measured now", **{stage: share.source for stage, share in cpu_shares().items()}},
        processes=Processes(main, worker),
        layers=layer_rates(subject.files, threads),
        mapping=mapping_rate(),
        clearing=clearing_rate(),
    )


def memory() -> tuple[int, int]:
    """Bytes that the kernel has, and that a new process may use."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        sizes = {key: int(rest.split()[0]) * 1024 for key, rest in (line.split(":") for line in lines)}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise BadInput(f"--device {THIS}: /proc/meminfo does not tell this machine's memory ({error})") from None


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest run in about a second."""
    best, begin, runs = np.inf, time.perf_counter(), 0
    while runs < ROUNDS or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return float(best)


def read_rate(threads: int) -> float:
    """Bytes a second that all threads read together; a copy takes once or twice as long, as its pages happen to lie."""
    source = np.ones(LARGE // 8).reshape(threads, -1)
    with ThreadPoolExecutor(threads) as pool:
        return LARGE / fastest(lambda: list(pool.map(np.sum, source)))


def product_rate(threads: int) -> float:
    """Operations a second of a large matrix product in ONNX Runtime, a multiply-add as two."""
    a = np.ones((SIDE, SIDE), np.float32)
    with LocalEncoder(GRAPH, threads) as product:
        return 2 * SIDE**3 / fastest(lambda: product(a=a, b=a))


def worker_start(threads: int) -> tuple[float, int]:
    """Seconds until an encoder's process answers, and bytes that it has by then."""
    one, usage = np.ones((1, 1), np.float32), 0

    def run() -> None:
        nonlocal usage
        with ChildEncoder(GRAPH, threads) as product:
            product(a=one, b=one)
            usage = product.usage.peak

    return fastest(run), usage


def mapping_rate() -> float:
    """Bytes a second of a file in the page cache that are mapped and touched for the first time."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(LARGE))
        file.flush()

        def touch() -> None:
            with mmap.mmap(file.fileno(), LARGE, prot=mmap.PROT_READ) as pages:
                np.frombuffer(pages, np.uint8)[:: mmap.PAGESIZE].max()

        return LARGE / fastest(touch)


def clearing_rate() -> float:
    """Bytes a second of memory that is touched for the first time, and so cleared by the kernel."""
    return LARGE / fastest(lambda: np.empty(LARGE, np.uint8)[:: mmap.PAGESIZE].fill(1))


def layer_rates(files: Mapping[str, Path], threads: int) -> dict[str, LayerRates]:
    """Seconds of one layer of a language model for positions and tokens, by itself and at depths.

    With its weights as they are mapped or packed, whichever is faster, as `stllm-run` takes them. What depth costs does
    not hang on the type of the weights, and is timed once.

    Args:
        files: GGUF by quantisation, of one model.
        threads: of libllama.

    Raises:
        StllmError: libllama cannot run the layer.
    """
    paces = [Pace(packed, threads, BATCH, flash_attention=None) for packed in (False, True)]
    found: dict[str, LayerRates] = {}
    depth_costs: tuple[DepthCost, DepthCost] | None = None
    for quant, path in files.items():
        with Bench(path, KV, Flag()) as bench:
            near = bench.rates(paces, depth=0, rounds=ROUNDS, seconds=SECONDS)
            place = min(range(len(paces)), key=lambda number: near[number].seconds)
            prompt, token = 1 / near[place].prefill, 1 / near[place].decode
            if depth_costs is None:
                deep = [bench.rates([paces[place]], depth=depth, rounds=2, seconds=SECONDS)[0] for depth in DEPTHS]
                # positions that are timed lie before each other, and all of them before the tokens
                depth_costs = (
                    depth_cost(prompt, [1 / rates.prefill for rates in deep], BATCH / 2),
                    depth_cost(token, [1 / rates.decode for rates in deep], BATCH),
                )
        prompt_depth, token_depth = depth_costs
        found[quant] = LayerRates(
            without(prompt, prompt_depth, BATCH / 2), without(token, token_depth, BATCH), prompt_depth, token_depth
        )
    return found


def depth_cost(near: float, timed: Sequence[float], before: float) -> DepthCost:
    """What depth costs, of seconds near the start and at `DEPTHS`, with so many positions more before each of them."""
    # where the machine was busy, what lies deeper may seem to cost less
    deep = np.maximum.accumulate([near, *timed])[1:] - near
    first = float(deep[0]) / DEPTHS[0] * before
    depths = (0.0, before, *(depth + before for depth in DEPTHS))
    return DepthCost(depths, (0.0, first, *(first + float(more) for more in deep)))


def without(near: float, cost: DepthCost, before: float) -> float:
    """What is left of seconds without what the positions before cost; more than half, however busy the machine was."""
    return max(near - float(cost.at(np.array([before]))[0]), near / 2)


def host_costs(subject: Subject) -> tuple[dict[str, Range], dict[str, float], int]:
    """Seconds a unit of the host's stages, seconds whatever the size, and bytes of a process that has run them.

    A question runs each of them once, in a new process, and rays of a bundle while others load tower and vocabulary. So
    does each process here: what is fast the second time is not fast the first. The median of some counts, at two sizes.
    """
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    resident = np.inf
    for voxels, frames in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_room(Path(folder), voxels, frames)
            alone = Hosted(folder, frames, asdict(subject.geometry.vision))
            # not the fastest: whether pages are there or have to be cleared differs from run to run
            *middle, held = np.median([hosted(alone) for _ in range(ROUNDS)], axis=0)
            if subject.bundle:
                beside = replace(alone, bundle=str(subject.bundle))
                middle[RAYS] = np.median([hosted(beside) for _ in range(PROCESSES)], axis=0)[RAYS]
        resident = min(resident, held)
        rows = voxels + frames * subject.geometry.vision.grid**2
        taken.append((np.array([voxels, voxels, frames, rows, frames]), np.array(middle)))
    (units, seconds), (more_units, more) = taken
    # a busy machine may take longer for less
    each = np.maximum((more - seconds) / (more_units - units), more / more_units / 10)
    fixed = np.maximum(more - each * more_units, 0.0)
    names = ("voxels", "maps", "rays_frame", "rays", "video")
    costs = {name: Range(float(value), float(value)) for name, value in zip(names, each, strict=True)}
    return costs, dict(zip(names, map(float, fixed), strict=True)), int(resident)


@dataclass(frozen=True)
class Hosted:
    """What a process of `host_costs` works on: scene and clip in a folder, the tower's sizes, and what it loads."""

    folder: str
    frames: int
    vision: dict[str, Any]
    bundle: str = ""


def hosted(what: Hosted) -> list[float]:
    """Seconds of the host's stages in a new process, and its bytes before; raises StllmError where it fails."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(what))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StllmError(f"--device {THIS}: a process that times the host's stages failed ({said[-1]})")
    return list(map(float, done.stdout.split()))


def run_host(what: Hosted, session: Session | None) -> list[float]:
    """The work of `hosted` inside its process."""
    # a process that answers has these modules too, and keeps memory as it does
    libllama()
    keep_freed_blocks()
    folder, vision, seconds = Path(what.folder), VisionGeometry(**what.vision), []

    def timed(work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
        return result

    if session:
        session.prepare()
    scene, clip = load_scene(folder / "scene"), load_clip(folder / "video")
    selection = select_frames(clip, scene.poses, frames=what.frames, default=what.frames, offset=scene.offset)
    examine(scene, selection, voxel_size=0.06)
    before = own_usage()
    stages = HostStages(vision, 0.06)
    voxels = timed(lambda: stages.voxels(scene))
    timed(lambda: stages.maps(voxels))
    if session:
        session.stages.encoders.load("vision")
    rays = timed(lambda: stages.rays(scene, selection, voxels))
    timed(lambda: stages.encode_rays(rays))
    timed(lambda: list(stages.frames(selection)))
    return [*seconds, before.anonymous + before.mapped]


if __name__ == "__main__":
    given = Hosted(**json.loads(sys.argv[1]))
    with ExitStack() as stack:
        print(*run_host(given, stack.enter_context(Session(given.bundle)) if given.bundle else None))
