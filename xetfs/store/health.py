"""When the disk fails, and when it is tried again.

    ok ── a write fails ──> failing ── PROBE_INTERVAL_S later, one write is let through ──> probing
    ^                          ^──────────────────── it fails ───────────────────────────────┘ │
    └───────────────────────────────────────────── it succeeds ────────────────────────────────┘

Reads are not held back: what can still be read is read. Each way is logged once, however many writes fail in between.

A disk that hangs is failing for as long as it does, and probed as soon as it answers.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Final

from xetfs.store.api import DISK_HANGS, StoreState

log = logging.getLogger(__name__)

PROBE_INTERVAL_S: Final = 20.0
"""How long a failing disk is left alone; a store is thus in use again well within a minute of its disk."""


class Health:
    """Thread-safe: every method is one step under a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self.state: StoreState = "ok"
        self.failure = ""
        """What the last failure was; empty while the state is ok."""

    def may_write(self) -> bool:
        """Whether a write may be tried now. In state failing this is the turn to `probing`, and for one caller only."""
        with self._lock:
            if self.state == "failing" and self._clock() >= self._retry_at:
                self.state = "probing"
                return True
            return self.state == "ok"

    def failed(self, failure: str) -> None:
        """Something did not work. While failing that is no news, and does not put off the next try."""
        with self._lock:
            was, self.state = self.state, "failing"
            self.failure = failure
            if was != "failing":
                self._retry_at = self._clock() + PROBE_INTERVAL_S
        if was == "ok":
            log.warning("the store does not work, going on without it: %s", failure)

    def succeeded(self) -> None:
        with self._lock:
            was, self.state = self.state, "ok"
            self.failure = ""
        if was != "ok":
            log.info("the store works again")

    def hangs(self, hangs: bool) -> None:
        """A call has not returned for too long; or all such calls have returned."""
        with self._lock:
            if hangs:
                self.state, self.failure, self._retry_at = "failing", DISK_HANGS, math.inf
            else:
                self._retry_at = self._clock()

    def undecided(self) -> None:
        """The write that was let through neither failed nor succeeded by the disk's doing: the next may try at once."""
        with self._lock:
            if self.state == "probing":
                self.state = "failing"

    def __repr__(self) -> str:
        return f"Health({self.state}{f': {self.failure}' if self.failure else ''})"
