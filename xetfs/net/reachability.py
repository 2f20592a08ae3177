"""Whether a server can be reached: found out once, for everybody who asks.

A circuit breaker with a probe. Without it each request of a machine that has lost its network would go through all its attempts
and pauses. The states:

* *up*: requests are sent.
* *suspect*: a connection could not be made. A probe tries to connect again and again, and requests wait for its result, so that
  a single refused connection costs them a moment and no error.
* *down*: at least SUSPECT_PROBES_MIN probes have failed, for as long as the settings allow. Requests fail with Offline at once.
  The probe goes on, less and less often while nobody asks, until it succeeds. Only the probe tries to connect, so no reader has
  to wait for a connection that is not answered.

Only a connection that cannot be made counts: refused, no route, no such name, no answer. Whatever else a server does, be it
silence, garbage or a wrong certificate, shows that it is there.

The probe runs in a task of the client, as it belongs to no request. It ends when the server is up, or with `close`. Between two
awaits nothing else runs, so each check of `_state` and what follows from it happen together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal

import httpx
import trio

from xetfs.detached import run_detached
from xetfs.errors import Offline
from xetfs.telemetry import NET_OUTAGES, Counters

log = logging.getLogger(__name__)

SUSPECT_PAUSE_S: Final = 0.02
"""Between two probes of a suspect server, while requests wait."""
SUSPECT_PROBES_MIN: Final = 2
"""Probes that must fail before a server is down, however long they take: a refusal takes a round trip."""
PROBE_PAUSE_S: Final = 1.0
"""Between two probes of a server that is down, and so the longest that its return goes unnoticed."""
IDLE_PAUSE_MAX_S: Final = 30.0
"""The same, at most, when nobody has asked for the server since: the pause doubles from probe to probe."""
PROBE_TIMEOUT_S: Final = 2.0
"""Longest wait for one probe: the first packet, and the one that is sent again after a second."""
FRESH_S: Final = 0.05
"""How long a request waits for a new probe when the last one was long ago: enough for a refusal, or a nearby server."""


class Reachability:
    """State of one server, or of the proxy in front of it. Event loop only."""

    def __init__(
        self,
        server: str,
        connect: Callable[[float], Awaitable[None]],
        *,
        suspect_s: float,
        counters: Counters,
        nursery: trio.Nursery,
    ) -> None:
        """server: its name, for messages. connect: makes a connection within so many seconds, and closes it; raises
        httpx.ConnectError or httpx.ConnectTimeout. suspect_s: longest that a server stays suspect. nursery: for the probe."""
        self._server = server
        self._connect = connect
        self._suspect_s = suspect_s
        self._counters = counters
        self._nursery = nursery
        self._state: Literal["up", "suspect", "down"] = "up"
        self._heard_at = -math.inf
        self._reason = ""
        self._decided = trio.Event()  # set when the server is no longer suspect
        self._scope = trio.CancelScope()  # of the probing task
        self._probed = trio.Event()  # set by the next probe to end
        self._probed_at = -math.inf  # when the last probe failed
        self._wanted = trio.Event()  # set by whoever asks, since the last probe

    async def check(self, what: str) -> None:
        """Return when a request may be sent: at once, unless the server is suspect. Raises Offline if it is down."""
        while self._state == "suspect":
            await self._decided.wait()
        if self._state == "down":
            self._wanted.set()
            if trio.current_time() > self._probed_at + PROBE_PAUSE_S:
                with trio.move_on_after(FRESH_S):
                    await self._probed.wait()
        if self._state == "down":
            raise Offline(f"{what}: {self._server} cannot be reached: {self._reason}", hint="check network, proxy and endpoint")

    def note_failure(self, began: float, reason: str, *, silent: bool) -> None:
        """Record that a connection begun at `began` could not be made. Ignored if the server has answered since.

        silent: nothing answered within the connect timeout, which needs no more proof, unless it was this process that slept.
        """
        if self._state == "up" and began >= self._heard_at:
            self._state = "suspect"
            self._reason = reason
            self._decided = trio.Event()
            self._scope = trio.CancelScope()
            self._probed_at = trio.current_time()
            run_detached(self._nursery, partial(self._watch, self._scope, silent), f"probing {self._server}")

    def note_answer(self) -> None:
        """The server has answered a request."""
        self._heard_at = trio.current_time()
        if self._state != "up":
            self._scope.cancel()
            self._settle("up")

    def close(self) -> None:
        """Stop probing, and release whoever waits."""
        self._scope.cancel()
        self._state = "up"
        self._decided.set()

    def _settle(self, state: Literal["up", "down"]) -> None:
        if state == "down":
            self._counters.add(NET_OUTAGES)
            log.info("unreachable, uncached reads fail until that changes server=%s: %s", self._server, self._reason)
        elif self._state == "down":
            log.info("reachable again server=%s", self._server)
        self._state = state
        self._decided.set()

    async def _watch(self, scope: trio.CancelScope, silent: bool) -> None:
        """Probe until the server is up, or this is cancelled."""
        try:
            with scope:
                if not await (self._probe_once() if silent else self._probe_suspect()):
                    self._settle("down")
                    await self._probe_down()
                self._settle("up")
        finally:
            if scope is self._scope and self._state != "up":  # without a probe, nobody may wait for its result
                self._state = "up"
                self._decided.set()

    async def _probe_once(self) -> bool:
        with trio.move_on_after(FRESH_S):
            return await self._probe()
        return False

    async def _probe_suspect(self) -> bool:
        """True if a probe succeeds within `suspect_s`, or among the first SUSPECT_PROBES_MIN."""
        until = trio.current_time() + self._suspect_s
        failed = 0
        while failed < SUSPECT_PROBES_MIN or trio.current_time() < until:
            if await self._probe():
                return True
            failed += 1
            await trio.sleep_until(min(trio.current_time() + SUSPECT_PAUSE_S, until))
        return False

    async def _probe_down(self) -> None:
        pause_s = PROBE_PAUSE_S
        while True:
            self._wanted = trio.Event()
            await trio.sleep(PROBE_PAUSE_S)
            with trio.move_on_after(pause_s - PROBE_PAUSE_S):
                await self._wanted.wait()
            if await self._probe():
                return
            pause_s = PROBE_PAUSE_S if self._wanted.is_set() else min(2 * pause_s, IDLE_PAUSE_MAX_S)

    async def _probe(self) -> bool:
        """True if the server can be connected to now."""
        try:
            await self._connect(PROBE_TIMEOUT_S)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            self._reason = str(exc)
            return False
        except Exception as exc:
            # Such as an address that is not allowed: the next request meets it too, and reports it.
            log.debug("a probe ended otherwise server=%s: %r", self._server, exc)
        finally:
            ended, self._probed = self._probed, trio.Event()
            self._probed_at = trio.current_time()
            ended.set()
        return True

    def __repr__(self) -> str:
        return f"Reachability({self._server}, {self._state})"
