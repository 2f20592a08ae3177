"""Curves as small pictures side by side: size on a logarithmic axis, cost from zero, so that what is flat looks flat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchlib.curves import Curve
from benchlib.figures import number
from benchlib.picture import INK, MISSED, NOTE_LINE, PALE, REACHED, note_text

COLUMNS: Final = 4
PANEL_WIDTH, PANEL_HEIGHT = 236, 156
MARGIN: Final = 16
TOP: Final = 44
HEADING: Final = 34
PLOT_LEFT, PLOT_RIGHT = 30, 36
PLOT_TOP, PLOT_BOTTOM = 50, 28
HEADROOM: Final = 1.35
"""How much higher than the highest point a panel is: room for its label."""


def curve_panels(curves: Sequence[Curve], titles: Mapping[str, str], *, title: str, note: str) -> str:
    """One panel for each curve, under the heading of its scenario."""
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH
    parts: list[str] = []
    note_lines = note_text(note, width)
    y = TOP + NOTE_LINE * len(note_lines)
    for scenario, heading in titles.items():
        own = [curve for curve in curves if curve.scenario == scenario]
        if not own:
            continue
        parts.append(f'<text x="{MARGIN}" y="{y + 22}" font-size="15" font-weight="600" fill="{INK}">{escape(heading)}</text>')
        y += HEADING
        for place, curve in enumerate(own):
            row, column = divmod(place, COLUMNS)
            parts += _panel(curve, MARGIN + column * PANEL_WIDTH, y + row * PANEL_HEIGHT)
        y += math.ceil(len(own) / COLUMNS) * PANEL_HEIGHT
    height = y + 34
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="{MARGIN}" y="28" font-size="17" font-weight="600" fill="{INK}">{escape(title)}</text>',
            *note_lines,
            *parts,
            f'<text x="{MARGIN}" y="{height - 12}" fill="{PALE}">Each axis begins at zero; a thin line spans all rounds. '
            "× is the largest size over the smallest; green stays within what is allowed.</text>",
            "</svg>\n",
        ]
    )


def _panel(curve: Curve, left: float, top: float) -> list[str]:
    colour = {True: REACHED, False: MISSED, None: PALE}[curve.is_flat]
    low, high = math.log(curve.sizes[0]), math.log(curve.sizes[-1])
    ceiling = HEADROOM * max(max(values) for values in curve.points.values()) or 1.0
    x_from, x_to = left + PLOT_LEFT, left + PANEL_WIDTH - PLOT_RIGHT
    y_from, y_to = top + PANEL_HEIGHT - PLOT_BOTTOM, top + PLOT_TOP
    places = [x_from + (x_to - x_from) * (math.log(size) - low) / (high - low) for size in curve.sizes]

    def at(value: float) -> float:
        return y_from - (y_from - y_to) * value / ceiling

    verdict = "" if curve.growth_max is None else f" (≤ {number(curve.growth_max)})"
    parts = [
        f"<g><title>{escape(curve.how)}</title>",
        f'<text x="{left}" y="{top + 18}" fill="{INK}">{escape(curve.label)}</text>',
        f'<text x="{left}" y="{top + 34}" font-size="11" fill="{colour}">× {escape(number(curve.growth))}{verdict}</text>',
        f'<line x1="{left}" y1="{y_from}" x2="{x_to + PLOT_RIGHT - 12}" y2="{y_from}" stroke="{PALE}" stroke-width="0.5"/>',
        f'<polyline points="{" ".join(f"{x:.1f},{at(value):.1f}" for x, value in zip(places, curve.medians, strict=True))}" '
        f'fill="none" stroke="{colour}" stroke-width="2"/>',
    ]
    for x, value, (size, values) in zip(places, curve.medians, curve.points.items(), strict=True):
        parts += [
            f'<line x1="{x:.1f}" y1="{at(min(values)):.1f}" x2="{x:.1f}" y2="{at(max(values)):.1f}" stroke="{colour}"/>',
            f'<circle cx="{x:.1f}" cy="{at(value):.1f}" r="3" fill="{colour}"/>',
            f'<text x="{x:.1f}" y="{at(max(values)) - 8:.1f}" text-anchor="middle" fill="{INK}" '
            f'paint-order="stroke" stroke="#ffffff" stroke-width="3">{escape(number(value))}</text>',
            f'<text x="{x:.1f}" y="{y_from + 16}" text-anchor="middle" font-size="11" fill="{PALE}">{size:,}</text>',
        ]
    parts.append(
        f'<text x="{x_to + PLOT_RIGHT - 12}" y="{y_from + 27}" text-anchor="end" font-size="10" fill="{PALE}">'
        f"{escape(curve.axis)}</text></g>"
    )
    return parts
