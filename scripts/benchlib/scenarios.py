"""Scenarios: the systems that are compared, a pass of each, and the figures that result from the passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchlib.curves import Curve
from benchlib.figures import Figure
from benchlib.lab import Lab, Sample

Pass = Callable[[Lab], Sample]
Samples = Mapping[str, Sequence[Sample]]
XETFS = "xetfs"
SCALE = "scale"
"""The group of the scenarios that have curves; their systems are xetfs with one size each."""


def no_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    return ()


def no_curves(samples: Samples) -> Sequence[Curve]:
    return ()


def as_it_is(lab: Lab) -> AbstractContextManager[None]:
    return nullcontext()


def always() -> str:
    return ""


class Unproven(RuntimeError):
    """A pass read without proofs, so its figures would not be comparable."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """systems: in the order in which they take turns; figures, curves: from the passes of each, one per round. needs: parts of
    the data. profiled: the system whose daemon is watched, "" for none; group: another name to pick it by, with others. setting:
    what all passes run within, such as a hub with other options. missing: what this machine lacks for it, in words, or ""."""

    name: str
    title: str
    systems: Mapping[str, Pass]
    figures: Callable[[Lab, Samples], Sequence[Figure]] = no_figures
    curves: Callable[[Samples], Sequence[Curve]] = no_curves
    needs: tuple[str, ...] = ()
    profiled: str = XETFS
    group: str = ""
    setting: Callable[[Lab], AbstractContextManager[None]] = as_it_is
    missing: Callable[[], str] = always


def run_rounds(scenario: Scenario, lab: Lab, rounds: int, say: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Run every system in turn, `rounds` times: A B B A, so that changes of the machine affect both, and neither always runs
    after the other."""
    samples: dict[str, list[Sample]] = {system: [] for system in scenario.systems}
    order = list(scenario.systems)
    for number in range(rounds):
        for system in order if number % 2 == 0 else reversed(order):
            sample = scenario.systems[system](lab)
            samples[system].append(sample)
            rate = f", {sample.bytes_s / 1e6:,.0f} MB/s" if sample.bytes > 1e6 else ""
            say(f"{scenario.name} {number + 1}/{rounds} {system}: {sample.seconds:.3f} s{rate}")
    return samples


def all_scenarios() -> dict[str, Scenario]:
    """By name, in the order in which they run."""
    from benchlib import (
        scenarios_blocks,
        scenarios_cache,
        scenarios_hub,
        scenarios_models,
        scenarios_places,
        scenarios_scale,
        scenarios_servers,
        scenarios_start,
        scenarios_stream,
        scenarios_whole,
    )

    modules = (
        scenarios_stream,
        scenarios_whole,
        scenarios_blocks,
        scenarios_servers,
        scenarios_places,
        scenarios_models,
        scenarios_start,
        scenarios_hub,
        scenarios_scale,
        scenarios_cache,
    )
    return {scenario.name: scenario for module in modules for scenario in module.SCENARIOS}
