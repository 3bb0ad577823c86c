"""Anonymous memory that a graph takes, measured in a process that has nothing else."""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from ...runtime.encoders.local import LocalEncoder
from ...runtime.memory.counters import own_usage

__all__ = ["growth"]

THREADS = 2
SAMPLING_SECONDS = 0.002


def growth(graph: Path, inputs: dict[str, np.ndarray], threads: int = THREADS) -> float:
    """Anonymous memory that loading and running a graph takes, MB, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "inputs.npz"
        np.savez(arrays, **inputs)  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, str(graph), str(arrays), str(threads)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_growth(graph: Path, arrays: Path, threads: int) -> float:
    """The work of `growth` inside its process."""
    inputs = dict(np.load(arrays))
    before, peak, done = own_usage().anonymous, 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLING_SECONDS):
            peak = max(peak, own_usage().anonymous)

    sampler = threading.Thread(target=sample)
    sampler.start()
    with LocalEncoder(graph, threads) as encode:
        encode(**inputs)
    done.set()
    sampler.join()
    return (peak - before) / 1e6


if __name__ == "__main__":
    print(measure_growth(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
