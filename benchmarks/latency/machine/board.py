"""Which machine this is, in which mode: what a figure needs beside it to be repeated."""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ....runtime.encoders.gpu import find_gpu
from .sensors import GPU_CLOCK, KILO, MEMORY_CLOCK, integer, text

__all__ = ["LIBRARIES", "Board", "describe_board", "versions"]

# distributions whose versions decide speed, by the name of their column
LIBRARIES = {
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "llama_cpp": ("llama-cpp-python",),
    "av": ("av",),
    "pillow": ("pillow",),
    "safetensors": ("safetensors",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}
RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
JETPACK = re.compile(r"^Package: nvidia-jetpack\n(?:[^\n]+\n)*?Version: (\S+)", re.MULTILINE)
DRIVER = re.compile(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)")
POWER_MODE = re.compile(r"NV Power Mode: (\S+)")
PATIENCE = 10.0


@dataclass(frozen=True)
class Board:
    """Facts about a machine; None is what it does not tell.

    Attributes:
        device: model of the board, or else of the processor.
        board: model as the device tree has it.
        power_mode: of nvpmodel, by name.
        governor: of the processors' clocks.
        clocks_locked: whether least and most clock are the same everywhere, as jetson_clocks makes them.
        cpu_hertz: clock of the fastest processor now.
        cpu_hertz_max: the most that its mode allows.
        gpu_hertz: clock of the GPU now.
        gpu_hertz_max: the most that its mode allows.
        memory_hertz: clock of the memory now.
        jetpack: its version, and the release of Linux for Tegra.
        driver: version of NVIDIA's kernel module.
        kernel: release of the kernel.
        machine: architecture.
        cpu: model of the processor.
        cores: that this process may use.
        memory_bytes: all that there is.
        gpu: its name.
        python: version of the interpreter.
    """

    device: str
    board: str | None
    power_mode: str | None
    governor: str | None
    clocks_locked: bool | None
    cpu_hertz: float | None
    cpu_hertz_max: float | None
    gpu_hertz: float | None
    gpu_hertz_max: float | None
    memory_hertz: float | None
    jetpack: str | None
    driver: str | None
    kernel: str
    machine: str
    cpu: str | None
    cores: int
    memory_bytes: int | None
    gpu: str | None
    python: str


def describe_board(root: Path = Path("/"), nvpmodel: str | None = None) -> Board:
    """The machine whose files lie below `root`; `nvpmodel` is the command that tells its power mode."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    governors = {governor for policy in policies if (governor := text(policy / "scaling_governor"))}
    gpu, memory = (devfreq(root, pattern) for pattern in (GPU_CLOCK, MEMORY_CLOCK))
    board, cpu = text(root / "proc/device-tree/model"), processor(root)
    card = find_gpu() if root == Path("/") else None
    return Board(
        device=board or text(root / "sys/class/dmi/id/product_name") or cpu or platform.machine(),
        board=board,
        power_mode=power_mode(nvpmodel),
        governor=", ".join(sorted(governors)) or None,
        clocks_locked=locked(policies, gpu, memory),
        cpu_hertz=most(policies, "scaling_cur_freq", KILO),
        cpu_hertz_max=most(policies, "scaling_max_freq", KILO),
        gpu_hertz=most(gpu, "cur_freq", 1.0),
        gpu_hertz_max=most(gpu, "max_freq", 1.0),
        memory_hertz=most(memory, "cur_freq", 1.0),
        jetpack=jetpack(root),
        driver=(found := DRIVER.search(text(root / "proc/driver/nvidia/version") or "")) and found[1],
        kernel=text(root / "proc/sys/kernel/osrelease") or platform.release(),
        machine=platform.machine(),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes(root),
        gpu=card.name if card else None,
        python=sys.version.split()[0],
    )


def versions() -> dict[str, str | None]:
    """Versions of the libraries that do the work, by name of their column."""
    found: dict[str, str | None] = {}
    for name, distributions in LIBRARIES.items():
        known = []
        for distribution in distributions:
            try:
                known.append(metadata.version(distribution))
            except metadata.PackageNotFoundError:
                continue
        found[f"version_{name}"] = known[0] if known else None
    return found


def power_mode(nvpmodel: str | None) -> str | None:
    """The mode's name: its number means another mode in another release of JetPack."""
    # users do not have its folder on their path
    command = nvpmodel or shutil.which("nvpmodel", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if command is None:
        return None
    try:
        said = subprocess.run([command, "-q"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = POWER_MODE.search(said.stdout)
    return found[1] if found else None


def jetpack(root: Path) -> str | None:
    """Version of JetPack, if it was installed as a whole, and of Linux for Tegra."""
    release = RELEASE.search(text(root / "etc/nv_tegra_release") or "")
    package = JETPACK.search(text(root / "var/lib/dpkg/status") or "") if release else None
    linux = f"L4T {release[1]}.{release[2]}" if release else None
    return f"{package[1]} ({linux})" if package else linux


def devfreq(root: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [folder for folder in sorted((root / "sys/class/devfreq").glob("*")) if pattern.search(folder.name)]


def most(folders: list[Path], name: str, scale: float) -> float | None:
    """The highest of several clocks, hertz."""
    values = [value for folder in folders if (value := integer(folder / name)) is not None]
    return max(values) * scale if values else None


def locked(policies: list[Path], *others: list[Path]) -> bool | None:
    """Whether no clock can move; None where there is none to see."""
    limits = [(integer(folder / "scaling_min_freq"), integer(folder / "scaling_max_freq")) for folder in policies]
    limits += [(integer(each / "min_freq"), integer(each / "max_freq")) for folders in others for each in folders]
    known = [limit for limit in limits if None not in limit]
    return all(least == most for least, most in known) if known else None


def processor(root: Path) -> str | None:
    """Model of the processor, where /proc/cpuinfo has one: those of Arm do not."""
    found = re.search(r"^model name\s*: (.+)$", text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return found[1].strip() if found else None


def memory_bytes(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB$", text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None
