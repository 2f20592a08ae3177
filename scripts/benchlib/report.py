"""The result as a table and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchlib.curves import Curve
from benchlib.figures import Figure, number
from benchlib.lab import Sample

WIDTH = 130
MARK = {True: "reached", False: "MISSED", None: ""}
FLAT = {True: "flat", False: "GROWS", None: ""}


def table(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """Return the figures for a terminal, by scenario, ratios first."""
    lines: list[str] = []
    for scenario, title in titles.items():
        own = [figure for figure in figures if figure.scenario == scenario]
        if own:
            lines += ["", f"{title}  [{scenario}]"]
            lines += [_line(figure) for figure in ratios_first(own)]
    missed = [figure for figure in figures if figure.reached is False]
    judged = [figure for figure in figures if figure.target is not None]
    lines += ["", f"{len(judged) - len(missed)} of {len(judged)} targets reached"]
    lines += [f"  missed: {figure.scenario}, {figure.name}: {value(figure)} ({figure.target})" for figure in missed]
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    spread = figure.spread
    between = f"{number(spread.low)} … {number(spread.high)}"
    target = str(figure.target) if figure.target else ""
    return f"  {figure.name:<58.58} {value(figure):>13}  {between:>19}  {target:>8}  {MARK[figure.reached]}".rstrip()


def value(figure: Figure) -> str:
    return f"{number(figure.spread.median)} {figure.unit}".rstrip()


def ratios_first(figures: Iterable[Figure]) -> list[Figure]:
    """Ratios, then what has a target, then the rest; otherwise as they came."""
    return sorted(figures, key=lambda figure: (not figure.is_ratio, figure.target is None))


def markdown(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """The figures with a target, for the documents."""
    lines = ["| what | measured | spread | target | |", "| --- | ---: | ---: | ---: | --- |"]
    for figure in figures:
        if figure.target is not None:
            spread = figure.spread
            lines.append(
                f"| {titles[figure.scenario]}: {figure.name} | {value(figure)} | {number(spread.low)}–{number(spread.high)} "
                f"| {figure.target} | {MARK[figure.reached]} |"
            )
    return "\n".join(lines) + "\n"


def curve_table(curves: Sequence[Curve], titles: Mapping[str, str]) -> str:
    """For a terminal: a line for each curve, with its value at each size."""
    lines: list[str] = []
    for scenario, title in titles.items():
        own = [curve for curve in curves if curve.scenario == scenario]
        if own:
            sizes = "".join(f"{size:>12,}" for size in own[0].sizes)
            lines += ["", f"{title}  [{scenario}]", f"  {own[0].axis:<38}{sizes}  {'growth':>9}"]
        for curve in own:
            values = "".join(f"{number(median):>12}" for median in curve.medians)
            limit = f" (≤ {number(curve.growth_max)})" if curve.growth_max is not None else ""
            lines.append(f"  {curve.label:<38.38}{values}  {number(curve.growth):>7} ×  {FLAT[curve.is_flat]}{limit}".rstrip())
    judged = [curve for curve in curves if curve.is_flat is not None]
    lines += ["", f"{sum(curve.is_flat is True for curve in judged)} of {len(judged)} curves flat"]
    lines += [f"  grows: {curve.scenario}, {curve.name}: {number(curve.growth)} ×" for curve in judged if not curve.is_flat]
    return "\n".join(lines)


def curve_markdown(curves: Sequence[Curve], titles: Mapping[str, str]) -> str:
    """The curves, a table for each scenario, for the documents."""
    lines: list[str] = []
    for scenario, title in titles.items():
        own = [curve for curve in curves if curve.scenario == scenario]
        if own:
            sizes = " | ".join(f"{size:,}" for size in own[0].sizes)
            lines += [*([""] if lines else []), f"| {title}: {own[0].axis} | {sizes} | growth | allowed | |"]
            lines += ["| --- |" + " ---: |" * (len(own[0].sizes) + 2) + " --- |"]
        for curve in own:
            limit = f"≤ {number(curve.growth_max)}" if curve.growth_max is not None else ""
            values = " | ".join(number(median) for median in curve.medians)
            lines.append(f"| {curve.label} | {values} | {number(curve.growth)} × | {limit} | {FLAT[curve.is_flat]} |")
    return "\n".join(lines) + "\n"


def paragraph(text: str) -> str:
    """Wrapped as the documents are."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def with_block(page: str, name: str, text: str) -> str:
    """Return the page with `text` in the place marked with this name. Raises ValueError if there is no such place."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for {name}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def as_json(
    figures: Sequence[Figure],
    curves: Sequence[Curve],
    samples: Mapping[str, Mapping[str, Sequence[Sample]]],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything: the figures, the curves, and each pass."""
    return {
        "machine": dict(machine),
        "figures": [
            {
                "scenario": figure.scenario,
                "name": figure.name,
                "how": figure.how,
                "unit": figure.unit,
                "median": figure.spread.median,
                "low": figure.spread.low,
                "high": figure.spread.high,
                "values": list(figure.values),
                "target": str(figure.target) if figure.target else None,
                "reached": figure.reached,
            }
            for figure in figures
        ],
        "curves": [
            {
                "scenario": curve.scenario,
                "name": curve.name,
                "how": curve.how,
                "unit": curve.unit,
                "axis": curve.axis,
                "points": [{"size": size, "values": list(values)} for size, values in curve.points.items()],
                "growth": curve.growth,
                "growth_max": curve.growth_max,
                "flat": curve.is_flat,
            }
            for curve in curves
        ],
        "passes": {
            scenario: {system: [asdict(sample) for sample in passes] for system, passes in systems.items()}
            for scenario, systems in samples.items()
        },
    }
