"""Questions about a room and a clip, and their answers from the geometry."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .furniture import Furniture
from .places import balance, draw
from .room import Room, generator_of

__all__ = [
    "QUESTION_TYPES",
    "Question",
    "ask_about_end",
    "ask_ways",
    "choose_heading",
    "choose_place",
    "wanted_classes",
]

QUESTION_TYPES = {
    "relative_direction": (
        "When the video starts, in which direction is the {name} from the person?",
        "At the beginning of the video, where is the {name} relative to the person?",
        "Seen from the person at the start of the video, in which direction is the {name}?",
    ),
    "relative_distance": (
        "How far is the {name} from the person when the video starts?",
        "At the beginning of the video, how far away from the person is the {name}?",
        "What is the distance between the person and the {name} at the start of the video?",
    ),
    "find_my_item": (
        "Where did the person put the {item}?",
        "Where can the person find the {item} after the video?",
        "On which piece of furniture did the person leave the {item}?",
    ),
    "furniture_affordance": (
        "What can the person do with the furniture that they face at the end of the video?",
        "The person stops in front of a piece of furniture. What can they do with it?",
        "When the video ends, what can the person do with the furniture before them?",
    ),
    "action_planning": (
        "The person now wants to {wish} something {colour}. Which way should they go from where the video starts?",
        "To {wish} something {colour}, which way should the person go from where the video starts?",
        "From the place where the video starts, how should the person move to {wish} something {colour}?",
    ),
}
# Clockwise from straight ahead, a quarter turn each.
DIRECTIONS = ("In front.", "To the right.", "Behind.", "To the left.")
WAYS = ("Walk straight ahead.", "Turn right and walk.", "Turn around and walk.", "Turn left and walk.")
DISTANCES = {
    "About 1 meter.": (0.75, 1.3),
    "About 2 meters.": (1.7, 2.3),
    "About 3 meters.": (2.9, 3.5),
    "About 4 meters.": (4.2, np.inf),
}
WISHES = {
    "Sit on it.": "sit down on",
    "Lie down on it.": "lie down on",
    "Put things on it.": "put something on",
    "Keep things inside it.": "keep something inside",
}
CLASSES = 4  # of directions, of ways, of distances, and of affordances
WITHIN_SECTOR = np.deg2rad(35)  # of a sector's 45 degrees to either side
NEAREST = 0.7
LOOKALIKES = 2
GROUPS_TRIED = 40


@dataclass(frozen=True)
class Question:
    """A question of one of `QUESTION_TYPES`, and its answer."""

    question_type: str
    text: str
    answer: str


def wanted_classes(seed: int, clip: int) -> dict[str, int]:
    """Which class of answer each type of question should have in a clip; four clips in a row have all four."""
    block, turn = divmod(clip, CLASSES)
    turns = {name: generator_of("turns", seed, block, place) for place, name in enumerate(QUESTION_TYPES)}
    return {name: int(generator.permutation(CLASSES)[turn]) for name, generator in turns.items()}


def choose_place(
    room: Room, places: np.ndarray, wanted: Mapping[str, int], count: int, generator: np.random.Generator
) -> tuple[np.ndarray, list[Question]]:
    """One of the places [P, 2] and up to `count` questions on distances from it.

    An object is asked about only where the person could as well have been at each of the four distances from it, and
    is at each of them as often: which object a question names tells nothing about its answer.
    """
    pieces = with_lookalikes(room)
    classes = np.stack([distance_classes(places, piece) for piece in pieces], axis=1)
    complete = [column for column in range(len(pieces)) if len(set(classes[:, column]) - {-1}) == CLASSES]
    for group in groups(complete, count, generator):
        weights = balance(classes[:, group], CLASSES)
        if weights is not None:
            place = draw(weights * (classes[:, group[0]] == wanted["relative_distance"]), generator)
            asked = [(pieces[column], list(DISTANCES)[classes[place, column]]) for column in group]
            return places[place], [ask("relative_distance", a, generator, name=p.name) for p, a in asked]
    return places[generator.integers(len(places))], []


def groups(members: Sequence[int], largest: int, generator: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Random groups of members in random order, some of each size, the largest first."""
    for size in range(min(largest, len(members)), 0, -1):
        found = list(combinations(generator.permutation(members).tolist(), size))
        for place in generator.permutation(len(found))[:GROUPS_TRIED]:
            yield found[place]


