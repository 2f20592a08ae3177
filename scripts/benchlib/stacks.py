"""Collapsed stacks, one per line with its number of samples (`a;b;c 12`): the top entries, and a flame graph."""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, MARGIN = 1200, 18, 12
_SHOWN_MIN = 1.5  # pixels
_THREAD = re.compile(r"^thread \(\d+\): (.*?)[ \d]*$")
_WAITING = ("EpollIOManager.get_events ", "WorkerThread._work ", "Condition.wait ")
"""Frames of idle threads."""


@dataclass(slots=True)
class Frame:
    """A node of the graph: its samples, with those of all it called."""

    samples: int = 0
    below: dict[str, Frame] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((frame.depth() for frame in self.below.values()), default=0)


def parse_stacks(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Return the samples of each stack, outermost frame first. Threads of the same name count together. Idle threads, which a
    sampler sometimes takes for running, are left out, and so are lines of another form, such as remarks of the profiler."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        frames = tuple(_THREAD.sub(r"thread \1", frame) for frame in stack.split(";"))
        if stack and count.isdigit() and not frames[-1].startswith(_WAITING):
            stacks[frames] += int(count)
    return stacks


def top_self(stacks: Mapping[tuple[str, ...], int], count: int) -> list[tuple[str, float]]:
    """Return the frames with most samples of their own, with their share of all."""
    own: Counter[str] = Counter()
    for stack, samples in stacks.items():
        own[stack[-1]] += samples
    return _shares(own, sum(stacks.values()), count)


def top_total(stacks: Mapping[tuple[str, ...], int], count: int) -> list[tuple[str, float]]:
    """Return the frames with most samples, those of their callees included; a recursive frame counts once per sample."""
    total: Counter[str] = Counter()
    for stack, samples in stacks.items():
        for name in set(stack):
            total[name] += samples
    return _shares(total, sum(stacks.values()), count)


def _shares(counts: Counter[str], samples: int, count: int) -> list[tuple[str, float]]:
    return [(name, found / samples) for name, found in counts.most_common(count)] if samples else []


def flame_graph(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """An SVG: width is samples, callers below what they call; hover for names."""
    root = Frame()
    for stack, samples in stacks.items():
        frame = root
        frame.samples += samples
        for name in stack:
            frame = frame.below.setdefault(name, Frame())
            frame.samples += samples
    height = (root.depth() + 2) * ROW + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-size="13" fill="#1a1a1a">{escape(title)}, {root.samples} samples</text>',
    ]
    if root.samples:
        scale = (WIDTH - 2 * MARGIN) / root.samples
        _draw(parts, f"all ({title})", root, MARGIN, height - MARGIN - ROW, scale, root.samples)
    return "\n".join([*parts, "</svg>\n"])


def _draw(parts: list[str], name: str, frame: Frame, x: float, y: float, scale: float, samples: int) -> None:
    width = frame.samples * scale
    if width < _SHOWN_MIN:
        return
    shown = name if len(name) * 6.7 < width - 4 else name[: max(0, int((width - 10) / 6.7))]
    text = f'<text x="{x + 3:.1f}" y="{y + 13:.1f}" fill="#1a1a1a">{escape(shown)}</text>' if len(shown) > 2 else ""
    parts.append(
        f"<g><title>{escape(name)}: {100 * frame.samples / samples:.1f} %</title>"
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW - 1}" '
        f'fill="{_colour(name)}" stroke="#ffffff"/>{text}</g>'
    )
    for below, called in sorted(frame.below.items()):
        _draw(parts, below, called, x, y - ROW, scale, samples)
        x += called.samples * scale


def _colour(name: str) -> str:
    """Warm and light, the same for the same name; in hexadecimal, as not every viewer knows other ways."""
    mixed = sum(ord(letter) * (place + 7) for place, letter in enumerate(name))
    rgb = colorsys.hls_to_rgb((20 + mixed % 40) / 360, (68 + mixed % 14) / 100, 0.85)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
