"""Directions in many phrasings: what is read, and what must not be."""

import doctest

import pytest
from stllm_edge.benchmarks.scoring import directions
from stllm_edge.benchmarks.scoring.directions import SECTORS, read_direction

SAID = {
    "sides and fronts": {
        "In front.": "front",
        "To the left.": "left",
        "It is on your right-hand side.": "right",
        "Behind.": "back",
        "on the left side of the person": "left",
        "right in front of the person": "front",
        "The chair is right behind you.": "back",
        "Leftwards.": "left",
        "at the person's back": "back",
        "That's right, it is left.": "left",
        "It is behind them, next to the left wall.": "back",
        "'To the right.'": "right",
    },
    "routes": {
        "Walk straight ahead.": "front",
        "Turn left and walk.": "left",
        "Turn to your left and walk straight ahead": "left",
        "Turn right at the table.": "right",
        "Turn around and walk.": "back",
        "Make a U-turn and go straight.": "back",
        "Go in the opposite direction.": "back",
        "Turn back.": "back",
        "Make a left.": "left",
        "There is no need to turn; walk straight ahead.": "front",
        "straight to the left": "left",
        "Walk forward, then turn left.": "front left",
        "Turn left, then right.": "left right",
    },
    "between two": {
        "front-left": "front-left",
        "ahead and to the left": "front-left",
        "It is behind the person, to the right.": "back-right",
        "to your left behind you": "back-left",
        "left rear": "back-left",
        "slightly to the left": "front-left",
        "slightly to the left and behind": "back-left",
    },
    "clock and angles": {
        "at your 3 o'clock": "right",
        "at twelve o’clock": "front",
        "at your ten o'clock": "front-left",
        "5 o'clock": "back-right",
        "Turn 90 degrees clockwise.": "right",
        "turn 135° to the left": "back-left",
        "Turn left 45 degrees": "front-left",
        "Turn by 180 degrees.": "back",
        "Turn anticlockwise and walk.": "left",
    },
    "denied": {
        "not on the left but on the right": "right",
        "It isn't in front of you. It is behind you.": "back",
        "Go left rather than right.": "left",
        "No, it is ahead.": "front",
    },
}
SILENT = {
    "denied": [
        "not to the left",
        "It isn't behind you.",
        "neither left nor right",
        "I don't know if it is on the left",
    ],
    "open": ["left or right", "left/right", "either to the left or behind you"],
    "from elsewhere": [
        "in front of the sofa",
        "behind the sofa",
        "to the left of the sink",
        "on the left side of the room",
    ],
    "other senses": [
        "The person left the mug on the table.",
        "The mug was left in the kitchen.",
        "The mug is left on the table and left behind.",
        "He left it behind.",
        "right now",
        "The left hand is closer.",
        "Open the left drawer.",
        "Go back to the sink.",
        "near the front door",
    ],
    "nothing": ["", "About 2 meters.", "On the red chair."],
}


@pytest.mark.parametrize("kind", SAID)
def test_phrasings_are_read(kind: str) -> None:
    expected = {text: tuple(sectors.split()) for text, sectors in SAID[kind].items()}
    assert {text: read_direction(text) for text in expected} == expected


@pytest.mark.parametrize("kind", SILENT)
def test_what_names_no_direction_of_the_person_is_not_read(kind: str) -> None:
    assert {text: read_direction(text) for text in SILENT[kind]} == dict.fromkeys(SILENT[kind])


def test_answers_about_two_moments_are_read_in_order_without_hands_and_narrations() -> None:
    hands = (
        "Yes, the hand physically closer to the sink differs between `turn on left tap` and `wash cup`. "
        "In `turn on left tap`, the sink is to the left of the person, so the left hand is physically closer to the "
        "object. The person turns from facing the object to having their back to it. In `wash cup`, it is behind the "
        "person, so it is unclear which hand is physically closer to the object."
    )
    moved = "Initially, the hob is to the front-left of the person, but as they move, it becomes behind the person."
    stays = "The hob does not change its position relative to the person; it is behind the person in both 'a' and 'b'."
    assert read_direction(hands) == ("left", "back")
    assert read_direction(moved) == ("front-left", "back")
    assert read_direction(stays) == ("back",)


def test_every_bearing_falls_into_a_sector() -> None:
    found = [read_direction(f"turn {degrees} degrees clockwise") for degrees in range(45, 360, 45)]
    assert found == [(sector,) for sector in SECTORS[1:]]


def test_the_module_s_examples() -> None:
    assert doctest.testmod(directions).failed == 0
