"""Figures against their targets, as bars in an SVG that needs nothing: dark on white, so that it can be read on any page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchlib.figures import Figure
from benchlib.report import value

WIDTH: Final = 920
LABEL_WIDTH: Final = 290
VALUE_WIDTH: Final = 180
ROW: Final = 24
TOP: Final = 64
NOTE_LINE: Final = 15
NOTE_LETTER: Final = 6.2
"""Width of a letter of the note, on the safe side: fonts differ."""
BAR_MAX: Final = 2.5
"""Times the target at which a bar ends; a longer one is shown cut."""
REACHED, MISSED = "#2f7d4f", "#b3541e"
INK, PALE = "#1a1a1a", "#5a5a5a"


def bars(figures: Sequence[Figure], titles: Mapping[str, str], *, title: str, note: str) -> str:
    """One bar for each figure that has a target: how much of it is reached, with 1 as a line through all."""
    unit = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / BAR_MAX
    one = LABEL_WIDTH + unit
    rows: list[str] = []
    note_lines = note_text(note, WIDTH)
    top = TOP + NOTE_LINE * len(note_lines)
    y = top
    for scenario, heading in titles.items():
        shown = [figure for figure in figures if figure.scenario == scenario and figure.target is not None]
        if shown:
            rows.append(f'<text x="16" y="{y + 18}" font-weight="600" fill="{INK}">{escape(heading)}</text>')
            y += ROW
        for figure in shown:
            rows += _bar(figure, y, unit)
            y += ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 34}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{y + 34}" fill="#ffffff"/>',
            f'<text x="16" y="28" font-size="17" font-weight="600" fill="{INK}">{escape(title)}</text>',
            *note_lines,
            f'<text x="{one:.1f}" y="{top - 8}" text-anchor="middle" fill="{PALE}">target</text>',
            *rows,
            f'<line x1="{one:.1f}" y1="{top - 4}" x2="{one:.1f}" y2="{y}" stroke="{INK}" stroke-dasharray="3 3"/>',
            f'<text x="16" y="{y + 22}" font-size="12" fill="{PALE}">Longer is better in every row; green reaches its target. '
            "The thin line spans all rounds.</text>",
            "</svg>\n",
        ]
    )


def note_text(note: str, width: int) -> list[str]:
    """A remark under the title, in as many lines as it takes."""
    return [
        f'<text x="16" y="{48 + NOTE_LINE * number}" font-size="11" fill="{PALE}">{escape(line)}</text>'
        for number, line in enumerate(textwrap.wrap(note, int((width - 32) / NOTE_LETTER)))
    ]


def _bar(figure: Figure, y: float, unit: float) -> list[str]:
    target = figure.target
    assert target is not None
    spread = figure.spread
    share = target.share(spread.median)
    ends = sorted(min(BAR_MAX, target.share(end)) for end in (spread.low, spread.high))
    length = unit * min(BAR_MAX, share)
    after = LABEL_WIDTH + unit * max(1.0, min(BAR_MAX, share), ends[1]) + 8
    middle = y + ROW / 2
    cut = " »" if share > BAR_MAX else ""
    return [
        f"<g><title>{escape(figure.how)}</title>",
        f'<text x="{LABEL_WIDTH - 10}" y="{middle + 4:.1f}" text-anchor="end" fill="{INK}">{escape(figure.name)}</text>',
        f'<rect x="{LABEL_WIDTH}" y="{y + 4:.1f}" width="{max(1.0, length):.1f}" height="{ROW - 8}" '
        f'fill="{REACHED if figure.reached else MISSED}"/>',
        f'<line x1="{LABEL_WIDTH + unit * ends[0]:.1f}" y1="{middle:.1f}" x2="{LABEL_WIDTH + unit * ends[1]:.1f}" '
        f'y2="{middle:.1f}" stroke="{INK}"/>',
        f'<text x="{after:.1f}" y="{middle + 4:.1f}" fill="{INK}">{escape(value(figure))}{cut} '
        f'<tspan fill="{PALE}" font-size="11">({escape(str(target))})</tspan></text></g>',
    ]
