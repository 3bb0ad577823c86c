"""Memory by the kernel's counters: what a process uses and has used at most, and what is free."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "anonymous_bytes", "available", "counters", "highest_peak", "note_peak", "own_usage", "reset_peak"]

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
COUNTER = re.compile(rb"^((?:Vm|Rss)\w+):\s+(\d+) kB$", re.MULTILINE)
# holds a process's whole status, whose counters stand in its first half
STATUS_BYTES = 2**13
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Resident memory of a process, bytes.

    Attributes:
        peak: most resident at any time since the last reset, anonymous and mapped.
        anonymous: anonymous now.
        mapped: mapped from files now.
    """

    peak: int = 0
    anonymous: int = 0
    mapped: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Of two processes together."""
        return Usage(self.peak + other.peak, self.anonymous + other.anonymous, self.mapped + other.mapped)


def own_usage() -> Usage:
    """Counters of this process; zeros where there is no /proc."""
    values = counters("self")
    return Usage(*(values.get(name, 0) for name in ("VmHWM", "RssAnon", "RssFile")))


def anonymous_bytes() -> int:
    """Anonymous memory of this process; 0 where there is no /proc. Quicker than `own_usage`."""
    try:
        file = os.open(f"{PROC}/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        _, resident, shared, *_ = os.read(file, STATUS_BYTES).split()
    finally:
        os.close(file)
    return (int(resident) - int(shared)) * PAGE


def counters(process: int | str) -> dict[str, int]:
    """Memory counters of a process in bytes, by the kernel's names; empty when it is gone or there is no /proc."""
    # stages are measured token by token: pathlib and a text file would take longer than the kernel
    try:
        file = os.open(f"{PROC}/{process}/status", os.O_RDONLY)
    except OSError:
        return {}
    try:
        lines = os.read(file, STATUS_BYTES)
    except ProcessLookupError:
        return {}
    finally:
        os.close(file)
    return {name.decode(): int(kilobytes) * 1024 for name, kilobytes in COUNTER.findall(lines)}


# the kernel forgets a peak at each reset, and getrusage with it (whose figure also begins with that of the
# process that started this one); so the highest of those that were forgotten is kept here
_highest = 0


def reset_peak() -> int:
    """Let the kernel count this process's peak from now on, where it allows that; returns the peak until now."""
    peak = own_usage().peak
    note_peak(peak)
    try:
        file = os.open(f"{PROC}/self/clear_refs", os.O_WRONLY)
    except OSError:
        return peak
    try:
        # 5 resets the peak alone; other numbers clear marks of pages
        os.write(file, b"5")
    finally:
        os.close(file)
    return peak


def note_peak(together: int) -> None:
    """Remember what this process and one that works for it held together, bytes, for `highest_peak`."""
    global _highest
    _highest = max(_highest, together)


def highest_peak() -> int:
    """Most that was resident since this process began, bytes, whatever was reset and with what was noted meanwhile."""
    return max(_highest, own_usage().peak)


def available() -> int | None:
    """Bytes that a new process can use: free or reclaimable, and within the control group's limit; None if unknown."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min([free, *group_rooms()])


def group_rooms() -> list[int]:
    """Room below the limit of each control group that this process is in."""
    rooms = []
    for line in (PROC / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            rooms += walk_up(CGROUPS, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            rooms += walk_up(CGROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")
    return rooms


def walk_up(root: Path, path: str, limit: str, current: str) -> list[int]:
    """Room of a group and of those above it; page cache counts as room, since the kernel takes it back."""
    rooms = []
    group = root / path.lstrip("/")
    while group == root or root in group.parents:
        try:
            bound = (group / limit).read_text().strip()
            # without a limit, version 2 says "max"; version 1 a number beyond any memory
            if bound.isdigit():
                used = int((group / current).read_text()) - reclaimable(group)
                rooms.append(int(bound) - used)
        except OSError:
            pass
        if group == root:
            break
        group = group.parent
    return rooms


def reclaimable(group: Path) -> int:
    """Bytes of a group's page cache that are files; shared memory is counted in it, but has nowhere to go."""
    values = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    cache, shared = ("total_cache", "total_shmem") if "total_cache" in values else ("file", "shmem")
    return int(values.get(cache, 0)) - int(values.get(shared, 0))
