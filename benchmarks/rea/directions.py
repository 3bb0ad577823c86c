"""Directions in free text, as sectors around the person.

    >>> read_direction("Turn to your left and walk.")
    ('left',)
    >>> read_direction("Initially it is at your 3 o'clock, but later it is behind you.")
    ('right', 'back')
    >>> read_direction("It is not in front of you.") is None
    True

Eight sectors of 45 degrees. A text may name several in turn (an object before and after a walk); one repeated at once
counts once. Read are sides ("on your left-hand side"), combinations ("ahead and to the left", "back-right", "slightly
to the right"), turns ("turn around", "turn 135 degrees clockwise") and the clock. Left aside are:

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
TOWARDS = {"to", "on", "at", "from", "toward", "towards"}
POINTING = THEIR | TURN | WALK | TOWARDS | {"slightly", "far", "hard", "sharp", "front", "back", "rear"}
LEAVING = {"the", "a", "an", "it", "them", "his", "her", "their", "my", "your"}
LEAVING |= {"behind", "on", "in", "at", "over", "there"}
EMPHASISING = {"behind", "in", "ahead", "now", "away", "after", "before", "next", "there", "here", "where", "beside"}
EMPHASISING |= {"near", "opposite", "above", "below", "under", "inside", "outside", "across", "by", "front"}
HINTING = {"slightly", "diagonally", "bit", "little", "somewhat"}
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
    for place in range(len(tokens)):
        sector = sector_at(tokens, place)
        if sector is None:
            continue
        between = tokens[last + 1 : place]
        joined = join(sectors[-1], sector) if sectors and GLUE.issuperset(between) else None
        if sectors and "or" in between and sector != sectors[-1]:
            return None
        if sectors and tokens[place] in ONWARDS and walks_on(tokens, place):
            continue
        if joined:
            sectors[-1] = joined
        elif not sectors or sector != sectors[-1]:
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
    """The sector of a bearing; what lies between the four main ones is a sector between."""
    quarter, rest = divmod(degrees % 360, 90)
    return f"@{(2 * quarter + (rest != 0)) % len(SECTORS)}"


def sector_at(tokens: list[str], place: int) -> str | None:
    """The sector that one word names in its context."""
    word = tokens[place]
    if word.startswith("@"):
        return SECTORS[int(word[1:])]
    if word not in FRONT | BACK | SIDES.keys() or seen_from_elsewhere(tokens, place):
        return None
    before, after = around(tokens, place)
    if word in SIDES:
        return side_at(tokens, place)
    if word == "front" and after in {"door", "facing"}:
        return None
    if word == "behind" and left_behind(tokens, place):
        return None
    if word == "back" and (after == "to" or not ({before, after} & SIDES.keys() or before in THEIR | TURN | {"in"})):
        return None
    return "front" if word in FRONT else "back"


def left_behind(tokens: list[str], place: int) -> bool:
    """Whether "behind" belongs to the verb, as in "left it behind"."""
    before, after = around(tokens, place)
    verb = place - 2 if before in {"it", "them"} else place - 1
    return verb >= 0 and tokens[verb] == "left" and around(tokens, verb)[0] not in POINTING and after not in PERSON


def side_at(tokens: list[str], place: int) -> str | None:
    """Left or right, unless the word is a verb, an emphasis, or belongs to a hand or a thing."""
    word = tokens[place]
    before, after = around(tokens, place)
    if after == "hand" and (tokens + [""] * 2)[place + 2] != "side":
        return None
    if after in (LEAVING if word == "left" else EMPHASISING if word == "right" else ()) and before not in POINTING:
        return None
    adjective = before == "the" and after.isalpha() and after not in GLUE | PERSON | FRONT | BACK
    if adjective and place >= 2 and tokens[place - 2] not in TOWARDS | {"is", "of", "or", "and", "in"}:
        return None
    side = SIDES[word]
    hinted = HINTING & set(tokens[max(place - 4, 0) : place])
    return f"front-{side}" if hinted and not (FRONT | BACK) & set(tokens[max(place - 6, 0) : place + 4]) else side


def seen_from_elsewhere(tokens: list[str], place: int) -> bool:
    """Whether a thing follows, as in "left side of the sink" or "behind the sofa", and not the person."""
    following = [token for token in tokens[place + 1 : place + 6] if token not in {"side", "hand"}]
    if tokens[place] == "behind":
        return (
            bool(following) and following[0] in {"the", "a", "an", "it", "this", "that"} and not names_person(following)
        )
    return following[:1] == ["of"] and not names_person(following[1:])


def names_person(following: list[str]) -> bool:
    return bool(PERSON & set(following[:1])) or (following[:1] == ["the"] and bool(PERSON & set(following[1:3])))


def walks_on(tokens: list[str], place: int) -> bool:
    return bool(WALK & set(tokens[max(place - 1, 0) : place]) or TURN & set(tokens[:place]))


def around(tokens: list[str], place: int) -> tuple[str, str]:
    return tokens[place - 1] if place else "", tokens[place + 1] if place + 1 < len(tokens) else ""


def join(first: str, second: str) -> str | None:
    """One sector of two words, "front" and "left"; None if they name no common one."""
    return next((f"{a}-{b}" for a, b in ((first, second), (second, first)) if f"{a}-{b}" in SECTORS), None)
