"""ServerFacts: what an engine has learnt about the servers that it talks to, per origin, until it expires.

A fact saves a request that is known to fail, or permits one that is known to work. None is for ever: a server is upgraded, a
CDN's rule is changed, and a mount lives for months. So every fact ends FACT_LIFETIME_S after it was last confirmed, and the
request that would refute it is then made once more.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

import trio

from xetfs.net.origins import Origin

FACT_LIFETIME_S: Final = 600.0
"""How long a fact holds after it was last confirmed: one wasted request every ten minutes costs nothing, and a server that was
mended is used fully soon after."""
FACTS_MAX: Final = 1000
"""Facts that are kept; the one that was confirmed longest ago is dropped first. A mount meets some ten origins."""


class Fact(Enum):
    """What may be known about an origin."""

    V1_ONLY = "refuses version 2 of reconstructions and answers version 1"
    HAS_FILES = "answered a reconstruction, so a 404 of it speaks of one file"
    SEVERAL_RANGES = "answered a request for several ranges as it should"
    TRIES_SEVERAL = "is being asked for several ranges for the first time, by one request"
    SINGLE_RANGES = "refused or ignored several ranges in one request, and served one"
    REFUSES_URLS = "refused a transfer URL, and then the fresh one that replaced it"


class ServerFacts:
    """One per engine, shared by all its CasClients. Event loop only; times are on trio's clock."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[Origin, Fact], float] = OrderedDict()

    def note(self, origin: Origin, fact: Fact, *, lifetime_s: float = FACT_LIFETIME_S) -> bool:
        """Remember or confirm a fact. True if that is news, worth a line in the log: an expired fact that is confirmed is not."""
        key = (origin, fact)
        news = key not in self._until
        self._until[key] = trio.current_time() + lifetime_s
        self._until.move_to_end(key)
        if len(self._until) > FACTS_MAX:
            self._until.popitem(last=False)
        return news

    def holds(self, origin: Origin | None, fact: Fact) -> bool:
        """True while the fact is known and has not expired. Nothing is known of None."""
        return origin is not None and trio.current_time() < self._until.get((origin, fact), float("-inf"))

    def forget(self, origin: Origin, fact: Fact) -> None:
        """The fact was refuted."""
        self._until.pop((origin, fact), None)

    def __repr__(self) -> str:
        return f"ServerFacts({', '.join(f'{origin}: {fact.name}' for origin, fact in self._until)})"
