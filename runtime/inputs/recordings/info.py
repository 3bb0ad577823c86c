"""What a bag holds, what is missing for a question, and the command that asks one."""

import itertools
import logging
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .bag import NANO, Bag, Topic, open_bag
from .choices import BagChoices
from .clouds import CLOUD_TYPE, has_colours, read_cloud
from .images import IMAGE_TYPES, is_depth
from .plan import Plan, make_plan
from .poses import TF_TYPES
from .topics import first_message, of_types, pose_topics

__all__ = ["Survey", "survey"]

# combinations of topics that are tried
MOST_TRIED = 64
# what may be given in place of what a bag lacks
FILES = ("--scene", "--intrinsics")


@dataclass(frozen=True)
class Survey:
    """What a bag holds.

    Attributes:
        path: the bag.
        topics: with their numbers of messages.
        seconds: from the first message to the last.
        start: seconds of the first, by the recorder's clock.
        missing: what a question lacks, in words.
        command: that asks one, with the files that have to be given beside the bag.
    """

    path: Path
    topics: tuple[Topic, ...]
    seconds: float
    start: float
    missing: tuple[str, ...]
    command: str

    def rate(self, topic: Topic) -> float:
        """Messages a second."""
        return (topic.count - 1) / self.seconds if topic.count > 1 and self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        topics = [{**asdict(topic), "rate": round(self.rate(topic), 3)} for topic in self.topics]
        return {**asdict(self), "path": str(self.path), "topics": topics, "missing": list(self.missing)}

    def __str__(self) -> str:
        width = max((len(topic.name) for topic in self.topics), default=0)
        kinds = max((len(topic.type) for topic in self.topics), default=0)
        lines = [f"{self.path}: {self.seconds:.2f} s from {self.start:.3f}, {len(self.topics)} topics"]
        lines += [
            f"  {topic.name:<{width}}  {topic.type:<{kinds}}  {topic.count:>7}  {self.rate(topic):8.2f} a second"
            for topic in self.topics
        ]
        lines += [f"missing: {words}" for words in self.missing]
        return "\n".join([*lines, self.command])


def survey(path: Path) -> Survey:
    """Look into a bag; raises BadInput where it cannot be read, MissingDependency without the extra `ros`."""
    # what is tried and dropped is not said
    quiet, logger = logging.WARNING + 1, logging.getLogger(__package__)
    before = logger.level
    logger.setLevel(quiet)
    try:
        with open_bag(path) as bag:
            missing, command = advice(bag)
            topics = tuple(sorted(bag.topics.values(), key=lambda topic: topic.name))
            span = max(0, bag.stop - bag.start) / NANO if topics else 0.0
            return Survey(path, topics, span, bag.start / NANO, tuple(missing), command)
    finally:
        logger.setLevel(before)


def advice(bag: Bag) -> tuple[list[str], str]:
    """What is missing, and the command line."""
    for given in ([], ["--scene"], ["--intrinsics"], list(FILES)):
        plan, why = first_plan(bag, given)
        if plan is not None:
            break
    # what each file stands in for
    missing = [first_plan(bag, [other for other in given if other != option])[1] for option in given]
    if plan is None:
        missing = list(dict.fromkeys([*missing, why]))
    elif plan.clouds is not None and (colourless := without_colours(bag, plan.clouds)):
        missing.append(f"{colourless}; give --scene FILE, a coloured cloud in {plan.map_frame}")
        given.append("--scene")
    words = ["stllm-run", "--bundle", "BUNDLE", "--bag", str(bag.path)]
    words += [word for option in given for word in (option, "FILE")]
    if plan is not None:
        words += ["--image-topic", plan.images.name]
        words += ["--cloud-topic", plan.clouds.name] if plan.clouds is not None and "--scene" not in given else []
        pose = plan.poses or next(iter(of_types(bag, TF_TYPES)), None)
        words += ["--pose-topic", pose.name] if pose else []
    return missing, shlex.join([*words, "-q", "QUESTION"])


def first_plan(bag: Bag, given: list[str]) -> tuple[Plan | None, str]:
    """The first combination of topics that holds together, with these files given; else why the first does not."""
    why = ""
    for choices in itertools.islice(combinations(bag), MOST_TRIED):
        try:
            return make_plan(bag, choices, scene="--scene" in given, intrinsics="--intrinsics" in given), ""
        except BadInput as error:
            why = why or str(error)
    return None, why


def combinations(bag: Bag) -> Iterator[BagChoices]:
    """Choices by themselves, then topics by their number of messages."""
    yield BagChoices()
    images = [topic for topic in most(of_types(bag, IMAGE_TYPES)) if not is_depth(first_message(bag, topic))]
    clouds = sorted(most(of_types(bag, (CLOUD_TYPE,))), key=lambda topic: not has_colours(first_message(bag, topic)))
    poses = [*of_types(bag, TF_TYPES), *most(pose_topics(bag))]
    names: list[list[str | None]] = [[topic.name for topic in topics] for topics in (images, clouds, poses)]
    for image, cloud, pose in itertools.product(names[0] or [None], names[1] or [None], [None, *names[2]]):
        yield BagChoices(image_topic=image, cloud_topic=cloud, pose_topic=pose)


def most(topics: list[Topic]) -> list[Topic]:
    return sorted(topics, key=lambda topic: -topic.count)


def without_colours(bag: Bag, clouds: Topic) -> str:
    """Why a topic's first cloud cannot be taken; empty where it can."""
    try:
        read_cloud(first_message(bag, clouds), clouds.name)
    except BadInput as error:
        return str(error)
    return ""
