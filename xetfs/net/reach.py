"""Whether a server can be reached at all: found out once, and told at once to everybody who asks while it cannot.

Without this each request of a machine that has lost its network would find out for itself, with all its attempts and pauses. One
connection that cannot be made raises a *doubt*. While it lasts, a probe tries again and again to connect, and requests wait for
what it finds: one connection that was refused costs them a moment and no error. If some probes have failed and nothing has come
of it for the patience that the settings give, the server is *out of reach*: requests fail with Offline, at once, and the probe
goes on, less often, until it succeeds. Nobody but the probe tries to connect meanwhile, one at a time, so that no reader is the
one who waits for a connection that is not answered.

What counts is that no connection can be made: refused, no route, no name, no answer. What a server does with a connection, be it
silence, nonsense or a certificate that is not its own, says that somebody is there.

The probe runs in a task of the client, as it belongs to no request; it ends with the doubt, or with `close`. Between two awaits
nothing else runs, so each check of `_state` and what follows from it happen together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal

import httpx
import trio

from xetfs.errors import Offline
from xetfs.net.detached import run_detached
from xetfs.telemetry import NET_OUTAGES, Counters

log = logging.getLogger(__name__)

DOUBT_PAUSE_S: Final = 0.02
"""Between two probes while requests wait for what they find."""
DOUBT_PROBES_MIN: Final = 2
"""Probes that must fail before a server is out of reach, however long they take: on a long line a refusal takes a round trip."""
PROBE_PAUSE_S: Final = 1.0
"""Between two probes of a server that is out of reach: what its return may go unnoticed."""
IDLE_PAUSE_MAX_S: Final = 30.0
"""The same, at most, when nobody has asked for the server since: the pause doubles from probe to probe."""
PROBE_TIMEOUT_S: Final = 2.0
"""Longest wait for one probe: the first packet, and the one that is sent again after a second."""
FRESH_S: Final = 0.05
"""How long a request waits for a new probe when the last one was long ago: enough to be refused, or for a server nearby."""


class Reach:
    """What is known of one server, or of the proxy on the way to it. Event loop only."""

    def __init__(
        self,
        server: str,
        connect: Callable[[float], Awaitable[None]],
        *,
        patience_s: float,
        counters: Counters,
        nursery: trio.Nursery,
    ) -> None:
        """server: its name, for messages. connect: makes a connection within so many seconds, and closes it; raises
        httpx.ConnectError or httpx.ConnectTimeout. nursery: for the task that probes."""
        self._server = server
        self._connect = connect
        self._patience_s = patience_s
        self._counters = counters
        self._nursery = nursery
        self._state: Literal["reached", "doubted", "lost"] = "reached"
        self._heard_at = -math.inf
        self._reason = ""
        self._decided = trio.Event()  # about the last doubt
        self._scope = trio.CancelScope()  # of the task that probes
        self._probed = trio.Event()  # by the next probe to end
        self._probed_at = -math.inf  # when it was last found not to be reached
        self._wanted = trio.Event()  # by somebody, since the last probe

    async def check(self, what: str) -> None:
        """Return when a request may be sent: at once, unless the server is in doubt. Raises Offline if it is out of reach."""
        while self._state == "doubted":
            await self._decided.wait()
        if self._state == "lost":
            self._wanted.set()
            if trio.current_time() > self._probed_at + PROBE_PAUSE_S:
                with trio.move_on_after(FRESH_S):
                    await self._probed.wait()
        if self._state == "lost":
            raise Offline(f"{what}: {self._server} cannot be reached: {self._reason}", hint="check network, proxy and endpoint")

    def note_failure(self, began: float, reason: str, *, silent: bool) -> None:
        """A connection, `began` then, could not be made. It says nothing if the server was heard from in the meantime. silent:
        there was no answer in all the time that it was given, which says enough, unless it was this process that slept."""
        if self._state == "reached" and began >= self._heard_at:
            self._state = "doubted"
            self._reason = reason
            self._decided = trio.Event()
            self._scope = trio.CancelScope()
            self._probed_at = trio.current_time()
            run_detached(self._nursery, partial(self._watch, self._scope, silent), f"probing {self._server}")

    def note_answer(self) -> None:
        """The server has answered a request."""
        self._heard_at = trio.current_time()
        if self._state != "reached":
            self._scope.cancel()
            self._settle("reached")

    def close(self) -> None:
        """Stop probing, and let go whoever waits."""
        self._scope.cancel()
        self._state = "reached"
        self._decided.set()

    def _settle(self, state: Literal["reached", "lost"]) -> None:
        if state == "lost":
            self._counters.add(NET_OUTAGES)
            log.info("out of reach, what is not held fails until that changes server=%s: %s", self._server, self._reason)
        elif self._state == "lost":
            log.info("within reach again server=%s", self._server)
        self._state = state
        self._decided.set()

    async def _watch(self, scope: trio.CancelScope, silent: bool) -> None:
        """Probe until the server is reached, or this is cancelled."""
        try:
            with scope:
                if not await (self._probe_for_a_moment() if silent else self._probe_often()):
                    self._settle("lost")
                    await self._probe_now_and_then()
                self._settle("reached")
        finally:
            if scope is self._scope and self._state != "reached":  # nobody probes any more, so nobody may wait for it
                self._state = "reached"
                self._decided.set()

    async def _probe_for_a_moment(self) -> bool:
        with trio.move_on_after(FRESH_S):
            return await self._probe()
        return False

    async def _probe_often(self) -> bool:
        """Whether the server is reached within the patience, or by the probes that must be made."""
        until = trio.current_time() + self._patience_s
        failed = 0
        while failed < DOUBT_PROBES_MIN or trio.current_time() < until:
            if await self._probe():
                return True
            failed += 1
            await trio.sleep_until(min(trio.current_time() + DOUBT_PAUSE_S, until))
        return False

    async def _probe_now_and_then(self) -> None:
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
        """Whether the server can be connected to now."""
        try:
            await self._connect(PROBE_TIMEOUT_S)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            self._reason = str(exc)
            return False
        except Exception as exc:
            # Such as an address that is not allowed. Whoever asks next meets it too, and is told of it.
            log.debug("a probe ended otherwise server=%s: %r", self._server, exc)
        finally:
            ended, self._probed = self._probed, trio.Event()
            self._probed_at = trio.current_time()
            ended.set()
        return True

    def __repr__(self) -> str:
        return f"Reach({self._server}, {self._state})"
