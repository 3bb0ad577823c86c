"""How names of frames and poses are read: their order, and the number or the time that each of them tells."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .columns import Column, TwoReadings, columns_of, with_clocks

__all__ = ["Reading", "UnreadNames", "listed", "read_names"]

# words before a number that tells apart what was recorded at the same time
BESIDE = {"cam", "camera", "sensor", "lens", "view", "device", "exp", "exposure", "ev", "iso", "bracket", "gain"}
# words before a number that counts recordings, which follow each other
SERIES = {"take", "seq", "sequence", "part", "chapter", "clip", "run", "session", "segment", "bag", "scene"}
# words before the number that counts frames, where several numbers do
FRAME = {"frame", "frames", "img", "image", "idx", "index"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHORTEST_HASH = 5
SHOWN = 4


class UnreadNames(ValueError):
    """Names that have no order, or several."""


@dataclass(frozen=True)
class Reading:
    """How a list of names is read.

    Attributes:
        names: in the order of time.
        numbers: what counts each of them, if one number does.
        stamps: time of each, nanoseconds of some clock, where the names tell it.
        left_out: names that are not like the others.
        words: what orders them, where there is a choice.
        doubt: why the order may not be that of time.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    stamps: tuple[int, ...] | None = None
    left_out: tuple[str, ...] = ()
    words: str = ""
    doubt: str = ""


def read_names(names: Sequence[str]) -> Reading:
    """Read names as their author meant them.

    The numbers of names that are otherwise alike stand in columns; those that tell a time together are one. The
    column that differs from name to name orders them. Names that are not like most of them are left out.

    Args:
        names: of files, without suffix; at least one, each once.

    Raises:
        UnreadNames: two ways to read them give different orders, or two names count the same.
    """
    alike = most_alike(sorted(names))
    if not alike:
        return by_name(sorted(names))
    shown = list(alike)
    try:
        columns = with_clocks(columns_of(list(alike.values())))
        varying = [column for column in columns if column.varies]
        if len(alike) > 1 and not varying and "*" in alike[shown[0]]:
            return Reading(tuple(shown), doubt="no number in the names tells their order; they are taken as text")
        order = in_time(shown, varying) if len(alike) > 1 else Order((0,), tuple(columns))
    except TwoReadings as error:
        ways = [f"by {how} ({listed([shown[place] for place in order])})" for how, order in error.ways.items()]
        raise UnreadNames(f"the names can be read in two ways, {' or '.join(ways)}") from None
    return Reading(
        names=tuple(shown[place] for place in order.places),
        numbers=order.numbers(),
        stamps=order.stamps(),
        left_out=tuple(name for name in sorted(names) if name not in alike),
        words=order.words if len(varying) > 1 or order.stamps() else "",
        doubt=order.doubt,
    )


def most_alike(names: Sequence[str]) -> dict[str, str]:
    """Names that are alike but for digits, and hashes, as `*`; empty where these are less than two thirds."""
    texts = {name: UUID.sub("*", name.lower()) for name in names}
    for reduced in (texts, without_hashes(texts)):
        kinds = defaultdict(list)
        for name, text in reduced.items():
            kinds[re.sub("[0-9]+", "#", text)].append(name)
        largest = max(kinds.values(), key=len)
        if 3 * len(largest) >= 2 * len(names):
            return {name: reduced[name] for name in largest}
    return {}


def without_hashes(texts: Mapping[str, str]) -> dict[str, str]:
    """Names with a `*` for each part between separators that is a hash in most of them."""
    parts = {name: re.split(r"([\W_]+)", text) for name, text in texts.items()}
    usual = Counter(map(len, parts.values())).most_common(1)[0][0]
    rows = [row for row in parts.values() if len(row) == usual]
    for place in range(0, usual, 2):
        found = [row[place] for row in rows]
        mixed = sum(len(re.findall("[0-9]+|[^0-9]+", text)) > 2 for text in found)
        if len(set(map(len, found))) == 1 and len(found[0]) >= SHORTEST_HASH and 2 * mixed >= len(found):
            for row in rows:
                row[place] = "*"
    return {name: "".join(row) for name, row in parts.items()}


def by_name(names: Sequence[str]) -> Reading:
    """Names that follow no one pattern, in their natural order.

    Raises:
        UnreadNames: some hold a number, and it gives another order, or none.
    """
    parts = {name: re.split("([0-9]+)", name) for name in names}
    order = sorted(names, key=lambda name: [int(text) if n % 2 else text for n, text in enumerate(parts[name])])
    if not any(len(found) > 1 for found in parts.values()):
        return Reading(tuple(order), doubt="no number in the names tells their order; they are taken as text")
    last = {name: int(found[-2]) for name, found in parts.items() if len(found) > 1}
    if len(set(last.values())) == len(names) and sorted(names, key=last.__getitem__) == order:
        return Reading(tuple(order), tuple(last[name] for name in order))
    same = " or have the same number" if len(set(last.values())) < len(last) else ""
    raise UnreadNames(f"the names follow no one pattern{same} ({listed(names)})")


def listed(names: Sequence[str]) -> str:
    """The first names of a list."""
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)


