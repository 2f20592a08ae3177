"""What the hub of these measurements gives at most: it has the same cores, and must not be what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from benchlib.data import NOISE
from benchlib.figures import Figure, at_least, at_most, each
from benchlib.lab import GB, Lab, Sample
from benchlib.scenarios import Samples, Scenario
from benchlib.scenarios_stream import size_text

RAW: Final = "one connection"


def raw_pass(lab: Lab) -> Sample:
    """All ranges of a file, one after the other on one connection, by a client that throws the bytes away in the kernel."""
    content = lab.data.noise
    lab.quiet(content.xorbs)
    ranges = lab.hub.signed_ranges(content.repo, content.file)
    return lab.measure(lambda: lab.read("discard", ranges=ranges))


def raw_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    passes = samples[RAW]
    what = f"all ranges of a file of {size_text(lab.data.noise)} on one connection, by a client that throws the bytes away"
    figure = partial(Figure, "hub")
    return [
        figure("rate", what, "MB/s", each(passes, lambda s: s.bytes_s / 1e6), at_least(1000)),
        figure("CPU of the hub", what, "s/GB", each(passes, lambda s: s.cpu_s["hub"] / (s.bytes / GB)), at_most(0.5)),
    ]


SCENARIOS: Final = (Scenario("hub", "What the hub gives at most", {RAW: raw_pass}, raw_figures, needs=(NOISE,), profiled=""),)
