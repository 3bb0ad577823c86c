"""Memory: what a process uses by the kernel's counters, what is free, and what a question will need."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "available", "counters", "own_usage", "reset_peak"]

CGROUPS = Path("/sys/fs/cgroup")


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


def own_usage() -> Usage:
    """Counters of this process; zeros where there is no /proc."""
    values = counters("self")
    return Usage(*(values.get(name, 0) for name in ("VmHWM", "RssAnon", "RssFile")))


def counters(process: int | str) -> dict[str, int]:
    """Memory counters of a process in bytes, by the kernel's names; empty when it is gone or there is no /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in lines)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs if "kB" in rest}


def reset_peak() -> None:
    """Let the kernel count this process's peak from now on, where it allows that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def available() -> int | None:
    """Bytes that a new process can use: free or reclaimable, and within the control group's limit; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min([free, *group_rooms()])


def group_rooms() -> list[int]:
    """Room below the limit of each control group that this process is in."""
    rooms = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
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
    """Bytes of page cache of a group."""
    for line in (group / "memory.stat").read_text().splitlines():
        name, value = line.split()
        if name in ("file", "total_cache"):
            return int(value)
    return 0
