"""Rooms: always the same, well furnished, with look-alikes of what is asked about."""

from collections import Counter

import numpy as np
from stllm_edge.benchmarks.world.furniture import AFFORDANCES, COLOURS, KINDS
from stllm_edge.benchmarks.world.room import Room, make_room

ROOMS = [make_room(5, index) for index in range(12)]


def test_room_depends_on_seed_and_index_alone() -> None:
    assert make_room(5, 3) == ROOMS[3]
    assert len({repr(room) for room in [*ROOMS, make_room(6, 3)]}) == 13


def test_every_kind_affords_one_thing() -> None:
    grouped = [kind for kinds in AFFORDANCES.values() for kind in kinds]
    assert sorted(grouped) == sorted(KINDS)
    assert len(KINDS) >= 10


def test_names_are_unique_and_shared_in_part() -> None:
    for room in ROOMS:
        names = [piece.name for piece in room.furniture]
        assert len(set(names)) == len(names)
        assert 9 <= len(names) <= 11
        kinds, colours = Counter(piece.kind for piece in room.furniture), Counter(p.colour for p in room.furniture)
        assert sum(count == 1 for count in kinds.values()) <= 1
        assert min(colours.values()) >= 2
        assert {piece.affordance for piece in room.furniture} == set(AFFORDANCES)
    assert {piece.colour for room in ROOMS for piece in room.furniture} == set(COLOURS)


def test_furniture_stands_free_inside_the_room_and_below_the_eyes() -> None:
    for room in ROOMS:
        for piece in room.furniture:
            inside = points_in(piece.size[:2], piece.yaw, piece.centre)
            assert (inside > 0).all()
            assert (inside < room.size).all()
            others = Room(room.size, room.floor, room.walls, tuple(p for p in room.furniture if p is not piece))
            assert others.clearance(inside).min() > 0.05
            assert max(box.high[2] for box in piece.boxes) < 1.45


def points_in(size: tuple[float, ...], yaw: float, centre: tuple[float, float]) -> np.ndarray:
    x, y = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-side / 2, side / 2, 30) for side in size)))
    return np.column_stack([x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw)]) + centre


def test_yaws_and_places_are_spread() -> None:
    pieces = [piece for room in ROOMS for piece in room.furniture]
    turns = np.histogram([piece.yaw for piece in pieces], 4, (0, 2 * np.pi))[0]
    assert turns.min() > len(pieces) / 8
