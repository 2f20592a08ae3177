"""Bytes of xorbs from transfer hosts, in one range or many, honest or not."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Asked, Handler, answer, client_of, ranged, serving

from xetfs.cas.client import CasClient
from xetfs.cas.facts import FACT_LIFETIME_S
from xetfs.cas.fetching import RANGES_MAX
from xetfs.errors import ProtocolViolation, Unavailable
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.protocol.tree import XetToken
from xetfs.telemetry import CAS_FETCH_BYTES, CAS_FETCHES, NET_REQUESTS, NET_RETRIES

DATA = random.Random(5).randbytes(200_000)
QUERY = "X-Xet-Signed-Range=bytes%3D0-1&Signature=SIGNEDsigned"
CONNECTIONS = 4
TOGETHER = {"multirange": True}
SPANS = [HttpRange(1000, 1999), HttpRange(5000, 5000), HttpRange(90_000, 170_000)]


async def no_token() -> XetToken:
    raise AssertionError("data is fetched without a token")


class Fetch:
    """What one use of CasClient.fetch did."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.counters: dict[str, int] = {}
        self.data: list[bytes] = []


async def fetch(
    handler: Handler, spans: list[HttpRange], times: int = 1, signed: list[HttpRange] | None = None, **choices: object
) -> Fetch:
    """signed: the ranges that the URL is for; by default those that are fetched."""
    done = Fetch()
    async with serving(handler) as server, client_of(server.url, **{"stall_timeout_s": 0.3, **choices}) as http:
        done.asked = server.asked
        cas = CasClient(http, no_token)
        for _ in range(times):
            buffers = [bytearray(len(span)) for span in spans]
            parts = [(span, partial(BufferWriter, memoryview(buffer))) for span, buffer in zip(spans, buffers, strict=True)]
            await cas.fetch(SignedUrl(f"{server.url}/xorb?{QUERY}", tuple(spans if signed is None else signed)), parts)
            done.data = [bytes(buffer) for buffer in buffers]
        done.counters = http.counters.snapshot()
    return done


def wanted(spans: list[HttpRange]) -> list[bytes]:
    return [DATA[span.first : span.last + 1] for span in spans]


def multipart(asked: Asked, *, order: int = 1, boundary: str = "B0") -> bytes:
    """The answer of a server that knows several ranges."""
    body = b""
    for text in asked.headers["range"].removeprefix("bytes=").split(",")[::order]:
        first, last = map(int, text.split("-"))
        head = (
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n\r\n"
        )
        body += head.encode() + DATA[first : last + 1] + b"\r\n"
    return answer(206, body + f"--{boundary}--\r\n".encode(), content_type=f'multipart/byteranges; boundary="{boundary}"')


async def serve_singles(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return ranged(DATA, asked)


async def serve_multipart(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return multipart(asked) if "," in asked.headers["range"] else ranged(DATA, asked)


async def test_one_range() -> None:
    done = await fetch(serve_singles, SPANS[:1])
    assert done.data == wanted(SPANS[:1])
    assert done.asked[0].target == f"/xorb?{QUERY}"
    assert done.asked[0].headers["range"] == "bytes=1000-1999"
    assert done.asked[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in done.asked[0].headers
    assert (done.counters[CAS_FETCHES], done.counters[CAS_FETCH_BYTES]) == (1, 1000)


@pytest.mark.parametrize("count", [3, 40])
async def test_several_ranges_are_requests_side_by_side(count: int) -> None:
    """By default, and no more at a time than there may be connections."""
    spans = [HttpRange(100 * number, 100 * number + 49) for number in range(count)]
    at_once = most = 0
    full = trio.Event()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == min(count, CONNECTIONS):
            full.set()
        await full.wait()  # for ever, if they come one after the other
        await trio.testing.wait_all_tasks_blocked()
        at_once -= 1
        return ranged(DATA, asked)

    with trio.fail_after(20):
        done = await fetch(handler, spans, connections_max=CONNECTIONS, stall_timeout_s=10)
    assert done.data == wanted(spans)
    assert sorted(asked.headers["range"] for asked in done.asked) == sorted(f"bytes={span}" for span in spans)
    assert most == min(count, CONNECTIONS)


async def test_several_ranges_are_one_request_by_choice() -> None:
    done = await fetch(serve_multipart, SPANS, **TOGETHER)
    assert done.data == wanted(SPANS)
    assert [asked.headers["range"] for asked in done.asked] == ["bytes=1000-1999,5000-5000,90000-170000"]


async def test_a_signed_set_is_sent_as_it_was_signed_or_range_by_range() -> None:
    """Servers compare the Range header with the one that was signed."""
    for signed in (SPANS, SPANS[::-1]):
        done = await fetch(serve_multipart, SPANS, signed=signed, **TOGETHER)
        assert done.data == wanted(SPANS)
        assert [asked.headers["range"] for asked in done.asked] == ["bytes=" + ",".join(map(str, signed))]
    for spans, signed in ((SPANS[:2], SPANS), (SPANS, SPANS[:2]), (SPANS, [])):
        done = await fetch(serve_multipart, spans, signed=signed, **TOGETHER)
        assert done.data == wanted(spans)
        assert all("," not in asked.headers["range"] for asked in done.asked)


async def test_a_server_is_tried_with_several_ranges_by_one_request_at_a_time() -> None:
    asked_together = trio.Event()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        if "," not in asked.headers["range"]:
            return ranged(DATA, asked)
        asked_together.set()
        await trio.testing.wait_all_tasks_blocked()
        return multipart(asked)

    async with serving(handler) as server, client_of(server.url, **TOGETHER) as http:
        cas = CasClient(http, no_token)

        async def fetch_all() -> None:
            parts = [(span, partial(BufferWriter, memoryview(bytearray(len(span))))) for span in SPANS]
            await cas.fetch(SignedUrl(f"{server.url}/xorb?{QUERY}", tuple(SPANS)), parts)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_all)
            await asked_together.wait()
            nursery.start_soon(fetch_all)
        assert len(server.asked) == 1 + len(SPANS)
        await fetch_all()
        assert len(server.asked) == 2 + len(SPANS), "now it is known"


async def test_parts_may_come_in_another_order() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return multipart(asked, order=-1)

    assert (await fetch(handler, SPANS, **TOGETHER)).data == wanted(SPANS)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(DATA)), min_size=4, max_size=24, unique=True))
