"""Distances in many phrasings, and when two of them agree."""

import doctest

from stllm_edge.benchmarks.scoring import distances
from stllm_edge.benchmarks.scoring.distances import Distance, read_distance

METRES = {
    "About 1 meter.": 1.0,
    "about 2 m away": 2.0,
    "two metres": 2.0,
    "150 cm": 1.5,
    "a 2-meter distance": 2.0,
    "1,5 m": 1.5,
    "1,500 mm": 1.5,
    "one and a half meters": 1.5,
    "a meter and a half": 1.5,
    "half a meter": 0.5,
    ".5 m": 0.5,
    "3 meters (about 10 feet)": 3.0,
    "one point five meters": 1.5,
    "a couple of meters": 2.0,
    "between 2 and 3 m": 2.5,
    "2-3 meters": 2.5,
    "two or three meters": 2.5,
    "1 m 50 cm": 1.5,
    "Two meters, that is 200 cm.": 2.0,
    "not 2 meters but 3 meters": 3.0,
    "5 feet": 1.524,
    "twenty-one inches": 0.5334,
}
RELATIONS = {
    "The person moves closer to the hob from `take cup` to `wash cup`.": ("closer", "hob"),
    "The person starts off farther from the hob when performing `a`, but ends up closer to it after `b`.": (
        "closer",
        "",
    ),
    "The person starts off closer to the hob at `a`, but ends up farther from it after `b`.": ("farther", ""),
    "The person approaches the washing machine while moving from `a` to `b`.": ("closer", "washing machine"),
    "The person moves further away from the sink from `a` to `b`.": ("farther", "sink"),
    "The person moves away from the sink while moving.": ("farther", "sink"),
    "Yes, the person is closer to the fridge than to the sink when performing `a`.": ("closer", "fridge"),
    "The person is farther from the fridge than from the sink.": ("closer", "sink"),
    "The sink is closer to the person than the fridge.": ("closer", "sink"),
    "The person remains at about the same distance from the hob when performing both `a` and `b`.": ("same", ""),
    "The person is at a similar distance from both the hob and the sink.": ("same", ""),
    "Neither closer nor farther.": ("same", ""),
    "The same.": ("same", ""),
    "The distance to the sink gets smaller.": ("closer", ""),
    "It moves away.": ("farther", ""),
}
SILENT = [
    "",
    "less than 2 meters",
    "at least 4 m",
    "not 2 meters",
    "2 m from the sofa and 3 m from you",
    "Far away.",
    "2",
]
SILENT += ["The person does not move closer.", "closer to the sink and farther from the hob"]


def test_lengths_are_read_in_metres() -> None:
    found = {text: read_distance(text) for text in METRES}
    assert {text: distance and round(distance.metres or 0, 4) for text, distance in found.items()} == METRES


def test_relations_are_read_with_what_they_are_to() -> None:
    found = {text: read_distance(text) for text in RELATIONS}
    assert found == {text: Distance(relation=relation, to=to) for text, (relation, to) in RELATIONS.items()}


def test_bounds_contradictions_and_denials_are_not_read() -> None:
    assert {text: read_distance(text) for text in SILENT} == dict.fromkeys(SILENT)


def test_lengths_agree_within_a_tolerance_of_the_reference() -> None:
    two = Distance(metres=2.0)
    agreed = [metres for metres in (1.6, 1.7, 2.0, 2.3, 2.4) if Distance(metres=metres).agrees(two)]
    assert agreed == [1.7, 2.0, 2.3]


def test_relations_agree_unless_they_are_to_different_things() -> None:
    closer, to_sink, to_hob = (Distance(relation="closer", to=to) for to in ("", "sink", "hob"))
    assert closer.agrees(to_sink)
    assert to_sink.agrees(closer)
    assert not to_hob.agrees(to_sink)
    assert not Distance(relation="farther").agrees(closer)
    assert not Distance(metres=2.0).agrees(closer)


def test_the_module_s_examples() -> None:
    assert doctest.testmod(distances).failed == 0
