"""What the hub's log shows of a pass: requests and bytes by origin, and the number of sequential round trips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ORIGINS = ("hub", "cas", "transfer")
PROOF_PATH = "/v2/file-chunk-hashes/"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests and body bytes of a pass. round_trips: length of the longest chain of requests that waited for each other."""

    requests: Mapping[str, int]
    sent_bytes: Mapping[str, int]
    round_trips: int
    proofs: int

    @property
    def requests_all(self) -> int:
        return sum(self.requests.values())

    @property
    def bytes_all(self) -> int:
        return sum(self.sent_bytes.values())


def traffic_of(records: Iterable[Mapping[str, Any]]) -> Traffic:
    """Summarize records of the control endpoint."""
    kept = list(records)
    return Traffic(
        {origin: sum(record["origin"] == origin for record in kept) for origin in ORIGINS},
        {origin: sum(record["bytes_sent"] for record in kept if record["origin"] == origin) for origin in ORIGINS},
        longest_chain((record["start"], _end(record)) for record in kept),
        sum(record["path"].startswith(PROOF_PATH) for record in kept),
    )


def _end(record: Mapping[str, Any]) -> float:
    """Return the end of a response; one that was never finished takes no time."""
    return float(record["start"] if record["end"] is None else record["end"])


def within(records: Iterable[Mapping[str, Any]], seconds: float) -> list[Mapping[str, Any]]:
    """Return those that ended within `seconds` of the first one's start: a read that took so long can have waited for them."""
    kept = list(records)
    until = min((record["start"] for record in kept), default=0.0) + seconds
    return [record for record in kept if record["end"] is not None and record["end"] <= until]


def longest_chain(intervals: Iterable[tuple[float, float]]) -> int:
    """Return how many of these (start, end) can be picked so that each begins after the previous one has ended.

    That is the number of round trips that had to wait for each other, or happened to: requests that run side by side count once.
    Over a link without latency nearly all requests are too short to overlap, so it means something only where there is some.
    """
    count, free_at = 0, float("-inf")
    for start, end in sorted(intervals, key=lambda interval: interval[1]):
        if start >= free_at:
            count += 1
            free_at = end
    return count