async def test_any_ranges_come_byte_for_byte(cuts: list[int]) -> None:
    cuts.sort()
    spans = [HttpRange(first, end - 1) for first, end in zip(cuts[::2], cuts[1::2], strict=False)]
    for together in (True, False):
        assert (await fetch(serve_multipart, spans, multirange=together)).data == wanted(spans)


async def _ignore_range(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(200, DATA)


async def _join_ranges(asked: Asked, stream: trio.abc.Stream) -> bytes:
    if "," not in asked.headers["range"]:
        return ranged(DATA, asked)
    return answer(206, DATA[1000:170_001], content_range=f"bytes 1000-170000/{len(DATA)}")


async def _first_range_only(asked: Asked, stream: trio.abc.Stream) -> bytes:
    asked.headers["range"] = asked.headers["range"].partition(",")[0]
    return ranged(DATA, asked)


async def _refuse_several(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(416) if "," in asked.headers["range"] else ranged(DATA, asked)


async def _forbid_several(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(403, b"Invalid Range Specified") if "," in asked.headers["range"] else ranged(DATA, asked)


async def _garble_several(asked: Asked, stream: trio.abc.Stream) -> bytes:
    """As the CAS server of xet-client: everything that the URL was signed for, here more than was asked for."""
    if "," not in asked.headers["range"]:
        return ranged(DATA, asked)
    asked.headers["range"] += ",180000-180009"
    return multipart(asked)


@pytest.mark.parametrize(
    "handler", [_ignore_range, _join_ranges, _first_range_only, _refuse_several, _forbid_several, _garble_several]
)
async def test_a_server_without_multi_range_is_asked_range_by_range_from_then_on(handler: Handler) -> None:
    done = await fetch(handler, SPANS, times=2, **TOGETHER)
    assert done.data == wanted(SPANS)
    assert len(done.asked) == 1 + 2 * len(SPANS)


async def test_several_ranges_are_tried_again_once_the_verdict_expires(mock_clock: trio.testing.MockClock) -> None:
    async with serving(_forbid_several) as server, client_of(server.url, **TOGETHER) as http:
        cas = CasClient(http, no_token)
        for number in (1, 1, 2):
            parts = [(span, partial(BufferWriter, memoryview(bytearray(len(span))))) for span in SPANS]
            await cas.fetch(SignedUrl(f"{server.url}/xorb?{QUERY}", tuple(SPANS)), parts)
            assert sum("," in asked.headers["range"] for asked in server.asked) == number
            if number == 1 and len(server.asked) > 1 + len(SPANS):
                mock_clock.jump(FACT_LIFETIME_S + 1)


async def test_too_many_ranges_for_one_header_are_asked_one_by_one() -> None:
    spans = [HttpRange(10 * number, 10 * number + 4) for number in range(RANGES_MAX + 1)]
    done = await fetch(serve_multipart, spans, **TOGETHER)
    assert done.data == wanted(spans)
    assert len(done.asked) == len(spans)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410, 416, 418, 501])
async def test_statuses_of_a_transfer_host_never_mean_end_of_file_or_no_such_file(status: int) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status)

    for together in (True, False):
        with pytest.raises(ProtocolViolation):
            await fetch(handler, SPANS, multirange=together)


