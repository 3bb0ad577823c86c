"""A fixed piece of work, by which a machine is held against itself: how long it takes, and how evenly."""

import time
from statistics import median

import numpy as np

__all__ = ["SPIN", "restlessness", "spin"]

# what its readings are called
SPIN = "spin"
# square roots at a time: 2 MB, more than a core's own cache mostly holds
SIZE = 2**18
# before a run, and beside an answer
MANY, FEW = 40, 5


def spin(times: int = FEW) -> float:
    """Seconds that the work takes, the median of some."""
    return median(turns(times))


def restlessness() -> float:
    """How much longer than usual the work takes now and then: 90th percentile over median, less one."""
    spent = turns(MANY)
    return float(np.quantile(spent, 0.9) / np.median(spent)) - 1


def turns(times: int) -> list[float]:
    values, spent = np.arange(SIZE, dtype=np.float64), []
    for _ in range(times):
        start = time.perf_counter()
        np.sqrt(values).sum()
        spent.append(time.perf_counter() - start)
    return spent
