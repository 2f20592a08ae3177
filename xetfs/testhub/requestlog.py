"""What was asked of the hub: one record per request, so that tests can assert requests and bytes rather than time.

A record is added when the head of its request has been read and grows until its answer has been sent: all that a client has
received is already counted. No token and no query of a transfer URL is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from xetfs.testhub.messages import Origin

RECORDS_MAX: Final = 200_000
"""Records kept, the newest; some 60 MB."""


@dataclass(slots=True)
class RequestRecord:
    """One request. bytes_sent counts the body only; status is 0 while there is no answer. Times are monotonic seconds (trio's
    clock).

    range: the Range header as sent (or X-Range-Dirty, for range proofs). query: of hub and cas requests only.
    """

    origin: Origin
    method: str
    path: str
    query: str
    range: str | None
    authorized: bool
    start: float
    status: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    end: float | None = None
    connection: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class RequestLog:
    """The records since the last reset."""

    def __init__(self) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=RECORDS_MAX)

    def add(self, record: RequestRecord) -> None:
        self._records.append(record)

    def reset(self) -> None:
        self._records.clear()

    def records(self, origin: Origin | None = None) -> list[RequestRecord]:
        return [record for record in self._records if origin in (None, record.origin)]

    def totals(self) -> dict[str, dict[str, int]]:
        """Requests and body bytes sent, by origin."""
        return {origin: _total(self.records(origin)) for origin in ("hub", "cas", "transfer")}


def _total(records: Iterable[RequestRecord]) -> dict[str, int]:
    counted = list(records)
    return {"requests": len(counted), "bytes_sent": sum(record.bytes_sent for record in counted)}
