"""The CAS token of one repo and commit, asked for once for everybody who waits.

A token is judged by its age on the monotonic clock: the server says until when it is good and what time it is there, and the
difference does not depend on this machine's clock, which may be hours off. A guess that is too long costs one request that is
refused (401), after which the token is replaced.

The refresh runs in a task of its own, which lives as long as somebody waits for it: a waiter that is cancelled leaves without
disturbing the others, and the last one to leave cancels it. Between two awaits nothing else runs, so each check of `_refresh` and
what follows from it happen together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from typing import Final

import trio

from xetfs.detached import run_detached
from xetfs.errors import AuthRequired, Unavailable
from xetfs.protocol.tree import XetToken

EXPIRY_MARGIN_S: Final = 30.0
"""A token this close to its end is not used any more. Source: xet-core, cas_client auth (the same margin)."""
LIFE_UNKNOWN_S: Final = 600.0
"""Lifetime of a token whose answer does not tell the server's time. The Hub's are good for about an hour."""
USE_MIN_S: Final = 10.0
"""Shortest use of a token, even of one that comes nearly or already expired: what the CAS makes of it counts, and a Hub with
a wrong clock must not be asked before every request."""


def usable_s(token: XetToken) -> float:
    """How long a token that has just come is used, in seconds."""
    life_s = LIFE_UNKNOWN_S if token.issued_s is None else token.expires_s - token.issued_s
    return max(life_s - EXPIRY_MARGIN_S, life_s / 2, USE_MIN_S)


class _Refresh:
    """One request for a token, and those who wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.waiters = 0
        self.token: XetToken | None = None
        self.error: Exception | None = None
        self.scope = trio.CancelScope()

    def error_for_waiter(self) -> Exception:
        """An exception of its own for each waiter: a shared one would collect the traceback of all."""
        error = copy(self.error) if self.error is not None else None
        return error or Unavailable("the request for a CAS token was given up")


class TokenSource:
    """Gives a valid token. Event loop only."""

    def __init__(self, fetch: Callable[[], Awaitable[XetToken]], *, nursery: trio.Nursery) -> None:
        """fetch: asks the Hub, every time it is called. nursery: for the refresh, which belongs to no single request."""
        self._fetch = fetch
        self._nursery = nursery
        self._token: XetToken | None = None
        self._good_until = 0.0
        self._refresh: _Refresh | None = None

    def __repr__(self) -> str:
        return f"TokenSource(held={self._token is not None})"

    async def get(self) -> XetToken:
        """The token at hand, or a new one when it is about to expire. Raises what fetching it raises."""
        token = self._token
        if token is not None and trio.current_time() < self._good_until:
            return token
        return await self._join_refresh()

    async def replace(self, refused: XetToken) -> XetToken:
        """Another token than `refused`, which the CAS answered 401 to. Raises AuthRequired if the Hub gives the same again."""
        token = self._token
        if token is not None and token.access_token != refused.access_token:
            return token  # somebody else was refused before us
        token = await self._join_refresh()
        if token.access_token == refused.access_token:
            raise AuthRequired("the CAS refuses the token that the Hub gives", hint="try again later")
        return token

    def forget(self, token: XetToken) -> None:
        """Ask the Hub anew next time, as it may name another CAS by then."""
        if self._token is token:
            self._token = None

    async def _join_refresh(self) -> XetToken:
        """Wait for the refresh under way, or for one begun now. A waiter that is cancelled leaves it to the others."""
        refresh = self._refresh
        if refresh is None:
            refresh = self._refresh = _Refresh()
            run_detached(self._nursery, partial(self._run, refresh), "asking for a CAS token")
        refresh.waiters += 1
        try:
            await refresh.done.wait()
        finally:
            refresh.waiters -= 1
            if not refresh.waiters and not refresh.done.is_set():
                self._refresh = None  # nobody joins what is being cancelled
                refresh.scope.cancel()
        if refresh.token is None:
            raise refresh.error_for_waiter()
        return refresh.token

    async def _run(self, refresh: _Refresh) -> None:
        """The refresh itself. Runs outside every deadline of its waiters; fetching bounds its own attempts."""
        began = trio.current_time()  # a token ages while its answer is on the way
        try:
            with refresh.scope:
                refresh.token = await self._fetch()
        except Exception as error:  # handed to the waiters
            refresh.error = error
        finally:
            if self._refresh is refresh:
                self._refresh = None
                if refresh.token is not None:
                    self._token = refresh.token
                    self._good_until = began + usable_s(refresh.token)
            refresh.done.set()
