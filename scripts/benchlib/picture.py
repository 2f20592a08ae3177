"""Figures against their targets, as bars in an SVG that needs nothing: dark on white, so that it can be read on any page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchlib.figures import Figure
from benchlib.report import value

WIDTH: Final = 920
LABEL_WIDTH: Final = 400
ROW: Final = 26
TOP: Final = 74
BAR_MAX: Final = 2.5
"""Times the target at which a bar ends; a longer one is shown cut."""
REACHED, MISSED = "#2f7d4f", "#b3541e"
INK, PALE = "#1a1a1a", "#5a5a5a"


def bars(figures: Sequence[Figure], titles: Mapping[str, str], *, title: str, note: str) -> str:
    """One bar for each figure that has a target: how much of it is reached, with 1 as a line through all."""
    shown = [figure for figure in figures if figure.target is not None]
    unit = (WIDTH - LABEL_WIDTH - 150) / BAR_MAX
    one = LABEL_WIDTH + unit
    end = TOP + ROW * len(shown)
    height = end + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="17" font-weight="600" fill="{INK}">{escape(title)}</text>',
        f'<text x="16" y="48" fill="{PALE}">{escape(note)}</text>',
        f'<text x="{one:.1f}" y="{TOP - 8}" text-anchor="middle" fill="{PALE}">target</text>',
    ]
    for row, figure in enumerate(shown):
        parts += _bar(figure, titles[figure.scenario], TOP + row * ROW, unit)
    parts += [
        f'<line x1="{one:.1f}" y1="{TOP - 4}" x2="{one:.1f}" y2="{end}" stroke="{INK}" stroke-dasharray="3 3"/>',
        f'<text x="16" y="{height - 12}" font-size="12" fill="{PALE}">Longer is better in every row; green reaches its target. '
        "The thin line spans all rounds.</text>",
        "</svg>\n",
    ]
    return "\n".join(parts)


def _bar(figure: Figure, title: str, y: float, unit: float) -> list[str]:
    target = figure.target
    assert target is not None
    spread = figure.spread
    share = target.share(spread.median)
    ends = sorted(min(BAR_MAX, target.share(end)) for end in (spread.low, spread.high))
    length = unit * min(BAR_MAX, share)
    colour = REACHED if figure.reached else MISSED
    after = LABEL_WIDTH + max(length, unit * ends[1], 0.0 if share > 1 else unit) + 8
    middle = y + ROW / 2
    cut = " »" if share > BAR_MAX else ""
    label = f"{title}: {figure.name}"
    label = label if len(label) <= 62 else label[:61] + "…"
    return [
        f"<g><title>{escape(figure.how)}</title>",
        f'<text x="{LABEL_WIDTH - 10}" y="{middle + 4:.1f}" text-anchor="end" fill="{INK}" font-size="12">{escape(label)}</text>',
        f'<rect x="{LABEL_WIDTH}" y="{y + 5:.1f}" width="{max(1.0, length):.1f}" height="{ROW - 10}" fill="{colour}"/>',
        f'<line x1="{LABEL_WIDTH + unit * ends[0]:.1f}" y1="{middle:.1f}" x2="{LABEL_WIDTH + unit * ends[1]:.1f}" '
        f'y2="{middle:.1f}" stroke="{INK}"/>',
        f'<text x="{after:.1f}" y="{middle + 4:.1f}" fill="{INK}">{escape(value(figure))}{cut} '
        f'<tspan fill="{PALE}" font-size="11">({escape(str(target))})</tspan></text></g>',
    ]
