"""Distances in free text: metres, or whether the person is closer to something, farther, or as far as before.

    >>> read_distance("About two and a half metres away.")
    Distance(metres=2.5, relation=None, to='')
    >>> read_distance("She starts off farther from the sink, but ends up closer to it.").relation
    'closer'

A range is its middle. Bounds ("less than 2 m"), several different distances, and negated ones are no answer.
"""

import re
from dataclasses import dataclass

from .wording import affirmed, digits, plain

__all__ = ["TOLERANCE", "Distance", "read_distance"]

TOLERANCE = 0.15
METRES = {"m": 1.0, "meter": 1.0, "metre": 1.0, "cm": 0.01, "centimeter": 0.01, "centimetre": 0.01}
METRES |= {
    "mm": 0.001,
    "millimeter": 0.001,
    "millimetre": 0.001,
    "km": 1000.0,
    "kilometer": 1000.0,
    "kilometre": 1000.0,
}
METRES |= {"ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "inch": 0.0254, "inche": 0.0254, "yard": 0.9144}
UNIT = rf"({'|'.join(sorted(METRES, key=len, reverse=True))})s?\b"
NUMBER = r"(?<![\d.])(\d+(?:\.\d+)?|\.\d+)"
QUANTITY = re.compile(rf"{NUMBER}(?: ?(?:-|–|to|or|and) ?{NUMBER})?[ -]?{UNIT}")
BOUND = re.compile(r"\b(?:than|over|under|at least|at most|within|beyond|up to|above|below)(?: about| around)? ?$")
# in this order: commas between thousands are removed before the others become decimal points
FRACTIONS = (
    (re.compile(r"(?<=\d),(?=\d{3}\b)"), ""),
    (re.compile(r"(?<=\d),(?=\d)"), "."),
    (re.compile(r"\b(\d+) point (\d+)"), r"\1.\2"),
    (re.compile(r"\b(\d+) and (?:a )?half\b"), r"\1.5"),
    (re.compile(rf"\b(?:a|1) {UNIT} and a half\b"), r"1.5 \1"),
    (re.compile(rf"\bhalf (?:of )?an? (?={UNIT})"), "0.5 "),
    (re.compile(r"\ba couple (?:of )?"), "2 "),
    (re.compile(rf"\ban? (?={UNIT})"), "1 "),
)

UNCHANGED = re.compile(r"\bneither (?:closer|nearer) nor (?:farther|further)|\bdistance does(?: not|n't) change")
SAME = re.compile(
    r"\b(?:same|similar|equal|constant|unchanged) distance|\bequidistant|\bequally (?:far|close|near|distant)"
    r"|^(?:about )?(?:the )?same\b"
    r"|\bdistance (?:stays|remains|is) (?:about |roughly |almost )?(?:the )?(?:same|constant|unchanged)"
)
CHANGE = r"distance[a-z ]*?"
CLOSER = rf"closer|closest|nearer|nearest|approach(?:es|ed|ing)?|{CHANGE} (?:decreas\w+|shrinks|smaller|shorter)"
FURTHER = r"(?:farther|further|farthest|furthest)(?: away)?|away(?= from)|(?<=moves )away"
FARTHER = rf"{FURTHER}|{CHANGE} (?:increas\w+|grows|larger|longer)"
THING = r"(?:the |a )?([a-z ]+?)"
END = r"(?= (?:than|from|to|when|while|during|after|as|at|and|or|in|between|but|by|before)\b|[,.;:]|$)"
MOVE = re.compile(rf"\b(?:({CLOSER})|({FARTHER}))\b(?:(?: to| from)? (?!than\b){THING}{END})?")
OTHER = re.compile(rf" than (?:(?:to|from|it is to|it is from) )?{THING}{END}")
SUBJECT = re.compile(r"(?:^|[,.;:] ?)(?:the |a )?([a-z]+(?: [a-z]+)?) (?:is|was|seems|appears) (?:\w+ )?$")
PERSON = {"person", "you", "them", "him", "her", "me", "camera", "viewer", "user", "it"}
OUTCOME = re.compile(r"\b(?:end(?:s|ed|ing)? up|finally|finish(?:es|ed)?|then|afterwards)\b")


@dataclass(frozen=True)
class Distance:
    """What a text says about a distance: metres, or a relation.

    Attributes:
        metres: the length.
        relation: "closer", "farther" or "same".
        to: what the relation is to, if the text says so.
    """

    metres: float | None = None
    relation: str | None = None
    to: str = ""

    def agrees(self, reference: "Distance") -> bool:
        """Whether metres differ by at most 15 % of the reference's, or relations are the same, to the same thing."""
        if self.metres is not None and reference.metres is not None:
            # a difference of exactly 15 % should not depend on rounding
            return abs(self.metres - reference.metres) <= TOLERANCE * reference.metres + 1e-9
        same = self.relation is not None and self.relation == reference.relation
        return same and (not self.to or not reference.to or self.to == reference.to)


def read_distance(text: str) -> Distance | None:
    """What a text says about a distance; None if nothing, or nothing definite."""
    bare = plain(text)
    if UNCHANGED.search(bare):
        return Distance(relation="same")
    bare = digits(affirmed(bare))
    for pattern, replacement in FRACTIONS:
        bare = pattern.sub(replacement, bare)
    found = list(QUANTITY.finditer(bare))
    if found:
        return read_metres(bare, found)
    return Distance(relation="same") if SAME.search(bare) else read_relation(bare)


def read_metres(text: str, found: list[re.Match[str]]) -> Distance | None:
    """The one length that all quantities state; "1 m 50 cm" is one, and so is "3 m (10 feet)"."""
    lengths: list[float] = []
    end, unit = -1, 0.0
    for quantity in found:
        if BOUND.search(text[: quantity.start()]):
            return None
        low, high, scale = float(quantity[1]), float(quantity[2] or quantity[1]), METRES[quantity[3]]
        length = (low + high) / 2 * scale
        if lengths and scale < unit and text[end : quantity.start()].strip(" ,") in ("", "and"):
            lengths[-1] += length
        else:
            lengths.append(length)
        end, unit = quantity.end(), scale
    return Distance(metres=lengths[0]) if max(lengths) - min(lengths) <= TOLERANCE * min(lengths) else None


def read_relation(text: str) -> Distance | None:
    """Closer or farther; where both are said, what the person ends up with."""
    moves = list(MOVE.finditer(text))
    if not moves:
        return None
    kinds = ["closer" if move[1] else "farther" for move in moves]
    if len(set(kinds)) > 1 and not OUTCOME.search(text[moves[0].end() : moves[-1].start()]):
        return None
    move, kind = moves[-1], kinds[-1]
    to = move[3] or ""
    if to in PERSON or not to:
        subject = SUBJECT.search(text[: move.start()])
        to = subject[1] if subject and subject[1] not in PERSON else ""
    other = OTHER.match(text, move.end())
    if kind == "farther" and other:
        return Distance(relation="closer", to=other[1])
    return Distance(relation=kind, to=to)