def choose_heading(room: Room, place: np.ndarray, wanted: Mapping[str, int], generator: np.random.Generator) -> float:
    """A heading, radians from x, that has some piece of furniture anywhere well inside the wanted direction.

    Every heading is as likely as the one a quarter turn further, so which object a question names tells nothing.
    """
    pieces = [piece for piece in with_lookalikes(room) if distance(place, piece) >= NEAREST]
    piece = pieces[generator.integers(len(pieces))]
    azimuth = wanted["relative_direction"] * np.pi / 2 + generator.uniform(-WITHIN_SECTOR, WITHIN_SECTOR)
    return float(bearing(place, piece) + azimuth)


def ask_ways(
    room: Room, place: np.ndarray, heading: float, wanted: Mapping[str, int], count: int, generator: np.random.Generator
) -> list[Question]:
    """Questions on directions and on the way to something wished for, up to `count` of each."""
    pieces = [piece for piece in with_lookalikes(room) if distance(place, piece) >= NEAREST]
    sectors = [sector(heading - bearing(place, piece)) for piece in pieces]
    unique = [known if wishable(room, piece) else -1 for known, piece in zip(sectors, pieces, strict=True)]
    questions = [
        ask("relative_direction", DIRECTIONS[sectors[chosen]], generator, name=pieces[chosen].name)
        for chosen in spread(sectors, wanted["relative_direction"], count, generator)
    ]
    for chosen in spread(unique, wanted["action_planning"], count, generator):
        wish = {"wish": WISHES[pieces[chosen].affordance], "colour": pieces[chosen].colour}
        questions.append(ask("action_planning", WAYS[unique[chosen]], generator, **wish))
    return questions


def ask_about_end(target: Furniture, item: str, generator: np.random.Generator) -> list[Question]:
    """Questions on what the person carried to which piece of furniture."""
    return [
        ask("find_my_item", f"On the {target.name}.", generator, item=item),
        ask("furniture_affordance", target.affordance, generator),
    ]


def ask(question_type: str, answer: str, generator: np.random.Generator, **values: str) -> Question:
    wordings = QUESTION_TYPES[question_type]
    return Question(question_type, wordings[generator.integers(len(wordings))].format(**values), answer)


def distance(place: np.ndarray, piece: Furniture) -> float:
    return float(np.linalg.norm(np.asarray(piece.centre) - place))


def distance_classes(places: np.ndarray, piece: Furniture) -> np.ndarray:
    """Index into `DISTANCES` from each place [P, 2], -1 where the distance is in none, [P] int64."""
    distances = np.linalg.norm(places - np.asarray(piece.centre), axis=1)
    classes = np.full(len(places), -1)
    for index, (nearest, furthest) in enumerate(DISTANCES.values()):
        classes[(distances >= nearest) & (distances <= furthest)] = index
    return classes


def bearing(place: np.ndarray, piece: Furniture) -> float:
    """Where a piece's centre is from a place, radians from x."""
    across, along = np.asarray(piece.centre) - place
    return float(np.arctan2(along, across))


def sector(azimuth: float) -> int:
    """Quarter turn clockwise from straight ahead that an azimuth lies well inside, -1 if it is near a border."""
    quarter = round(azimuth / (np.pi / 2))
    return quarter % CLASSES if abs(azimuth - quarter * np.pi / 2) <= WITHIN_SECTOR else -1


def with_lookalikes(room: Room) -> list[Furniture]:
    """Pieces that share kind or colour with at least two others."""

    def alike(piece: Furniture) -> int:
        return sum((other.kind == piece.kind) != (other.colour == piece.colour) for other in room.furniture)

    return [piece for piece in room.furniture if alike(piece) >= LOOKALIKES]


def wishable(room: Room, piece: Furniture) -> bool:
    """Whether colour and affordance together, but neither alone, identify a piece."""
    colours = Counter(other.colour for other in room.furniture)
    affordances = Counter(other.affordance for other in room.furniture)
    both = Counter((other.colour, other.affordance) for other in room.furniture)
    alone = (colours[piece.colour], affordances[piece.affordance])
    return both[piece.colour, piece.affordance] == 1 and min(alone) > 1


def spread(classes: Sequence[int], wanted: int, count: int, generator: np.random.Generator) -> list[int]:
    """Up to `count` indices at random: first one of the wanted class, then of the classes least used so far."""
    chosen: list[int] = []
    used = Counter(other for other in range(CLASSES) if other != wanted)
    left = [index for index in generator.permutation(len(classes)).tolist() if classes[index] >= 0]
    while left and len(chosen) < count:
        best = min(left, key=lambda index: used[classes[index]])
        left.remove(best)
        chosen.append(best)
        used = Counter(classes[index] for index in chosen)
    return chosen
