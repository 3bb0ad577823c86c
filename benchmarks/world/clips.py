"""Clips: a person looks around, carries an item to a piece of furniture and lays it down there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .furniture import AFFORDANCES, Box, Furniture, turned
from .places import free_places, path_is_free
from .questions import Question, ask_about_end, ask_ways, choose_heading, choose_place, wanted_classes
from .render import Body, Frame, render
from .room import Room, generator_of

__all__ = ["FPS", "FRAMES", "ITEMS", "Clip", "make_clip", "render_clip"]

FRAMES, FPS = 12, 6
TURNED, SETTING_OFF, ARRIVED, LAID_DOWN = 6, 3, 8, 9  # frame numbers
EYES, EYES_VARY = 1.5, 0.05
PITCH = (np.deg2rad(-12), np.deg2rad(-2))
BEFORE_LARGE, BEFORE_SMALL, SMALL = (0.9, 1.3), (0.5, 0.8), 0.55  # metres; the last of a footprint's longer side
AIM = 0.8  # of the height at which things lie on the target
ENDS_TRIED = 12
TARGET_SHARE, ITEM_SHARE = 0.1, 0.004  # of the middle of the last frame
# Of the item's foot, in the camera's axes, metres. Held this near at this scale, it looks as large as at arm's length
# and no wall comes between.
IN_HAND, HELD_SCALE = np.array([0.0, 0.112, 0.208]), 0.4
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # from an item's axes, z up, to the camera's

ITEMS = {
    "mug": (
        Box((-0.06, -0.06, 0.0), (0.06, 0.06, 0.14), (240, 240, 240)),
        Box((0.06, -0.015, 0.03), (0.1, 0.015, 0.11), (225, 225, 225)),
    ),
    "book": (
        Box((-0.13, -0.09, 0.0), (0.13, 0.09, 0.02), (50, 55, 70)),
        Box((-0.12, -0.085, 0.02), (0.13, 0.085, 0.05), (240, 232, 210)),
        Box((-0.13, -0.09, 0.05), (0.13, 0.09, 0.07), (50, 55, 70)),
    ),
    "bottle": (
        Box((-0.05, -0.05, 0.0), (0.05, 0.05, 0.18), (40, 70, 45)),
        Box((-0.02, -0.02, 0.18), (0.02, 0.02, 0.28), (30, 50, 35)),
    ),
    "box": (
        Box((-0.11, -0.11, 0.0), (0.11, 0.11, 0.16), (190, 150, 105)),
        Box((-0.02, -0.112, 0.0), (0.02, 0.112, 0.162), (220, 205, 170)),
    ),
    "bowl": (
        Box((-0.07, -0.07, 0.0), (0.07, 0.07, 0.04), (120, 120, 125)),
        Box((-0.12, -0.12, 0.04), (0.12, 0.12, 0.11), (150, 150, 155)),
    ),
}


@dataclass(frozen=True)
class Clip:
    """One action.

    Attributes:
        poses: [12, 4, 4] float64, camera-to-world with OpenCV axes.
        target: index of the piece of furniture that the person goes to.
        item: one of `ITEMS`.
        item_yaw: its turn about its own vertical, radians.
        questions: what is asked about it.
    """

    poses: np.ndarray
    target: int
    item: str
    item_yaw: float
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class View:
    """Where a person stands [2] and looks: height of the eyes in metres, heading from x and pitch in radians."""

    place: np.ndarray
    eyes: float
    heading: float
    pitch: float

    def pose(self) -> np.ndarray:
        """Camera-to-world [4, 4] float64, OpenCV axes, no roll."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        forward = np.array([c * np.cos(self.pitch), s * np.cos(self.pitch), np.sin(self.pitch)])
        right = np.array([s, -c, 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = *self.place, self.eyes
        return pose


def make_clip(room: Room, seed: int, number: int, questions: int) -> Clip:
    """The clip of this number in the data set of this seed, always the same.

    Args:
        room: where it happens.
        seed: of the data set.
        number: of the clip in the data set; answers take turns over these.
        questions: how many to ask on each of directions, distances and ways.
    """
    generator, wanted = generator_of("clips", seed, number), wanted_classes(seed, number)
    places = free_places(room, generator)
    while True:
        start, asked = choose_place(room, places, wanted, questions, generator)
        heading = choose_heading(room, start, wanted, generator)
        asked += ask_ways(room, start, heading, wanted, questions, generator)
        eyes = EYES + generator.uniform(-EYES_VARY, EYES_VARY)
        first = View(start, eyes, heading, generator.uniform(*PITCH))
        clip = act(room, places, first, wanted["furniture_affordance"], generator)
        if clip is not None:
            asked += ask_about_end(room.furniture[clip.target], clip.item, generator)
            return replace(clip, questions=tuple(asked))


def act(room: Room, places: np.ndarray, first: View, affordance: int, generator: np.random.Generator) -> Clip | None:
    """A clip from a first view on, of the wanted affordance if possible; None if no furniture can be faced."""
    item, item_yaw = str(generator.choice(list(ITEMS))), float(generator.uniform(0, 2 * np.pi))
    for target in targets(room, affordance, generator):
        for last in views_of(room, room.furniture[target], places, first, generator):
            clip = Clip(walk(first, last), target, item, item_yaw, ())
            if shows_target(room, clip, generator):
                return clip
    return None


def render_clip(
    room: Room, clip: Clip, generator: np.random.Generator, numbers: Sequence[int] = range(FRAMES)
) -> Iterator[Frame]:
    """Frames of a clip; furniture owns its pixels by its index, and the item by the index after the last."""
    furniture = [Body.of_furniture(piece) for piece in room.furniture]
    for number in numbers:
        yield render(room, [*furniture, item_body(room, clip, number)], clip.poses[number], generator)


def targets(room: Room, wanted: int, generator: np.random.Generator) -> list[int]:
    """Indices of all furniture at random, pieces of a kind together, the wanted affordance first."""
    order = generator.permutation(len(room.furniture)).tolist()
    kinds = generator.permutation(sorted({piece.kind for piece in room.furniture})).tolist()
    group = list(AFFORDANCES)[wanted]
    pieces = room.furniture
    return sorted(order, key=lambda place: (pieces[place].affordance != group, kinds.index(pieces[place].kind)))


def views_of(
    room: Room, target: Furniture, places: np.ndarray, first: View, generator: np.random.Generator
) -> list[View]:
    """Some views of a piece from places [P, 2] at its side, first those from its front and with a free way to them."""
    nearest, furthest = BEFORE_SMALL if max(target.size[:2]) < SMALL else BEFORE_LARGE
    clearance = target.clearance(places)
    ends = generator.permutation(places[(clearance >= nearest) & (clearance <= furthest)])
    behind = (ends - np.asarray(target.centre)) @ target.rotation[:2, 1] < 0
    worse = 2 * behind + ~path_is_free(room, first.place, ends)
    ends = ends[np.argsort(worse, kind="stable")][:ENDS_TRIED]
    return [look_at(place, first.eyes, target.to_room((0.0, 0.0, AIM * target.rest[2]))) for place in ends]


def look_at(place: np.ndarray, eyes: float, aim: np.ndarray) -> View:
    across, along, up = aim - [*place, eyes]
    return View(place, eyes, float(np.arctan2(along, across)), float(np.arctan2(up, np.hypot(across, along))))


def walk(first: View, last: View) -> np.ndarray:
    """Poses [12, 4, 4] of a person who turns the short way, walks, and stands still at the end."""
    turn = (last.heading - first.heading + np.pi) % (2 * np.pi) - np.pi
    poses = []
    for number in range(FRAMES):
        turned_by, walked = smooth(number / TURNED), smooth((number - SETTING_OFF) / (ARRIVED - SETTING_OFF))
        place = first.place + walked * (last.place - first.place)
        pitch = first.pitch + walked * (last.pitch - first.pitch)
        poses.append(View(place, first.eyes, first.heading + turned_by * turn, pitch).pose())
    return np.stack(poses)


def smooth(share: float) -> float:
    """From 0 to 1 with a soft start and end."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def item_body(room: Room, clip: Clip, number: int) -> Body:
    """The item in the person's hand, and in the last frames on the target."""
    boxes = ITEMS[clip.item]
    if number >= LAID_DOWN:
        target = room.furniture[clip.target]
        return Body.of(boxes, turned(clip.item_yaw), target.to_room(target.rest))
    rotation, eye = clip.poses[number, :3, :3], clip.poses[number, :3, 3]
    held = [box.scaled(HELD_SCALE) for box in boxes]
    return Body.of(held, rotation @ UPRIGHT @ turned(clip.item_yaw), eye + rotation @ IN_HAND)


def shows_target(room: Room, clip: Clip, generator: np.random.Generator) -> bool:
    """Whether the middle of the last frame shows more of the target than of any other furniture, and the item on it."""
    (frame,) = render_clip(room, clip, generator, range(FRAMES - 1, FRAMES))
    middle, item = frame.middle(), len(room.furniture)
    shares = [middle.share(index) for index in range(item)]
    return shares[clip.target] == max(shares) >= TARGET_SHARE and middle.share(item) >= ITEM_SHARE
