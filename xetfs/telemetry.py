"""Names of what is counted, with their units, and the counters themselves.

A name is `layer.noun_unit`; one constant each, so that a typing error is an import error. Counters only grow. They are
incremented from the event loop and from worker threads alike; `dict` item assignment under the interpreter lock may lose
an increment between threads, so `Counters.add` takes a lock (0.1 µs, against the milliseconds of what it counts; the path of a
hit adds once per read, from the event loop).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Final

NET_REQUESTS: Final = "net.requests"
NET_RETRIES: Final = "net.retries"
NET_FAILURES: Final = "net.failures"
NET_STALLS: Final = "net.stalls"
NET_OUTAGES: Final = "net.outages"
NET_HEDGES: Final = "net.hedges"
NET_HEDGES_WON: Final = "net.hedges_won"
NET_BYTES: Final = "net.received_bytes"
NET_UNLABELLED: Final = "net.unlabelled_ranges"
"""Ranges that were accepted though their answer does not say which bytes they are; see net/bodies.py."""

HUB_REQUESTS: Final = "hub.requests"
HUB_BYTES: Final = "hub.received_bytes"
HUB_TOKEN_REFRESHES: Final = "hub.token_refreshes"
CAS_RECONSTRUCTIONS: Final = "cas.reconstructions"
CAS_URL_REFRESHES: Final = "cas.url_refreshes"
CAS_FETCHES: Final = "cas.fetches"
CAS_FETCH_BYTES: Final = "cas.fetch_bytes"

STORE_HITS: Final = "store.hits"
STORE_MISSES: Final = "store.misses"
STORE_CORRUPT: Final = "store.corrupt_blocks"
STORE_FAILURES: Final = "store.failures"
STORE_WRITTEN_BYTES: Final = "store.written_bytes"
STORE_EVICTED: Final = "store.evicted_blocks"

READER_WAITS: Final = "reader.waited_reads"
READER_SERVED_BYTES: Final = "reader.served_bytes"
READER_WINDOWS: Final = "reader.windows"
READER_PREFETCH_WINDOWS: Final = "reader.prefetch_windows"
READER_CORRUPT_WINDOWS: Final = "reader.corrupt_windows"
READER_PROOFS_MISSED: Final = "reader.proofs_missed"
READER_FALLBACK_WINDOWS: Final = "reader.fallback_windows"
READER_XORBS_RIGHT: Final = "reader.whole_xorbs_right"
READER_WHOLE_RIGHT: Final = "reader.whole_files_right"
READER_WHOLE_WRONG: Final = "reader.whole_files_wrong"

FS_OPERATIONS: Final = "fs.operations"
FS_ERRORS: Final = "fs.errors"


class Counters:
    """A set of named counters; a name that was never added to counts 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: defaultdict[str, int] = defaultdict(int)

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._values[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All counters that ever moved, sorted by name."""
        with self._lock:
            return dict(sorted(self._values.items()))

    def __repr__(self) -> str:
        return f"Counters({self.snapshot()})"
