"""When a server is taken to be out of reach, what that costs those who ask, and how its return is noticed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
import trio
import trio.testing
from loopback import Names, answer, client_of, serving

from xetfs.errors import Offline, ProtocolViolation
from xetfs.net import reachability, retry
from xetfs.net.connector import Unreachable, Unresponsive
from xetfs.net.reachability import (
    FRESH_S,
    IDLE_PAUSE_MAX_S,
    PROBE_PAUSE_S,
    PROBE_TIMEOUT_S,
    SUSPECT_PAUSE_S,
    SUSPECT_PROBES_MIN,
    Reachability,
)
from xetfs.secret import Secret
from xetfs.telemetry import NET_OUTAGES, NET_REQUESTS, NET_RETRIES, Counters

PATIENCE_S = 1.0


class Server:
    """What a probe finds. silent: packets vanish; there: it can be connected to; strange: what else comes of connecting.
    trip_s: until a refusal is here."""

    def __init__(self, nursery: trio.Nursery, patience_s: float = PATIENCE_S) -> None:
        self.there = False
        self.trip_s = 0.0
        self.silent = False
        self.strange: Exception | None = None
        self.probes: list[float] = []
        self.at_once = 0
        self.at_once_most = 0
        self.counters = Counters()
        self.reach = Reachability("http://hub", self._connect, suspect_s=patience_s, counters=self.counters, nursery=nursery)

    async def _connect(self, timeout_s: float) -> None:
        self.probes.append(trio.current_time())
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        try:
            if self.silent:
                await trio.sleep(timeout_s)
                raise Unresponsive("no answer")
            await trio.sleep(self.trip_s)
            if self.strange is not None:
                raise self.strange
            if not self.there:
                raise Unreachable("Connection refused")
        finally:
            self.at_once -= 1

    def fail(self) -> None:
        self.reach.note_failure(trio.current_time(), "Connection refused", silent=False)

    async def lose(self) -> None:
        self.fail()
        with pytest.raises(Offline):
            await self.reach.check("x")

    async def waited(self) -> float:
        """Seconds until a request may be sent."""
        begun = trio.current_time()
        await self.reach.check("x")
        return trio.current_time() - begun


@pytest.fixture
def server(nursery: trio.Nursery) -> Server:
    return Server(nursery)


async def test_a_server_that_comes_back_in_time_costs_a_moment_and_no_error(
    autojump_clock: trio.testing.MockClock, server: Server
) -> None:
    server.fail()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(server.reach.check, "x")
        await trio.sleep(PATIENCE_S / 2)
        server.there = True
        since = trio.current_time()
    assert trio.current_time() - since <= SUSPECT_PAUSE_S
    assert server.counters[NET_OUTAGES] == 0
    assert len(server.probes) <= PATIENCE_S / 2 / SUSPECT_PAUSE_S + 2
    assert server.at_once_most == 1


async def test_after_the_patience_all_fail_and_then_at_once(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    server.fail()
    begun = trio.current_time()
    with pytest.raises(Offline, match=r"^x: http://hub cannot be reached: Connection refused"):
        await server.reach.check("x")
    assert trio.current_time() - begun == PATIENCE_S
    for _ in range(50):
        asked = trio.current_time()
        with pytest.raises(Offline):
            await server.reach.check("x")
        assert trio.current_time() == asked
        await trio.sleep(PROBE_PAUSE_S / 10)
    assert server.counters[NET_OUTAGES] == 1


async def test_one_refusal_on_a_long_line_is_not_enough(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """However short the patience."""
    server = Server(nursery, patience_s=0.06)
    server.trip_s = 0.15
    for tries in range(1, SUSPECT_PROBES_MIN + 1):
        server.there = False
        before = len(server.probes)
        async with trio.open_nursery() as asking:
            server.fail()
            asking.start_soon(server.reach.check, "x")
            while len(server.probes) < before + tries:
                await trio.sleep(0.01)
            server.there = True
    assert server.counters[NET_OUTAGES] == 0
    server.there = False
    before = len(server.probes)
    begun = trio.current_time()
    await server.lose()
    assert len(server.probes) - before == SUSPECT_PROBES_MIN
    assert trio.current_time() - begun == pytest.approx(SUSPECT_PROBES_MIN * server.trip_s)


async def test_its_return_is_noticed_by_one_probe_a_second(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    await server.lose()
    before = len(server.probes)
    for _ in range(60):
        await trio.sleep(PROBE_PAUSE_S / 2)
        with pytest.raises(Offline):
            await server.reach.check("x")
    assert 28 <= len(server.probes) - before <= 31
    server.there = True
    await trio.sleep(PROBE_PAUSE_S)
    assert await server.waited() == 0
    after = len(server.probes)
    await trio.sleep(100)
    assert len(server.probes) == after, "it is probed although it is there"


async def test_a_server_that_nobody_asks_for_is_probed_ever_less(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    await server.lose()
    before = len(server.probes)
    await trio.sleep(3600)
    assert 3600 / IDLE_PAUSE_MAX_S - 2 <= len(server.probes) - before <= 3600 / IDLE_PAUSE_MAX_S + 8
    server.there = True
    assert await server.waited() <= FRESH_S, "whoever asks after a long time has a probe made"


async def test_no_reader_waits_for_a_connection_that_is_not_answered(
    autojump_clock: trio.testing.MockClock, server: Server
) -> None:
    server.silent = True
    await server.lose()
    for wait_s in (0.5, PROBE_PAUSE_S, PROBE_TIMEOUT_S, 1000):
        await trio.sleep(wait_s)
        asked = trio.current_time()
        with pytest.raises(Offline, match=r"Connection refused|no answer"):
            await server.reach.check("x")
        assert trio.current_time() - asked <= FRESH_S
    assert server.at_once_most == 1


async def test_a_connection_that_took_all_its_time_leaves_no_doubt(
    autojump_clock: trio.testing.MockClock, server: Server
) -> None:
    began = trio.current_time()
    await trio.sleep(5)
    server.reach.note_failure(began, "no answer", silent=True)
    asked = trio.current_time()
    server.silent = True
    with pytest.raises(Offline):
        await server.reach.check("x")
    assert trio.current_time() == asked + FRESH_S


async def test_a_process_that_slept_takes_no_server_for_silent(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    """All the time of a connection has passed when it wakes up, and the answer may have been there all along."""
    server.reach.note_failure(trio.current_time(), "no answer", silent=True)
    server.there = True
    assert await server.waited() == 0
    assert server.counters[NET_OUTAGES] == 0


async def test_a_failure_older_than_an_answer_says_nothing(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    began = trio.current_time()
    await trio.sleep(5)
    server.reach.note_answer()
    server.reach.note_failure(began, "no answer", silent=True)
    assert await server.waited() == 0
    assert server.probes == []


async def test_an_answer_on_a_connection_of_before_ends_the_doubt(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    await server.lose()
    server.reach.note_answer()
    assert await server.waited() == 0
    server.fail()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.reach.check, "x")
        await trio.sleep(SUSPECT_PAUSE_S)
        server.reach.note_answer()
    count = len(server.probes)
    await trio.sleep(100)
    assert len(server.probes) == count


@pytest.mark.parametrize("strange", [ProtocolViolation("refused to connect to hub"), httpx.ProxyError("no"), ValueError()])
async def test_what_is_strange_is_for_those_who_ask(
    autojump_clock: trio.testing.MockClock, server: Server, strange: Exception
) -> None:
    server.strange = strange
    server.fail()
    assert await server.waited() == 0


async def test_closing_lets_go_whoever_waits(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    server.fail()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.reach.check, "x")
        await trio.testing.wait_all_tasks_blocked()
        since = trio.current_time()
        server.reach.close()
    assert trio.current_time() == since
    count = len(server.probes)
    await trio.sleep(100)
    assert len(server.probes) == count


# Over sockets


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """Bound and not listening: refuses, and nobody else can take the port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def url_of(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


async def serve_on(sock: socket.socket) -> None:
    """Answer every connection to a socket that did not listen until now."""
    sock.setblocking(False)
    sock.listen()

    async def reply(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65536):
            await stream.send_all(answer(200, b"ok"))

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
    await trio.serve_listeners(reply, [listener])


async def test_of_many_requests_few_are_sent_to_a_server_that_is_gone(held: socket.socket) -> None:
    url = url_of(held)
    async with client_of(url, outage_patience_s=0.1) as client:
        with pytest.raises(Offline, match="Connection refused"):
            await client.request(f"{url}/x", "x")
        assert (client.counters[NET_REQUESTS], client.counters[NET_RETRIES], client.counters[NET_OUTAGES]) == (1, 1, 1)
        for _ in range(100):
            with pytest.raises(Offline):
                await client.request(f"{url}/x", "x")
        assert (client.counters[NET_REQUESTS], client.counters[NET_RETRIES]) == (1, 1)


async def test_no_pause_of_a_retry_comes_before_the_doubt(held: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a server that refuses is the doubt, and it ends soon."""
    monkeypatch.setattr(retry.random, "uniform", lambda _least, most: 1000 * most)
    url = url_of(held)
    async with client_of(url, outage_patience_s=0.06) as client:
        with trio.fail_after(5), pytest.raises(Offline, match="Connection refused"):
            await client.request(f"{url}/x", "x")


async def test_a_server_that_is_started_anew_is_waited_for(held: socket.socket) -> None:
    url = url_of(held)
    async with client_of(url, outage_patience_s=60) as client, trio.open_nursery() as nursery:
        done = trio.Event()

        async def ask() -> None:
            assert (await client.request(f"{url}/x", "x")).body == b"ok"
            done.set()

        nursery.start_soon(ask)
        while not client.counters[NET_RETRIES]:
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(serve_on, held)
        with trio.fail_after(5):
            await done.wait()
        assert (client.counters[NET_RETRIES], client.counters[NET_OUTAGES]) == (1, 0)
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_back_is_used_again(held: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "PROBE_PAUSE_S", 0.02)
    url = url_of(held)
    async with client_of(url, outage_patience_s=0.0) as client, trio.open_nursery() as nursery:
        with pytest.raises(Offline):
            await client.request(f"{url}/x", "x")
        nursery.start_soon(serve_on, held)
        with trio.fail_after(5):
            while True:
                try:
                    assert (await client.request(f"{url}/x", "x")).body == b"ok"
                    break
                except Offline:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def test_one_server_out_of_reach_says_nothing_of_another(held: socket.socket) -> None:
    async def handler(*_: object) -> bytes:
        return answer(200, b"ok")

    async with serving(handler) as other, client_of(url_of(held), outage_patience_s=0.0) as client:
        with pytest.raises(Offline):
            await client.request(f"{url_of(held)}/x", "x")
        assert (await client.request(f"{other.url}/x", "x")).body == b"ok"


async def test_behind_a_proxy_it_is_the_proxy_that_is_out_of_reach(held: socket.socket, names: Names) -> None:
    names.known["127.0.0.1"] = ["127.0.0.1"]
    proxy = Secret(url_of(held).replace("http://", "http://user:secret@"))
    async with client_of("http://hub.example", http_proxy=proxy, outage_patience_s=0.0) as client:
        for path in ("a", "b"):
            with pytest.raises(Offline, match=rf"the proxy 127\.0\.0\.1:{held.getsockname()[1]} cannot be reached") as caught:
                await client.request(f"http://hub.example/{path}", "x")
            assert "secret" not in str(caught.value)
        assert client.counters[NET_REQUESTS] == 1


async def test_without_a_name_it_is_out_of_reach_too(names: Names) -> None:
    async with client_of("http://hub.example", outage_patience_s=0.0) as client:
        with pytest.raises(Offline, match="Name or service not known"):
            await client.request("http://hub.example/x", "x")
