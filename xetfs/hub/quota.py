"""What is left of the Hub's quotas, as its answers tell: so that work nobody waits for leaves some to those who wait.

An answer may carry `RateLimit: "api";r=412;t=87` (412 requests left, anew in 87 s) and `RateLimit-Policy: "fixed
window";"api";q=500;w=300`. Background work stops while less than a share is left, long before the Hub refuses; what a program
waits for goes on.
Source: huggingface_hub, utils/_http.py (parse_ratelimit_headers); hub documentation, "Rate limits".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

log = logging.getLogger(__name__)

RESERVED_SHARE: Final = 0.2
"""Share of a quota that background work leaves to others: to this user's other programs, too."""
LIMIT_GUESSED: Final = 500
"""Requests of a quota whose size is not told: the smallest that the Hub documents."""
WINDOW_MAX_S: Final = 3600.0
"""No answer is believed to mean a longer wait: those of the Hub are five minutes."""

_LIMIT = re.compile(r'"(api|resolvers|pages)"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})', re.ASCII)
_POLICY = re.compile(r'"(api|resolvers|pages)"\s*;\s*q=(\d{1,9})', re.ASCII)


@dataclass(frozen=True, slots=True)
class _Left:
    requests: int
    limit: int
    until_s: float


class Quotas:
    """Of one Hub. Times are trio's. Event loop only."""

    def __init__(self) -> None:
        self._left: dict[str, _Left] = {}

    def note(self, headers: Mapping[str, str]) -> None:
        """Learn from the headers of an answer; what is not understood says nothing."""
        limits = {name: int(limit) for name, limit in _POLICY.findall(headers.get("ratelimit-policy", "")[:1000])}
        for name, requests, reset_s in _LIMIT.findall(headers.get("ratelimit", "")[:1000]):
            until_s = trio.current_time() + min(float(reset_s), WINDOW_MAX_S)
            self._left[name] = _Left(int(requests), limits.get(name, LIMIT_GUESSED), until_s)

    def pause_s(self) -> float:
        """How long background work should wait before its next request; 0 for not at all."""
        now = trio.current_time()
        low = [left.until_s - now for left in self._left.values() if left.requests <= RESERVED_SHARE * left.limit]
        return max([0.0, *low])

    async def leave_room(self) -> None:
        """Wait until background work may ask."""
        while pause_s := self.pause_s():
            log.info("background work waits for a new quota of the Hub pause_s=%.0f", pause_s)
            await trio.sleep(pause_s)

    def __repr__(self) -> str:
        return f"Quotas({self._left})"
