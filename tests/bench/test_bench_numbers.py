"""Figures, targets, the hub's log, and what the kernel says of a process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchlib.curves import Curve, by_size
from benchlib.figures import Figure, Spread, at_least, at_most, number, ratios
from benchlib.processes import account, parse_faults, parse_peak, peak_bytes
from benchlib.quiet import available_bytes, busy_share, touch_memory
from benchlib.records import longest_chain, traffic_of, within
from benchlib.scenarios_start import run
from hypothesis import given
from hypothesis import strategies as st


def record(origin: str, start: float, end: float | None, *, sent: int = 0, path: str = "/") -> dict[str, object]:
    return {"origin": origin, "start": start, "end": end, "bytes_sent": sent, "path": path}


def test_a_target_is_reached_by_its_own_value() -> None:
    assert at_least(2).reached(2)
    assert not at_least(2).reached(1.99)
    assert at_most(2).reached(2)
    assert not at_most(2).reached(2.01)


def test_a_share_of_one_is_the_target_and_more_is_better_both_ways() -> None:
    assert at_least(2).share(3) == 1.5
    assert at_most(3).share(2) == 1.5
    assert at_most(0).share(0) == 1
    assert at_most(0).share(5) == 0
    assert at_most(5).share(0) == math.inf


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_a_share_says_the_same_as_the_verdict(target: float, value: float) -> None:
    assert at_least(target).reached(value) == (at_least(target).share(value) >= 1)
    assert at_most(target).reached(value) == (at_most(target).share(value) >= 1)


def test_a_spread_has_the_median_and_both_ends() -> None:
    assert Spread.of([5, 1, 3]) == Spread(3, 1, 5)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_the_median_of_the_rounds_is_what_counts() -> None:
    figure = Figure("cold", "rate", "", "×", (0.5, 1.1, 1.2), at_least(1))
    assert figure.reached
    assert figure.is_ratio
    assert Figure("cold", "rate", "", "s", (1.0,)).reached is None


def test_ratios_are_of_neighbours() -> None:
    assert ratios([2, 9], [1, 3]) == (2, 3)
    with pytest.raises(ValueError, match="zip"):
        ratios([1], [1, 2])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (99.5, "99.5"), (1.0, "1"), (0.12345, "0.123"), (-3.2, "-3.2"), (1e-7, "1e-07")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_requests_at_the_same_time_are_one_round_trip() -> None:
    assert longest_chain([]) == 0
    assert longest_chain([(0, 10), (1, 9), (2, 11)]) == 1
    assert longest_chain([(0, 10), (0, 12), (12, 20), (13, 19)]) == 2
    assert longest_chain([(0, 1), (1, 2), (2, 3)]) == 3


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=7))
def test_the_longest_chain_is_the_longest_there_is(requests: list[tuple[int, int]]) -> None:
    intervals = [(float(start), float(start + length)) for start, length in requests]

    def longest(after: float) -> int:
        return max((1 + longest(end) for start, end in intervals if start >= after), default=0)

    assert longest_chain(intervals) == longest(-1)


def test_traffic_counts_by_origin() -> None:
    records = [
        record("cas", 0, 1, sent=10, path="/v2/reconstructions/ab"),
        record("cas", 0, 1, sent=20, path="/v2/file-chunk-hashes/ab"),
        record("transfer", 1, 3, sent=400),
        record("transfer", 2, None, sent=7),
    ]
    traffic = traffic_of(records)
    assert traffic.requests == {"hub": 0, "cas": 2, "transfer": 2}
    assert traffic.sent_bytes == {"hub": 0, "cas": 30, "transfer": 407}
    assert (traffic.requests_all, traffic.bytes_all, traffic.proofs, traffic.round_trips) == (4, 437, 1, 2)


def test_what_ended_later_than_a_read_did_not_hold_it_up() -> None:
    early, late, never = record("cas", 100, 100.04), record("cas", 100.04, 100.2), record("cas", 100, None)
    assert within([late, early, never], 0.1) == [early]
    assert within([], 1) == []


def test_page_faults_are_found_whatever_the_name_of_a_process() -> None:
    fields = ["S", *["1"] * 6, "100", "23", *["7"] * 40]
    assert parse_faults(f"4711 (a (b) c) {' '.join(fields)}\n") == 123


def test_the_peak_of_memory_is_read_in_bytes() -> None:
    assert parse_peak("Name:\tx\nVmHWM:\t    1024 kB\nVmRSS:\t 1 kB\n") == 1024 * 1024
    assert parse_peak("Name:\tx\nState:\tZ (zombie)\n") == 0


def test_the_clock_of_a_process_counts_what_it_did_and_nothing_else() -> None:
    program = "print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        ours, others = account(os.getpid()), account(waiting.pid)
        while account(os.getpid()).since(ours).cpu_s < 0.1:
            sum(range(1000))
        assert account(waiting.pid).since(others).cpu_s < 0.05
        assert account(waiting.pid).since(others).main_thread_s < 0.05
        assert account(os.getpid()).since(ours).main_thread_s > 0
        assert others.cpu_s > 0
        waiting.communicate(b"\n")
    assert peak_bytes(os.getpid()) > 1024 * 1024


def test_idle_cores_are_not_busy_whoever_used_them_before() -> None:
    before = "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 …\n"
    assert busy_share(before, "cpu  100 0 100 900 100 0 0 0 0 0\n") == 0
    assert busy_share(before, "cpu  125 0 100 850 25 0 0 0 0 0\n") == 0.25
    assert busy_share(before, before) == 0


def test_no_more_memory_is_touched_than_is_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:       2050 kB\n")
    assert available_bytes(meminfo.read_text()) == 2050 * 1024
    monkeypatch.setattr("benchlib.quiet.MEMINFO", meminfo)
    assert touch_memory(10**15) == 256 * 4096
    assert touch_memory(5000) == 4096
    assert touch_memory(0) == 0


def curve(*values: tuple[float, ...], growth_max: float | None = 2.0) -> Curve:
    return Curve("scale", "cost", "", "µs", "files", dict(zip((1_000, 10_000, 100_000), values, strict=True)), growth_max)


def test_a_curve_is_flat_as_long_as_the_largest_size_costs_no_more_than_is_allowed() -> None:
    assert curve((1.0, 1.1, 0.9), (5.0,) * 3, (2.0, 2.0, 1.9)).is_flat
    assert not curve((1.0, 1.1, 0.9), (1.0,) * 3, (2.2, 2.0, 2.9)).is_flat
    assert curve((1.0,), (1.0,), (9.0,), growth_max=None).is_flat is None


def test_growth_is_that_of_neighbours_and_from_nothing_to_nothing_none() -> None:
    assert curve((1.0, 4.0, 1.0), (1.0,) * 3, (2.0, 4.0, 8.0)).growths == (2.0, 1.0, 8.0)
    assert curve((1.0, 4.0, 1.0), (1.0,) * 3, (2.0, 4.0, 8.0)).growth == 2.0
    assert curve((0.0, 0.0), (0.0, 0.0), (0.0, 3.0)).growths == (1.0, math.inf)


def test_the_points_of_a_curve_are_in_the_order_of_their_sizes() -> None:
    found = by_size({"large": [3, 4], "small": [1, 2]}, {"small": 10, "large": 1000}, lambda sample: sample * 2)
    assert list(found.items()) == [(10, (2, 4)), (1000, (6, 8))]


def test_a_command_that_is_timed_is_waited_for_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which made its time a multiple of them."""

    def sleep(seconds: float) -> None:
        raise AssertionError("slept while a command ran")

    monkeypatch.setattr(time, "sleep", sleep)
    run(sys.executable, "-c", "pass")
    with pytest.raises(subprocess.CalledProcessError):
        run(sys.executable, "-c", "raise SystemExit(3)")
