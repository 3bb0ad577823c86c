"""Directions in free text, as sectors around the person.

    >>> read_direction("Turn to your left and walk.")
    ('left',)
    >>> read_direction("Initially it is at your 3 o'clock, but later it is behind you.")
    ('right', 'back')
    >>> read_direction("It is not in front of you.") is None
    True

Eight sectors of 45 degrees. A text may name several (an object before and after a walk); one repeated at once
counts once. Read are sides ("on your left-hand side"), combinations ("ahead and to the left", "back-right", "slightly
to the right"), turns ("turn around", "turn 135 degrees clockwise") and the clock. Not read are:

- what is negated, and text that leaves a choice open ("left or right");
- directions from something else than the person ("to the left of the sink", "behind the sofa");
- other senses: "right now", "right behind you", "left it on the table", "the left hand", "the left drawer";
- walking straight on after a turn, which adds no direction.
"""

import re

from .wording import affirmed, digits, plain

__all__ = ["SECTORS", "read_direction"]

SECTORS = ("front", "front-right", "right", "back-right", "back", "back-left", "left", "front-left")
FRONT = {"front", "ahead", "straight", "forward", "forwards"}
ONWARDS = FRONT - {"front"}
BACK = {"behind", "back", "backward", "backwards", "rear"}
SIDES = {"left": "left", "leftward": "left", "leftwards": "left"}
SIDES |= {"right": "right", "rightward": "right", "rightwards": "right"}

THEIR = {"the", "your", "their", "his", "her", "my", "its"}
PERSON = {"you", "me", "us", "them", "him", "her", "themselves", "yourself"}
PERSON |= {"person", "person's", "viewer", "camera", "wearer", "observer", "user", "robot", "agent", "where"}
TURN = {"turn", "turns", "turned", "turning", "rotate", "pivot", "veer", "bear", "face", "look"}
WALK = {
    "walk",
    "walking",
    "go",
    "going",
    "move",
    "moving",
    "head",
    "continue",
    "proceed",
    "step",
    "keep",
    "run",
    "then",
}
TOWARDS = {"to", "on", "at", "from", "toward", "towards", "and", "or"}
POINTING = THEIR | TURN | WALK | TOWARDS - {"and", "or"} | {"slightly", "far", "hard", "sharp", "front", "back", "rear"}
LEAVING = {"the", "a", "an", "it", "them", "his", "her", "their", "my", "your"}
LEAVING |= {"behind", "on", "in", "at", "over", "there"}
EMPHASISING = {"behind", "in", "ahead", "now", "away", "after", "before", "next", "there", "here", "where", "beside"}
EMPHASISING |= {"near", "opposite", "above", "below", "under", "inside", "outside", "across", "by", "front"}
HINTING = {"slight", "slightly", "diagonally", "bit", "little", "somewhat"}
GLUE = THEIR | PERSON | HINTING | {"and", "to", "of", "on", "at", "in", "side", "hand", "a", ",", "off", "but", "also"}

CLOCK = re.compile(r"\b(1[0-2]|[1-9]) ?o'? ?clock\b")
WISE = r"(left|right|clockwise|counter clockwise|counterclockwise|anti clockwise|anticlockwise)"
ANGLE = re.compile(rf"\b(\d+) ?(?:degrees?|°)(?: (?:to|towards?) (?:the|your|their|his|her))? {WISE}\b")
TURN_BY = re.compile(rf"\b{WISE}(?: by)? (\d+) ?(?:degrees?|°)")
TURN_WISE = re.compile(r"\b(?:clockwise|((?:counter|anti) ?clockwise))\b")
AROUND = re.compile(
    r"\b(?:(?:turn|turns|turned|turning|spin)(?: all the way| yourself)? (?:around|round|about)\b(?! (?:the|a)\b)"
    r"|u turn\b|about face\b|180 ?(?:degrees?\b|°)|(?:the )?opposite direction\b)"
)
STRAIGHT_AHEAD = re.compile(r"\b(?:straight|dead|directly) (?:ahead|forwards?|on)\b")
STRAIGHT_TO_A_SIDE = re.compile(r"\bstraight(?=(?: to)?(?: the| your)? (?:left|right|back|behind|rear)\b)")


def read_direction(text: str) -> tuple[str, ...] | None:
    """The sectors that a text names, in order; None if it names none or leaves a choice open."""
    tokens = re.findall(r"[\w']+|@\d|[,.;:]", with_markers(affirmed(plain(text))))
    sectors: list[str] = []
    last = -1
    for place, word in enumerate(tokens):
        sector = sector_of(word, tokens[:place][::-1], tokens[place + 1 :])
        if sector is None:
            continue
        between = tokens[last + 1 : place]
        if sectors and "or" in between and sector != sectors[-1]:
            return None
        walking = bool(WALK & set(between[-1:]) or TURN & set(tokens[:place]))
        if sectors and word in ONWARDS and walking:
            continue
        joined = join(sectors[-1], sector) if sectors and GLUE.issuperset(between) else None
        if joined:
            sectors[-1] = joined
        elif sectors[-1:] != [sector]:
            sectors.append(sector)
        last = place
    return tuple(sectors) or None


