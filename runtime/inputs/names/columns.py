"""The numbers in a list of names, one column each; those that together tell a time become one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

__all__ = ["Column", "TwoReadings", "columns_of", "with_clocks"]

SECOND = 1_000_000_000
# whole numbers that count a time, by their unit in nanoseconds and the seconds from their beginning to 1970;
# Windows counts 100 ns since 1601
EPOCHS = ((SECOND, 0), (1_000_000, 0), (1_000, 0), (1, 0), (100, 11_644_473_600))
# such a number is taken for one where it lies between these years, seconds since 1970
YEAR_2000, YEAR_2100 = 946_684_800, 4_102_444_800
# what stands between the parts of a time: none, or a sign or two
JOINT = re.compile(r"[-_:.,t ]{0,2}| at ", re.IGNORECASE)
FRACTION_WIDTHS = (3, 6, 9)
# digits of the numbers that tell a date and a time, the longest first
TIMES = ((2, 2, 2), (6,), (9,), (12,), (15,))
SHAPES = (
    *((*date, *time) for date in ((4, 2, 2), (8,)) for time in TIMES),
    *((14 + fraction,) for fraction in (0, *FRACTION_WIDTHS)),
    (4, 2, 2),
    (8,),
)


class TwoReadings(ValueError):
    """Numbers can be read in two ways.

    Attributes:
        ways: what each takes for the time, and the places of the names in its order.
    """

    def __init__(self, ways: Mapping[str, Sequence[int]]):
        """Take both."""
        super().__init__(" or ".join(ways))
        self.ways = ways


@dataclass(frozen=True)
class Column:
    """One number of each name.

    Attributes:
        before: what stands between the number before it and this one.
        digits: as they are written.
        values: what they count.
        ns: nanoseconds of a clock, where they tell a time whose unit is known.
    """

    before: str
    digits: tuple[str, ...]
    values: tuple[int, ...]
    ns: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        """The word before the number, such as cam."""
        words = re.findall(r"[a-z]+", self.before.lower())
        return words[-1] if words else ""

    @property
    def varies(self) -> bool:
        """Whether the names differ in it."""
        return len(set(self.values)) > 1

    @property
    def distinct(self) -> bool:
        """Whether it alone tells the names apart."""
        return len(set(self.values)) == len(self.values)

    @property
    def width(self) -> int | None:
        """How many digits there are, where all have as many."""
        widths = {len(digits) for digits in self.digits}
        return widths.pop() if len(widths) == 1 else None

    def order(self) -> list[int]:
        """Places of the names as this number has them."""
        return sorted(range(len(self.values)), key=self.values.__getitem__)


def columns_of(names: Sequence[str]) -> list[Column]:
    """The numbers of names that differ in nothing but their digits."""
    parts = [re.split(r"([0-9]+)", name) for name in names]
    found = []
    for place in range(1, len(parts[0]), 2):
        digits = tuple(part[place] for part in parts)
        found.append(Column(parts[0][place - 1], digits, tuple(map(int, digits))))
    return found


def with_clocks(columns: list[Column]) -> list[Column]:
    """Columns that together tell a date, a time, or seconds with a fraction, merged into one each."""
    merged, place = [], 0
    while place < len(columns):
        for read in (date_and_time, time_of_day, epoch_seconds, seconds_of_recording):
            if (found := read(columns[place:])) is not None:
                column, taken = found
                break
        else:
            column, taken = columns[place], 1
        merged.append(column)
        place += taken
    return merged


def date_and_time(columns: list[Column]) -> tuple[Column, int] | None:
    """A date, and a time after it, in one number or several; the column, and how many it takes."""
    widths = tuple(column.width for column in columns[: len(SHAPES[0])])
    for shape in SHAPES:
        taken = len(shape)
        if widths[:taken] != shape or not all(JOINT.fullmatch(column.before) for column in columns[1:taken]):
            continue
        if sum(shape) == 14 and taken < len(columns) and is_fraction(columns[taken]):
            taken += 1
        try:
            ns = tuple(map(date_ns, zip(*(column.digits for column in columns[:taken]), strict=True)))
        except ValueError:
            continue
        return joined(columns[:taken], ns, ns), taken
    return None


def date_ns(parts: tuple[str, ...]) -> int:
    """Nanoseconds since 1970 of YYYYMMDDhhmmss with a fraction or without time; raises ValueError if it is no date."""
    text = "".join(parts)
    if not 1970 <= int(text[:4]) <= 2099:
        raise ValueError(text)
    month, day, hour, minute, second = (int(text[start : start + 2] or 0) for start in range(4, 14, 2))
    date = datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=timezone.utc)
    return int(date.timestamp()) * SECOND + int(text[14:23].ljust(9, "0"))


def time_of_day(columns: list[Column]) -> tuple[Column, int] | None:
    """Hours, minutes, seconds of two digits each, and a fraction behind; two signs alike between the three."""
    parts = columns[:3]
    if [column.width for column in parts] != [2, 2, 2] or parts[1].before != parts[2].before:
        return None
    if not JOINT.fullmatch(parts[1].before) or any(max(column.values) > 59 for column in parts):
        return None
    fraction = [column for column in columns[3:4] if is_fraction(column) and column.width is not None]
    ends = zip(*(column.digits for column in fraction), strict=True) if fraction else [("",)] * len(parts[0].digits)
    clock = zip(*(column.values for column in parts), ends, strict=True)
    ns = tuple(((60 * h + m) * 60 + s) * SECOND + int(end.ljust(9, "0")[:9]) for h, m, s, (end,) in clock)
    return joined([*parts, *fraction], ns, ns), 3 + len(fraction)


def is_fraction(column: Column) -> bool:
    """Whether a number behind seconds is their fraction, rather than a counter of its own."""
    if column.before in (".", ","):
        return True
    return column.before in ("-", "_", ":") and column.width in FRACTION_WIDTHS


def epoch_seconds(columns: list[Column]) -> tuple[Column, int] | None:
    """Seconds, or thousandths, millionths, billionths of them, since 1970, with a fraction behind seconds."""
    first = columns[0]
    unit, ns = next(((unit, ns) for unit, since in EPOCHS if (ns := since_1970(first.values, unit, since))), (None, ()))
    if unit is None:
        return None
    if unit == SECOND and len(columns) > 1 and columns[1].before in (".", ",", "_", "-", ":"):
        second = columns[1]
        if max(map(len, second.digits)) <= 9 and (is_fraction(second) or second.width is None):
            ns = with_fractions(ns, second, float_digits=7)
            return joined(columns[:2], ns, ns), 2
    return joined(columns[:1], first.values, ns), 1


def since_1970(values: Sequence[int], unit: int, since: int) -> tuple[int, ...]:
    """Nanoseconds of counts of a unit; empty unless all lie between the years 2000 and 2100."""
    if not all(YEAR_2000 <= value * unit // SECOND - since < YEAR_2100 for value in values):
        return ()
    return tuple(value * unit - since * SECOND for value in values)


def seconds_of_recording(columns: list[Column]) -> tuple[Column, int] | None:
    """Seconds of a clock that began with the recording: with a decimal point, or with nanoseconds behind."""
    if len(columns) < 2 or not columns[1].varies:
        return None
    first, second = columns[:2]
    longest = max(map(len, second.digits))
    if second.before == "." and longest <= 9:
        values = with_fractions([value * SECOND for value in first.values], second, float_digits=0)
        return joined(columns[:2], values, values if longest >= 3 else None), 2
    if second.before in ("_", "-") and longest == 9 and not first.distinct:
        values = tuple(s * SECOND + ns for s, ns in zip(first.values, second.values, strict=True))
        return joined(columns[:2], values, values), 2
    return None


def with_fractions(seconds: Sequence[int], column: Column, *, float_digits: int) -> tuple[int, ...]:
    """Nanoseconds with what stands behind the seconds: a decimal fraction, or a count that is not padded.

    Args:
        seconds: before the fraction, nanoseconds.
        column: the fraction.
        float_digits: most digits that the shortest text of a float64 as large has.

    Raises:
        TwoReadings: it can be either, and the orders differ.
    """
    longest = max(map(len, column.digits))
    unit = 10 ** (9 - min(width for width in FRACTION_WIDTHS if width >= longest))
    decimal = tuple(s + int(digits.ljust(9, "0")) for s, digits in zip(seconds, column.digits, strict=True))
    counted = tuple(s + value * unit for s, value in zip(seconds, column.values, strict=True))
    # the shortest text of a number never ends in 0, so lengths that differ are those of counts
    ends_in_0 = any(len(digits) > 1 and digits.endswith("0") for digits in column.digits)
    if column.width is not None:
        return decimal
    if column.before not in (".", ",") or ends_in_0:
        return counted
    orders = [sorted(range(len(seconds)), key=values.__getitem__) for values in (decimal, counted)]
    if longest > float_digits and orders[0] != orders[1]:
        raise TwoReadings(dict(zip(("a decimal fraction", "a count behind the point"), orders, strict=True)))
    return decimal


def joined(columns: Sequence[Column], values: tuple[int, ...], ns: tuple[int, ...] | None) -> Column:
    """One column for several, with the text of all."""
    rows = range(len(values))
    texts = ["".join(c.before * (n > 0) + c.digits[row] for n, c in enumerate(columns)) for row in rows]
    return Column(columns[0].before, tuple(texts), values, ns)
