"""What is measured: a scenario names its systems, how a pass of each goes, and which figures come out of the passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchlib.figures import Figure
from benchlib.lab import Lab, Sample

Pass = Callable[[Lab], Sample]
Samples = Mapping[str, Sequence[Sample]]
XETFS = "xetfs"


class Unproven(RuntimeError):
    """Something was read without a proof: its figures would be of another thing."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """systems: in the order in which they take turns, xetfs first; figures: from the passes of each, one per round."""

    name: str
    title: str
    systems: Mapping[str, Pass]
    figures: Callable[[Lab, Samples], Sequence[Figure]]


def run_rounds(scenario: Scenario, lab: Lab, rounds: int, say: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Every system in turn, `rounds` times: A B A B, so that what changes on the machine changes for both."""
    samples: dict[str, list[Sample]] = {system: [] for system in scenario.systems}
    for number in range(rounds):
        for system, take in scenario.systems.items():
            sample = take(lab)
            samples[system].append(sample)
            rate = f", {sample.bytes_s / 1e6:,.0f} MB/s" if sample.bytes > 1e6 else ""
            say(f"{scenario.name} {number + 1}/{rounds} {system}: {sample.seconds:.3f} s{rate}")
    return samples


def all_scenarios() -> dict[str, Scenario]:
    """By name, in the order in which they run."""
    from benchlib import scenarios_models, scenarios_places, scenarios_start, scenarios_stream

    modules = (scenarios_stream, scenarios_places, scenarios_models, scenarios_start)
    return {scenario.name: scenario for module in modules for scenario in module.SCENARIOS}