async def _cut(asked: Asked, stream: trio.abc.Stream, reply: bytes) -> bytes | None:
    await stream.send_all(reply[:-700])
    return None


async def _stall(asked: Asked, stream: trio.abc.Stream, reply: bytes) -> bytes | None:
    await stream.send_all(reply[:-700])
    await trio.sleep_forever()
    return None


async def _fail(asked: Asked, stream: trio.abc.Stream, reply: bytes) -> bytes | None:
    return answer(503, retry_after="0")


async def _too_many(asked: Asked, stream: trio.abc.Stream, reply: bytes) -> bytes | None:
    return answer(429, retry_after="0")


@pytest.mark.parametrize("spans", [SPANS[:1], SPANS], ids=["single", "several"])
@pytest.mark.parametrize("failure", [_cut, _stall, _fail, _too_many], ids=lambda failure: failure.__name__)
async def test_what_breaks_off_is_fetched_again(failure, spans: list[HttpRange]) -> None:  # type: ignore[no-untyped-def]
    count = 0

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        nonlocal count
        count += 1
        reply = multipart(asked) if "," in asked.headers["range"] else ranged(DATA, asked)
        return await failure(asked, stream, reply) if count == 1 else reply  # type: ignore[no-any-return]

    done = await fetch(handler, spans, **TOGETHER)
    assert done.data == wanted(spans)
    assert (len(done.asked), done.counters[NET_RETRIES]) == (2, 1)
    assert done.counters[CAS_FETCH_BYTES] == sum(map(len, spans))


async def test_a_host_that_never_recovers_is_unavailable() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(500)

    with pytest.raises(Unavailable):
        await fetch(handler, SPANS, attempts_max=2)


async def _foreign_range(asked: Asked, stream: trio.abc.Stream) -> bytes:
    asked.headers["range"] = asked.headers["range"].replace("1000-1999", "1001-2000")
    return multipart(asked)


async def _same_range_twice(asked: Asked, stream: trio.abc.Stream) -> bytes:
    asked.headers["range"] += ",1000-1999"
    return multipart(asked)


async def _wrong_boundary(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return multipart(asked).replace(b'boundary="B0"', b'boundary="B1"')


async def _no_boundary(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return multipart(asked).replace(b'; boundary="B0"', b"               ")


async def _endless(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
    head = b"HTTP/1.1 206 OK\r\ncontent-type: multipart/byteranges; boundary=B0\r\n\r\n"
    await stream.send_all(head + multipart(asked).partition(b"\r\n\r\n")[2])
    while True:
        await stream.send_all(bytes(65536))


async def _gzip(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return multipart(asked).replace(b"content-type", b"content-encoding: gzip\r\ncontent-type", 1)


@pytest.mark.parametrize(
    "handler",
    [_foreign_range, _same_range_twice, _wrong_boundary, _no_boundary, _endless, _gzip],
    ids=lambda handler: handler.__name__,
)
async def test_a_multipart_body_that_lies_is_refused(handler: Handler) -> None:
    """They answer one range no better: with parts that nobody asked for."""
    with trio.fail_after(5), pytest.raises(ProtocolViolation):
        await fetch(handler, SPANS, attempts_max=2, **TOGETHER)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/x", "http://169.254.169.254/x", "https://192.168.1.1/x", "http://127.0.0.1:25/x", "http://[fe80::1]/x"],
)
async def test_a_signed_url_into_another_network_is_not_asked(url: str) -> None:
    async with client_of("http://127.0.0.1:8000") as http:
        with pytest.raises(ProtocolViolation):
            await CasClient(http, no_token).fetch(
                SignedUrl(url), [(HttpRange(0, 9), partial(BufferWriter, memoryview(bytearray(10))))]
            )
        assert http.counters.snapshot().get(NET_REQUESTS, 0) == 0


async def test_one_failing_part_ends_the_others() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.headers["range"] == "bytes=5000-5000":
            return answer(404)
        await trio.sleep_forever()
        return None

    with trio.fail_after(5), pytest.raises(ProtocolViolation):
        await fetch(handler, SPANS, attempts_max=1)
