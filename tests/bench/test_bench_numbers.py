"""Figures, targets, the hub's log, and what the kernel says of a process."""

from __future__ import annotations

import math
import os

import pytest
from benchlib.figures import Figure, Spread, at_least, at_most, number, ratios
from benchlib.processes import TICKS_S, account, parse_peak, parse_stat, peak_bytes
from benchlib.records import longest_chain, traffic_of, within
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


def test_a_process_is_accounted_for_whatever_its_name() -> None:
    fields = ["S", *["1"] * 6, "100", "23", "0", "0", "150", "50", "30", "20", *["0"] * 30]
    found = parse_stat(f"4711 (a (b) c) {' '.join(fields)}\n")
    assert found.cpu_s == 250 / TICKS_S
    assert found.faults == 123
    assert found.since(parse_stat(f"4711 (x) {' '.join(fields)}")).cpu_s == 0


def test_the_peak_of_memory_is_read_in_bytes() -> None:
    assert parse_peak("Name:\tx\nVmHWM:\t    1024 kB\nVmRSS:\t 1 kB\n") == 1024 * 1024
    assert parse_peak("Name:\tx\nState:\tZ (zombie)\n") == 0


def test_this_process_has_an_account() -> None:
    assert account(os.getpid()).cpu_s > 0
    assert peak_bytes("self") > 1024 * 1024
