"""Where the resolve route has sent us for a file: the signed URL of its storage, used until it ends.

A file is read in many ranges, and each question to the resolve route costs a round trip and counts against a quota (3,000 in five
minutes without a token). The URL that it redirects to is good for about an hour and for all ranges. Whoever asks first for a file
keeps it for all others, who wait for that. It stands in memory only, and in no log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

from xetfs.net.dates import server_time_s
from xetfs.protocol.expiry import signed_url_end
from xetfs.secret import Secret

LOCATIONS_MAX: Final = 1024
"""Files whose place is kept: a kilobyte each."""
MARGIN_S: Final = 60.0
"""A URL is not used so shortly before its end, or in the last quarter of its life: a slow body may take as long."""
LIFETIME_S: Final = 300.0
"""How long a URL is used that does not say when it ends, and how long a Hub that sends bytes itself is taken to do so."""


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """url: of the storage, or None if the resolve route sends the bytes itself."""

    url: Secret | None
    until_s: float


class Locations:
    """By the URL at the resolve route. Event loop only."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Location] = OrderedDict()
        self._asked: dict[str, trio.Event] = {}

    async def claim(self, url: str) -> Location | None:
        """Where a file is. None: the caller is the one to find out, and calls `release` in any case.

        Waits while another caller does.
        """
        while True:
            location = self._kept.get(url)
            if location is not None and location.until_s > trio.current_time():
                self._kept.move_to_end(url)
                return location
            asked = self._asked.get(url)
            if asked is None:
                self._asked[url] = trio.Event()
                return None
            await asked.wait()

    def keep(self, url: str, found: str | None, headers: Mapping[str, str]) -> None:
        """The bytes of `url` come from `found`, or from itself (None), as the answer with these headers has shown."""
        lifetime_s = LIFETIME_S
        end_s = signed_url_end(found) if found is not None else None
        if end_s is not None:
            left_s = end_s - server_time_s(headers)
            lifetime_s = left_s - min(MARGIN_S, left_s / 4)
        self._kept[url] = Location(None if found is None else Secret(found), trio.current_time() + lifetime_s)
        if len(self._kept) > LOCATIONS_MAX:
            self._kept.popitem(last=False)

    def forget(self, url: str, location: Location) -> None:
        """The storage has refused it, or cannot serve it."""
        if self._kept.get(url) is location:
            del self._kept[url]

    def release(self, url: str) -> None:
        """Let the others go on: with what was kept, or one of them asks next."""
        asked = self._asked.pop(url, None)
        if asked is not None:
            asked.set()

    def __repr__(self) -> str:
        return f"Locations({len(self._kept)})"
