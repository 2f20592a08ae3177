"""The result as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchlib.figures import Figure, number
from benchlib.lab import Sample

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
MARK = {True: "reached", False: "MISSED", None: ""}


def table(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """For a terminal: by scenario, ratios first."""
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
    return f"  {figure.name:<46.46} {value(figure):>13}  {between:>19}  {target:>8}  {MARK[figure.reached]}".rstrip()


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


def with_figures(page: str, text: str) -> str:
    """The page with `text` in the place that it keeps for figures. Raises ValueError when it keeps none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for figures")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def as_json(
    figures: Sequence[Figure], samples: Mapping[str, Mapping[str, Sequence[Sample]]], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything: the figures, and each pass."""
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
        "passes": {
            scenario: {system: [asdict(sample) for sample in passes] for system, passes in systems.items()}
            for scenario, systems in samples.items()
        },
    }
