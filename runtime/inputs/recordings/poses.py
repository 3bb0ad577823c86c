"""Messages that say where something was: TF, odometry, stamped poses, paths."""

import logging
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from .bag import Bag, Topic, stamp_of
from .transforms import Track, Transforms

__all__ = ["POSE_TYPES", "TF_TYPES", "plain_frame", "read_transforms"]

LOG = logging.getLogger(__name__)
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    "nav_msgs/msg/Path",
)

# parent, child, nanoseconds, and what has a place and a rotation
Placed = tuple[str, str, int, Any]
Rows = defaultdict[tuple[str, str], tuple[array, array]]


def read_transforms(bag: Bag, topic: Topic | None = None, pose_frame: str = "", camera: str = "") -> Transforms:
    """All transforms of TF, and those of a topic of poses in place of TF's for the same frame.

    Args:
        bag: the recording.
        topic: of poses; None where TF alone counts.
        pose_frame: what its poses are of; empty where its messages say it.
        camera: what they are of where nothing says it.

    Raises:
        BadInput: the bag is damaged.
    """
    kinds = {name: of.type for name, of in bag.topics.items() if of.type in TF_TYPES}
    if topic is not None and topic.type in TF_TYPES:
        # another TF's namespace is another robot; its static part is beside it
        kinds = {name: kind for name, kind in kinds.items() if name == topic.name or "static" in name}
    moving: Rows = defaultdict(lambda: (array("q"), array("d")))
    static: Rows = defaultdict(lambda: (array("q"), array("d")))
    for message in bag.messages(kinds):
        for placed in placed_by_tf(message.fields):
            add(static if "static" in message.topic else moving, placed)
    own: Rows = defaultdict(lambda: (array("q"), array("d")))
    if topic is not None and topic.type not in TF_TYPES:
        messages = bag.messages([topic.name])
        # each path holds those before it
        for message in deque(messages, 1) if topic.type.endswith("Path") else messages:
            for placed in placed_by_topic(message.fields, topic.type, pose_frame, camera):
                add(own, placed)
    children = {child for _, child in own}
    tracks, lost = {}, 0
    for rows, still in ((static, True), (moving, False), (own, False)):
        for pair, (times, numbers) in rows.items():
            if rows is not own and pair[1] in children:
                continue
            stacked = np.frombuffer(numbers, np.float64).reshape(-1, 7)
            track, bad = Track.of(np.frombuffer(times, np.int64), stacked, static=still)
            lost += bad
            if len(track):
                tracks[pair] = track
    if lost:
        LOG.warning("%s: %d poses or transforms hold no rotation, NaN or infinity, and are left out", bag, lost)
    return Transforms(tracks, str(bag))


def add(rows: Rows, placed: Placed) -> None:
    parent, child, time, pose = placed
    times, numbers = rows[parent, child]
    place, turn = (pose.translation, pose.rotation) if hasattr(pose, "rotation") else (pose.position, pose.orientation)
    times.append(time)
    numbers.extend((place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w))


def placed_by_tf(fields: Any) -> Iterator[Placed]:
    for entry in fields.transforms:
        pair = plain_frame(entry.header.frame_id), plain_frame(entry.child_frame_id)
        yield *pair, stamp_of(entry), entry.transform


def placed_by_topic(fields: Any, kind: str, pose_frame: str, camera: str) -> Iterator[Placed]:
    """The poses in a message of one of `POSE_TYPES`."""
    frame, name = plain_frame(fields.header.frame_id), kind.rpartition("/")[2]
    child = pose_frame or plain_frame(getattr(fields, "child_frame_id", "")) or camera
    if name == "Path":
        for entry in fields.poses:
            yield frame, child, stamp_of(entry), entry.pose
        return
    if name == "TransformStamped":
        yield frame, child, stamp_of(fields), fields.transform
        return
    yield frame, child, stamp_of(fields), fields.pose if name == "PoseStamped" else fields.pose.pose


def plain_frame(name: str) -> str:
    """A frame's name without the stroke that ROS 1 wrote before it."""
    return name.lstrip("/")