def with_markers(text: str) -> str:
    """Clock positions, angles and turns as `@0` to `@7`, numbers of sectors."""
    text = digits(text.replace("/", " or ").replace("-", " "))
    text = CLOCK.sub(lambda found: marker(30 * int(found[1])), text)
    text = ANGLE.sub(lambda found: marker(signed(found[2]) * int(found[1])), text)
    text = TURN_BY.sub(lambda found: marker(signed(found[1]) * int(found[2])), text)
    text = AROUND.sub(f"turn {marker(180)}", text)
    text = TURN_WISE.sub(lambda found: marker(signed(found[0]) * 90), text)
    return STRAIGHT_TO_A_SIDE.sub(" ", STRAIGHT_AHEAD.sub("ahead", text))


def signed(side: str) -> int:
    return 1 if side in ("right", "clockwise") else -1


def marker(degrees: int) -> str:
    return f"@{round(degrees / 45) % len(SECTORS)}"


def join(first: str, second: str) -> str | None:
    """One sector of two words, "front" and "left"; None if they name no common one."""
    return next((f"{a}-{b}" for a, b in ((first, second), (second, first)) if f"{a}-{b}" in SECTORS), None)


def sector_of(word: str, before: list[str], after: list[str]) -> str | None:
    """The sector that a word names between the words before it, nearest first, and those after it."""
    if word.startswith("@"):
        return SECTORS[int(word[1:])]
    if word not in FRONT | BACK | SIDES.keys() or from_elsewhere(word, after):
        return None
    if word in SIDES:
        side = SIDES[word]
        if verb_or_emphasis(side, before, after) or part_of_a_thing(before, after):
            return None
        # "slightly to the left" is half in front, "slightly to the left and behind" is not
        alone = not (FRONT | BACK) & {*before[:6], *after[:3]}
        return f"front-{side}" if alone and HINTING & set(before[:4]) else side
    if word in FRONT:
        return None if word == "front" and after[:1] in (["door"], ["facing"]) else "front"
    if (word == "behind" and left_behind(before, after)) or (word == "back" and not at_the_back(before, after)):
        return None
    return "back"


def from_elsewhere(word: str, after: list[str]) -> bool:
    """Whether a thing follows, as in "left side of the sink" or "behind the sofa", and not the person."""
    following = [token for token in after[:5] if token not in {"side", "hand"}]
    if word == "behind":
        return (
            following[:1] != [] and following[0] in {"the", "a", "an", "it", "this", "that"} and not person(following)
        )
    return following[:1] == ["of"] and not person(following[1:])


def person(following: list[str]) -> bool:
    """Whether words start with the person: "you", "the person", "the camera wearer"."""
    nouns = following[1:3] if following[:1] == ["the"] else following[:1]
    return bool(PERSON & set(nouns))


def verb_or_emphasis(side: str, before: list[str], after: list[str]) -> bool:
    """Whether "left" is a verb ("left it there") or "right" an emphasis ("right behind you", "all right")."""
    if {"that's", "all"} & set(before[:1]):
        return True
    other = LEAVING if side == "left" else EMPHASISING
    return bool(other & set(after[:1])) and not POINTING & set(before[:1])


def part_of_a_thing(before: list[str], after: list[str]) -> bool:
    """Whether a side distinguishes things: "the left hand", "open the left drawer", "next to the left wall"."""
    if after[:1] == ["hand"]:
        return after[1:2] != ["side"]
    noun = before[:1] == ["the"] and after[:1] != [] and after[0].isalpha() and after[0] not in GLUE | FRONT | BACK
    return noun and (before[1:2] == [] or before[1] not in TOWARDS or before[2:3] in (["next"], ["close"]))


def left_behind(before: list[str], after: list[str]) -> bool:
    """Whether "behind" belongs to a verb, as in "left it behind"."""
    verb = before[1:] if before[:1] in (["it"], ["them"]) else before
    return verb[:1] == ["left"] and not POINTING & set(verb[1:2]) and not person(after)


def at_the_back(before: list[str], after: list[str]) -> bool:
    """Whether "back" is a direction: "at your back", "back left", "Back."; not "go back", "their back to the sink"."""
    if after[:1] == ["to"]:
        return False
    alone = not before and not (after and after[0].isalpha())
    return alone or bool(
        (THEIR | TURN | SIDES.keys() | {"in", "person's"}) & set(before[:1]) or SIDES.keys() & set(after[:1])
    )
