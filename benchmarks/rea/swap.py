"""Questions asked with a point cloud or a clip of another room, to see whether answers depend on what is seen."""

from collections.abc import Sequence
from dataclasses import replace

from ...runtime.errors import BadInput
from .dataset import Sample

__all__ = ["SWAPS", "swap"]

SWAPS = {"cloud": ("pointcloud",), "clip": ("video", "c2ws", "intrinsics", "start", "stop", "fps")}


def swap(samples: Sequence[Sample], what: str) -> list[Sample]:
    """Samples whose point cloud, or whose clip with its poses, is that of the next room; ids and questions stay.

    Args:
        samples: of two rooms at least.
        what: one of `SWAPS`.

    Raises:
        BadInput: there is only one room.
    """
    rooms: dict[str, list[Sample]] = {}
    for sample in samples:
        rooms.setdefault(sample.scene_id, []).append(sample)
    if len(rooms) < 2:
        raise BadInput(f"--swap {what}: takes samples of two rooms at least, the subset has {len(rooms)}")
    names = list(rooms)
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    places = {sample.id: place for room in rooms.values() for place, sample in enumerate(room)}

    def other(sample: Sample) -> Sample:
        room = rooms[following[sample.scene_id]]
        return room[places[sample.id] % len(room)]

    return [replace(sample, **{name: getattr(other(sample), name) for name in SWAPS[what]}) for sample in samples]