@dataclass(frozen=True)
class Order:
    """Names in the order of time.

    Attributes:
        places: of the names.
        columns: the numbers that this order agrees with, each different for every name.
        words: what orders them.
        doubt: why the order may not be that of time.
    """

    places: Sequence[int]
    columns: tuple[Column, ...] = ()
    words: str = ""
    doubt: str = ""

    def numbers(self) -> tuple[int, ...] | None:
        """What counts the names, if a number does: the frame's own where it is called so, else the last."""
        counters = [column for column in self.columns if column.ns is None]
        named = [column for column in counters if column.label in FRAME] or counters
        return tuple(named[-1].values[place] for place in self.places) if named else None

    def stamps(self) -> tuple[int, ...] | None:
        """Nanoseconds, if a number tells them."""
        clocks = [column.ns for column in self.columns if column.ns is not None]
        return tuple(clocks[0][place] for place in self.places) if clocks else None


def in_time(names: Sequence[str], varying: Sequence[Column]) -> Order:
    """The order that the numbers of two names or more give.

    Raises:
        TwoReadings: numbers give different orders, and neither is known to be that of time.
        UnreadNames: names count the same.
    """
    beside = [column for column in varying if column.label in BESIDE and column.ns is None]
    counting = [column for column in varying if column not in beside]
    if not counting:
        counting, beside = beside, []
    orders = {column: order_up_to(column, counting) for column in counting if column.distinct}
    if not counting:
        raise UnreadNames(f"{names[0]} and {names[1]} have the same number")
    if not orders:
        return together(names, counting, beside)
    clocks = [column for column in orders if column.ns is not None]
    first = (clocks or list(orders))[0]
    for column, order in orders.items():
        if order != orders[first] and not (clocks and rolls_over(column, orders[first])):
            raise TwoReadings({how(first, varying): orders[first], how(column, varying): order})
    agreeing = tuple(column for column, order in orders.items() if order == column.order() == orders[first])
    if not clocks and len(agreeing) == 1:
        require_no_turn(agreeing[0], varying)
    return Order(orders[first], agreeing, how(first, varying))


def order_up_to(column: Column, counting: Sequence[Column]) -> list[int]:
    """The order by a number that is different in every name, under the numbers before it that count recordings.

    Raises:
        TwoReadings: another number before it may count more than it does.
    """
    before = [other for other in counting[: counting.index(column)] if not other.distinct]
    own, nested = column.order(), lexicographic([*before, column])
    if own == nested or column.ns is not None:
        return own
    if all(other.label in SERIES or other.ns is not None for other in before):
        return nested
    raise TwoReadings({how(column, counting): own, how(before[0], counting): nested})


def together(names: Sequence[str], counting: Sequence[Column], beside: Sequence[Column]) -> Order:
    """The order by several numbers, none of which is different in every name; raises as `in_time`."""
    order = lexicographic([*counting, *beside])
    for place, following in pairwise(order):
        if all(column.values[place] == column.values[following] for column in (*counting, *beside)):
            raise UnreadNames(f"{names[place]} and {names[following]} have the same number")
    backward = lexicographic([*reversed(counting), *beside])
    first = counting[0]
    if order != backward and first.label not in SERIES and first.ns is None:
        raise TwoReadings({how(first, counting): order, how(counting[-1], counting): backward})
    words = ", then ".join(how(column, counting) for column in counting)
    if not beside:
        return Order(order, words=words)
    told = f"several share {how(counting[-1], counting)} and differ in {how(beside[0], beside)}; keep those of one"
    return Order(order, words=words, doubt=told)


def lexicographic(columns: Sequence[Column]) -> list[int]:
    rows = list(zip(*(column.values for column in columns), strict=True))
    return sorted(range(len(rows)), key=rows.__getitem__)


def rolls_over(column: Column, order: Sequence[int]) -> bool:
    """Whether a counter ascends in an order but for one place, where it began anew after the last of its digits."""
    values = [column.values[place] for place in order]
    most = max(values)
    falls = sum(after < before for before, after in pairwise(values))
    return falls == 1 and values[-1] < values[0] and 10 * most >= 9 * 10 ** len(str(most))


def require_no_turn(column: Column, varying: Sequence[Column]) -> None:
    """Raise TwoReadings where a counter may have begun anew: its numbers are the first and the last of its digits."""
    order = column.order()
    values = [column.values[place] for place in order]
    whole = 10 ** len(str(values[-1]))
    steps = [after - before for before, after in pairwise(values)]
    widest = max(steps)
    if len(values) > 2 and 10 * widest > 9 * whole and whole - values[-1] + values[0] <= 2 * sorted(steps)[-2]:
        start = steps.index(widest) + 1
        ways = {how(column, varying): order, "the same that began anew at 0": [*order[start:], *order[:start]]}
        raise TwoReadings(ways)


def how(column: Column, columns: Sequence[Column]) -> str:
    """What messages call a number of the names."""
    if column.ns is not None:
        return "the time in them"
    if column.label:
        return f"the number after {column.label}"
    return f"number {columns.index(column) + 1} that varies" if len(columns) > 1 else "their number"
