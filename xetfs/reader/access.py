"""With which right a content is read.

A content may lie in many repos, and be read with the rights of many: what one of them has fetched is held once for all. But a
reader is given nothing that another's right has fetched until a server has granted them the same: once in RIGHT_S seconds, as
long as the Hub's tokens for a CAS are good, they ask for the file themselves, in one small request. Nothing is asked while all
that was fetched was fetched with the same right. What lies in the store from earlier processes belongs to the user who runs this
one, and whoever can open a view may read it. Event loop only.
"""

from __future__ import annotations

import math
from typing import Final
from weakref import WeakValueDictionary

import trio

from xetfs.errors import NotFound, Offline, ProtocolViolation, RateLimited, Unavailable
from xetfs.reader.sources import Source

RIGHT_S: Final = 3600.0
"""How long a right that was granted is taken to last: the life of a CAS token, with which a server would serve that long."""
SILENCE_S: Final = 60.0
"""How long it is taken to last on while no server answers: what was said last counts, as for a repo that is opened then."""


class Access:
    """How one view gets at one content: its source, and until when its right to it is known."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.granted_until_s = -math.inf
        self.lock = trio.Lock()


class Accesses:
    """Those of one content, by the view that each belongs to. An access lives as long as somebody has the file open with it."""

    def __init__(self) -> None:
        self._by_view: WeakValueDictionary[object, Access] = WeakValueDictionary()
        self._fetched_by: Access | None = None
        self._fetched_by_several = False

    def of(self, view: object, source: Source) -> Access:
        """Return the access of a view (any object that stands for it); `source` becomes its source if it has none."""
        access = self._by_view.get(view)
        if access is None:
            access = self._by_view[view] = Access(source)
        return access

    def note_fetched(self, access: Access) -> None:
        """Note that a part of the content was fetched with this access."""
        if self._fetched_by is None:
            self._fetched_by = access
        elif self._fetched_by is not access:
            self._fetched_by_several = True

    def doubts(self, access: Access) -> bool:
        """True if others have fetched parts of the content, and the right of this access is not known."""
        others = self._fetched_by_several or self._fetched_by not in (None, access)
        return others and trio.current_time() >= access.granted_until_s

    async def check(self, access: Access) -> None:
        """Return when the right of an access is known. Raises what its servers answer if they refuse, or do not answer."""
        async with access.lock:
            if not self.doubts(access):
                return
            try:
                await access.source.check_right()
            except NotFound as exc:
                raise listed_but_missing(exc) from exc
            except (Offline, RateLimited, Unavailable):
                if access.granted_until_s == -math.inf:
                    raise
                access.granted_until_s = trio.current_time() + SILENCE_S
            else:
                access.granted_until_s = trio.current_time() + RIGHT_S


def listed_but_missing(error: NotFound) -> ProtocolViolation:
    """The error for a file that is listed, and may be open: whoever reads it must not be told that there is none."""
    return ProtocolViolation(f"a file is listed, and its content is not there: {error}")
