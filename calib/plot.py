"""Sensitivities as a picture: one bar a block, on a logarithmic axis."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..runtime.bundle.files import atomic_path
from .sensitivity import Effect

__all__ = ["draw"]

ROW, LEFT, WIDTH = 18, 230, 560


def draw(effects: Sequence[Effect], path: Path) -> None:
    """Write an SVG: how far the prefix tokens are off with INT8 in one block, ranked as given."""
    values = [max(effect.prefix, 1e-9) for effect in effects]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    scale = WIDTH / max(high - low, 1)
    height = ROW * (len(effects) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="12">rel-rms of the prefix tokens with INT8 in one block</text>',
    ]
    for decade in range(low, high + 1):
        x = LEFT + scale * (decade - low)
        lines.append(f'<line x1="{x:.1f}" y1="{ROW}" x2="{x:.1f}" y2="{height - ROW}" stroke="#ccc"/>')
        lines.append(f'<text x="{x:.1f}" y="{height - 5}" text-anchor="middle">1e{decade}</text>')
    for place, (effect, value) in enumerate(zip(effects, values, strict=True)):
        y, length = ROW * (place + 1) + 3, scale * (math.log10(value) - low)
        lines.append(f'<text x="{LEFT - 6}" y="{y + 10}" text-anchor="end">{escape(effect.block)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{ROW - 6}" fill="#4878a8"/>')
        lines.append(f'<text x="{LEFT + length + 4:.1f}" y="{y + 10}">{value:.1e}</text>')
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*lines, "</svg>\n"]), encoding="utf-8")
