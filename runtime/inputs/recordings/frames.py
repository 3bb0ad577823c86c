"""The images of a bag as frames of a clip, found again by the time that they were received at."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import BadInput
from ..decoding.images import Picture
from ..frames import Content
from .bag import NANO, Bag, open_bag, stamp_of
from .images import parts_of, read_picture

__all__ = ["BagFrames", "Shot"]


@dataclass(frozen=True)
class Shot:
    """An image: nanoseconds of its header, and at which it was received."""

    stamp: int
    received: int


@dataclass(frozen=True)
class BagFrames:
    """Images of a topic, with the camera's poses; a chosen one is read alone where the bag has an index.

    Attributes:
        path: the bag.
        topic: of the images.
        shots: one an image, in the order of their stamps.
        poses: camera-to-world [4, 4] by place, of those that have one.
        white: value of white, where they have more than 8 bits.
    """

    times_hint: ClassVar[str] = "images of a bag have the times of their headers"

    path: Path
    topic: str
    shots: tuple[Shot, ...]
    poses: Mapping[int, np.ndarray] = field(default_factory=dict)
    white: float = 65535.0

    def __str__(self) -> str:
        return f"bag {self.path}, {self.topic}"

    def __len__(self) -> int:
        return len(self.shots)

    def name(self, place: int) -> str:
        """The topic and the image's stamp."""
        return f"{self.topic} at {self.shots[place].stamp / NANO:.6f}"

    def read(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """As all frames are; an image that repeats is decoded once."""
        for place, picture in self.pictures(places):
            yield self._rgb(place, picture)

    def contents(self, places: Sequence[int]) -> Iterator[Content]:
        """The messages."""
        with open_bag(self.path) as bag:
            found = self._found(bag, sorted(set(places)))
            for place, repeats in itertools.groupby(places):
                message = next(found)
                for _ in repeats:
                    yield Content((*parts_of(message), self.white), partial(self._decode, place, message))

    def _decode(self, place: int, message: Any) -> np.ndarray:
        return self._rgb(place, read_picture(message, self.name(place)))

    def _rgb(self, place: int, picture: Picture) -> np.ndarray:
        try:
            return picture.rgb(self.white)
        except ValueError as error:
            raise BadInput(f"{self.name(place)}: {error}") from None

    def pictures(self, places: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Places and decoded images, one at a time; raises BadInput for an image that is damaged."""
        with open_bag(self.path) as bag:
            found = self._found(bag, sorted(set(places)))
            for place, repeats in itertools.groupby(places):
                picture = read_picture(next(found), self.name(place))
                for _ in repeats:
                    yield place, picture

    def _found(self, bag: Bag, places: Sequence[int]) -> Iterator[Any]:
        """Messages of images at ascending places."""
        if not bag.indexed:
            yield from self._passed(bag, places)
            return
        for place in places:
            shot = self.shots[place]
            for message in bag.messages([self.topic], shot.received, shot.received + 1):
                if self._stamp(message) == shot.stamp:
                    yield message.fields
                    break
            else:
                raise BadInput(f"{self.name(place)}: is no longer in the bag")

    def _passed(self, bag: Bag, places: Sequence[int]) -> Iterator[Any]:
        """Messages from one pass over the bag, kept until it is their turn."""
        wanted = {self.shots[place]: place for place in places}
        waiting: dict[int, Any] = {}
        due = iter(places)
        place = next(due, None)
        received = [shot.received for shot in wanted]
        for message in bag.messages([self.topic], min(received), max(received) + 1):
            if (at := wanted.get(Shot(self._stamp(message), message.received))) is not None:
                waiting.setdefault(at, message.fields)
            while place in waiting:
                yield waiting.pop(place)
                place = next(due, None)
        if place is not None:
            raise BadInput(f"{self.name(place)}: is no longer in the bag")

    @staticmethod
    def _stamp(message: Any) -> int:
        # images without a stamp of their own have that at which they were received
        return stamp_of(message.fields) or int(message.received)

    def posed(self, poses: Mapping[str, np.ndarray]) -> Mapping[int, np.ndarray]:
        """Their own poses; the scene's are of other frames."""
        return self.poses
