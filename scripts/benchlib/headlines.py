"""The few figures that the README shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchlib.curves import Curve
from benchlib.figures import Figure, number
from benchlib.report import paragraph, value

COMMAND: Final = "scripts/bench --docs"


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure in words; beside: the same figure of a peer, where the ratio says less."""

    words: str
    scenario: str
    figure: str
    beside: str = ""


HEADLINES: Final = (
    Headline("Cold read of a file: rate, over that of `hf_hub_download`", "cold", "rate / hf_hub_download"),
    Headline("The same over a link of 40 ms and 250 MB/s: share of the link", "link", "share of the link",
             "share of the link, hf_hub_download"),
    Headline("Read a file of 10 MB whole, cold, at 20 ms: round trips", "whole", "10 MB: sequential round trips"),
    Headline("Load a safetensors model, cold: time, over that of download and load", "model", "time / (hf_hub_download + load)"),
    Headline("Load a quarter of its tensors: share of its bytes fetched", "part", "bytes fetched / stored size of the file"),
    Headline("Read 4 KiB in a large file, cold: bytes moved, with proof", "random", "moved, with proof", "moved, HfFileSystem"),
    Headline("Warm read, page cache dropped: rate, over that of a plain file", "warm", "rate / plain file"),
    Headline("`ls -l` of 100,000 files", "directory", "ls -l after listing"),
    Headline("Memory of the daemon, eight readers", "readers", "peak memory"),
)  # fmt: skip


def headlines(figures: Sequence[Figure], curves: Sequence[Curve], described: str) -> str:
    """A table in Markdown. A figure that could not be measured is left out."""
    found = {(figure.scenario, figure.name): figure for figure in figures}
    lines = ["| | xetfs | beside it |", "| --- | ---: | ---: |"]
    for headline in HEADLINES:
        figure = found.get((headline.scenario, headline.figure))
        beside = found.get((headline.scenario, headline.beside))
        if figure is not None:
            lines.append(f"| {headline.words} | {value(figure)} | {f'{value(beside)}' if beside else ''} |")
    growths = [curve.growth for curve in curves if curve.growth_max is not None]
    if growths:
        words = "What an operation costs more as repos, files and caches grow 64 to 1000 times, at worst"
        lines.append(f"| {words} | {number(max(growths))} × | |")
    return "\n".join([*lines, "", paragraph(f"{described} `{COMMAND}` measures this anew and writes it here.")])
