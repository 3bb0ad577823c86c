"""Which topics of a bag are meant: those that are named, or the only one of a type."""

import logging
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from ...errors import BadInput
from .bag import Bag, Topic
from .choices import BagChoices
from .clouds import CLOUD_TYPE, has_colours
from .images import IMAGE_TYPES, is_depth
from .lens import INFO_TYPE
from .poses import POSE_TYPES

__all__ = ["cloud_topic", "first_message", "image_topic", "info_topic", "listed", "named", "of_types", "pose_topics"]

LOG = logging.getLogger(__name__)
COMPRESSED = "/compressed"


def of_types(bag: Bag, types: Collection[str]) -> list[Topic]:
    """Topics of these types that hold messages."""
    return [topic for topic in bag.topics.values() if topic.type in types and topic.count]


def listed(topics: Sequence[Topic]) -> str:
    """Topics in words."""
    return ", ".join(map(str, topics)) or "none"


def first_message(bag: Bag, topic: Topic) -> Any:
    """The fields of a topic's first message; raises BadInput where there is none."""
    first = next(islice(bag.messages([topic.name]), 1), None)
    if first is None:
        raise BadInput(f"{bag}: damaged; it lists {topic.count} messages of {topic.name}, and holds none")
    return first.fields


def named(bag: Bag, option: str, name: str, types: Collection[str]) -> Topic:
    """The topic that an option names; raises BadInput where it is not there, empty, or of another type."""
    found, kinds = bag.topics.get(name), " or ".join(kind.rpartition("/")[2] for kind in types)
    if found is None or not found.count:
        why = "has no such topic" if found is None else "holds no messages of it"
        raise BadInput(f"{option} {name}: {bag} {why}; of {kinds} it has {listed(of_types(bag, types))}")
    if found.type not in types:
        raise BadInput(
            f"{option} {name}: holds {found.type.rpartition('/')[2]}, expected {kinds}; of these {bag} has "
            f"{listed(of_types(bag, types))}"
        )
    return found


def only(bag: Bag, option: str, found: list[Topic], what: str, mend: str) -> Topic:
    """The one topic; raises BadInput where there are several, or none."""
    if not found:
        raise BadInput(f"{bag}: holds no {what}; {mend}")
    if len(found) > 1:
        raise BadInput(f"{bag}: holds {len(found)} topics of {what}; give {option}, one of {listed(found)}")
    LOG.info("%s: %s is %s", bag, option, found[0])
    return found[0]


def image_topic(bag: Bag, choices: BagChoices) -> Topic:
    """The camera's images."""
    if choices.image_topic is not None:
        return named(bag, "--image-topic", choices.image_topic, IMAGE_TYPES)
    found = [topic for topic in of_types(bag, IMAGE_TYPES) if not is_depth(first_message(bag, topic))]
    # of an image that is there both ways, the one that lost nothing
    names = {topic.name for topic in found}
    found = [topic for topic in found if topic.name.removesuffix(COMPRESSED) not in names - {topic.name}]
    return only(bag, "--image-topic", found, "images", "record the camera's image topic")


def cloud_topic(bag: Bag, choices: BagChoices) -> Topic:
    """The clouds; where some have colours and some none, those that do."""
    if choices.cloud_topic is not None:
        return named(bag, "--cloud-topic", choices.cloud_topic, (CLOUD_TYPE,))
    found = of_types(bag, (CLOUD_TYPE,))
    coloured = [topic for topic in found if has_colours(first_message(bag, topic))]
    mend = "record a topic of coloured PointCloud2, or give --scene FILE"
    if not found and (deep := [t for t in of_types(bag, IMAGE_TYPES) if is_depth(first_message(bag, t))]):
        mend = f"depth images ({listed(deep)}) are not made into one, depth frames of a folder are; {mend}"
    return only(bag, "--cloud-topic", coloured or found, "PointCloud2", mend)


def info_topic(bag: Bag, choices: BagChoices, images: Topic) -> Topic | None:
    """The `CameraInfo` of images: the one named, the one beside them, or the only one; None where there is none.

    Raises:
        BadInput: there are several, and none is beside them.
    """
    if choices.info_topic is not None:
        return named(bag, "--info-topic", choices.info_topic, (INFO_TYPE,))
    found = {topic.name: topic for topic in of_types(bag, (INFO_TYPE,))}
    parts = images.name.split("/")
    for end in range(len(parts) - 1, 0, -1):
        if (beside := "/".join([*parts[:end], "camera_info"])) in found:
            return found[beside]
    if len(found) > 1:
        frame = first_message(bag, images).header.frame_id
        same = [topic for topic in found.values() if first_message(bag, topic).header.frame_id == frame]
        return only(bag, "--info-topic", same or list(found.values()), INFO_TYPE.rpartition("/")[2], "")
    return next(iter(found.values()), None)


def pose_topics(bag: Bag) -> list[Topic]:
    """Topics of poses beside TF."""
    return of_types(bag, POSE_TYPES)
