"""How a quantity grows with another: a floor and a power, fitted; and lines of it, drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

__all__ = ["Growth", "draw", "fit"]

EXPONENTS = np.arange(0.05, 3.01, 0.05)
# with fewer points, a floor could not be told from a slower growth
LEAST_WITH_FLOOR = 4
# where less than this share of a quantity grows, its exponent means nothing
LEAST_GROWTH = 0.1
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 60, 120, 30, 40
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f", "#bcbd22")


@dataclass(frozen=True)
class Growth:
    """`floor + factor * x**exponent`.

    Attributes:
        exponent: 1 grows in proportion, 2 as the square; 0 where it does not grow.
        floor: what is there whatever x is.
        factor: of the power.
        fit: share of the variance that it explains.
    """

    exponent: float
    floor: float
    factor: float
    fit: float


def fit(x: Sequence[float], y: Sequence[float]) -> Growth:
    """Least squares over relative errors; the floor is not negative, and zero with fewer than four points.

    Raises:
        ValueError: there are fewer than two different x.
    """
    across, values = np.asarray(x, float), np.asarray(y, float)
    if len(set(x)) < 2:
        raise ValueError("a growth needs two points or more")
    if values.max() - values.min() < LEAST_GROWTH * values.max():
        return Growth(0.0, float(values.mean()), 0.0, 1.0)
    if len(across) < LEAST_WITH_FLOOR:
        exponent, offset = np.polyfit(np.log(across), np.log(values), 1)
        return judged(float(exponent), 0.0, float(np.exp(offset)), across, values)
    tried = [
        judged(float(exponent), *floor_and_factor(across**exponent, values), across, values) for exponent in EXPONENTS
    ]
    return max(tried, key=lambda growth: growth.fit)


def floor_and_factor(powers: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Both at least zero, for the least sum of squared relative errors."""
    design = np.stack([np.ones_like(powers), powers], axis=1) / values[:, None]
    floor, factor = np.linalg.lstsq(design, np.ones_like(values), rcond=None)[0]
    if floor < 0:
        share = powers / values
        return 0.0, float(share.sum() / (share**2).sum())
    return float(floor), float(max(factor, 0.0))


def judged(exponent: float, floor: float, factor: float, x: np.ndarray, y: np.ndarray) -> Growth:
    """A growth, with how well it explains the logarithms."""
    said, seen = np.log(np.maximum(floor + factor * x**exponent, 1e-12)), np.log(y)
    spread = float(((seen - seen.mean()) ** 2).sum())
    return Growth(exponent, floor, factor, 1 - float(((said - seen) ** 2).sum()) / spread if spread else 1.0)


def draw(panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]], title: str) -> str:
    """An SVG of one panel beside the other; both axes are logarithmic, and each line is named at its end.

    Args:
        panels: by what grows: x, and y of each line, all above zero.
        title: above all.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{HEIGHT + 24}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="12" y="17" font-size="14">{escape(title)}</text>',
    ]
    for index, (name, (x, lines)) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({WIDTH * index},24)">{panel(name, x, lines)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(name: str, x: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Axes, lines and names of one panel."""
    low, high = min(min(y) for y in lines.values()), max(max(y) for y in lines.values())
    across = scale(min(x), max(x), LEFT, WIDTH - RIGHT)
    up = scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="black"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(name)}</text>',
    ]
    parts += [
        f'<text x="{across(value):.0f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:g}</text>' for value in x
    ]
    for value in (low, (low * high) ** 0.5, high):
        parts.append(f'<text x="{LEFT - 5}" y="{up(value) + 4:.0f}" text-anchor="end">{value:.3g}</text>')
    ends = spread([up(y[-1]) for y in lines.values()])
    for (line, y), colour, end in zip(lines.items(), COLOURS * (1 + len(lines) // len(COLOURS)), ends, strict=False):
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 6}" y="{end + 4:.0f}" fill="{colour}">{escape(line)}</text>')
    return "\n".join(parts)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A function from values to places, logarithmic."""
    span = np.log(high / low) or 1.0
    return lambda value: start + (end - start) * float(np.log(value / low) / span)


def spread(places: list[float], apart: float = 12.0) -> list[float]:
    """Places moved down until none lies on another."""
    moved, last = [0.0] * len(places), -np.inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        last = moved[index] = max(places[index], last + apart)
    return moved
