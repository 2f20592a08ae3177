"""A transfer host that refuses a signed URL: expired or not, and what the server says of it."""

from __future__ import annotations

import logging
import random
import time
from email.utils import formatdate
from functools import partial

import pytest
import trio
from loopback import Asked, Handler, Loopback, answer, client_of, ranged, serving

from xetfs.cas.client import CasClient
from xetfs.cas.refusals import REFUSAL_LIFETIME_S
from xetfs.errors import AccessDenied, ProtocolViolation, SignedUrlExpired, XetfsError
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.protocol.tree import XetToken

DATA = random.Random(5).randbytes(10_000)
SPAN = HttpRange(1000, 1999)
SIGNATURE = "SIGNEDsigned0123456789SIGNEDsigned"
DAY_S = 86_400
S3_EXPIRED = b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
GCS_EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>Invalid argument.</Message></Error>"
CLOUDFRONT = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"
BAD_KEY = b"SignatureError: invalid key pair id"
ENDED = {"Expires": time.time() - 10}
LIVE = {"Expires": time.time() + DAY_S}


async def no_token() -> XetToken:
    raise AssertionError("data is fetched without a token")


def signed(server: Loopback, expires: object = "", number: int = 1) -> SignedUrl:
    return SignedUrl(f"{server.url}/xorb?Expires={expires}&Signature={SIGNATURE}&n={number}")


async def ask(cas: CasClient, url: SignedUrl) -> None:
    await cas.fetch(url, [(SPAN, partial(BufferWriter, memoryview(bytearray(len(SPAN)))))])


async def refused(reply: bytes, *, expires: object = "") -> XetfsError:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return reply

    async with serving(handler) as server, client_of(server.url) as http:
        with pytest.raises(XetfsError) as caught:
            await ask(CasClient(http, no_token), signed(server, expires))
        assert len(server.asked) == 1
        return caught.value


@pytest.mark.parametrize(
    ("status", "body", "lifetime_s"),
    [
        (403, S3_EXPIRED, DAY_S),
        (403, S3_EXPIRED, None),
        (400, GCS_EXPIRED, DAY_S),
        (403, b'{"error": "the signature has expired"}', DAY_S),
        (403, CLOUDFRONT, -10),
        (403, b"", -10),
        (400, b"", -10),
        (403, BAD_KEY, 2),  # so close to its end that clocks may differ
    ],
)
async def test_an_expired_url(status: int, body: bytes, lifetime_s: float | None) -> None:
    expires = "" if lifetime_s is None else int(time.time() + lifetime_s)
    error = await refused(answer(status, body), expires=expires)
    assert isinstance(error, SignedUrlExpired)
    assert error.certain


@pytest.mark.parametrize("body", [CLOUDFRONT, BAD_KEY, b"", b"\xff\xfe" * 5000])
@pytest.mark.parametrize("lifetime_s", [None, DAY_S])
async def test_a_403_without_a_reason_is_worth_one_fresh_url(body: bytes, lifetime_s: float | None) -> None:
    expires = "" if lifetime_s is None else int(time.time() + lifetime_s)
    error = await refused(answer(403, body), expires=expires)
    assert isinstance(error, SignedUrlExpired)
    assert not error.certain


@pytest.mark.parametrize(
    ("ahead_s", "age", "certain"),
    [
        (-DAY_S, "0", False),  # our clock is a day ahead
        (DAY_S, "0", True),  # our clock is a day behind
        (-DAY_S, str(2 * DAY_S), True),  # an answer that lay in a cache
        (None, "0", False),
        (-DAY_S, "-5", False),
    ],
)
async def test_the_clock_of_the_server_counts(ahead_s: int | None, age: str, certain: bool) -> None:
    date = "no date" if ahead_s is None else formatdate(time.time() + ahead_s, usegmt=True)
    error = await refused(answer(403, date=date, age=age), expires=int(time.time() + DAY_S / 2))
    assert isinstance(error, SignedUrlExpired)
    assert error.certain is certain


@pytest.mark.parametrize("status", [400, 401, 404, 410, 416, 418, 501])
async def test_what_is_no_expiry_is_told_in_the_words_of_the_server(status: int) -> None:
    body = b"<Error><Code>InvalidArgument</Code><Message>Unsupported header\n x</Message><Details>why</Details></Error>"
    error = await refused(answer(status, body), expires=int(time.time() + DAY_S))
    assert isinstance(error, ProtocolViolation)
    assert f"({status}: InvalidArgument: Unsupported header x: why)" in str(error)


async def test_a_server_that_refuses_fresh_urls_is_believed_for_a_while(mock_clock: trio.testing.MockClock) -> None:
    mended = False

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked) if mended else answer(403, BAD_KEY)

    async with serving(handler) as server, client_of(server.url) as http:
        cas = CasClient(http, no_token)

        async def refusal() -> XetfsError:
            with pytest.raises(XetfsError) as caught:
                await ask(cas, signed(server))
            return caught.value

        first = await refusal()
        assert isinstance(first, SignedUrlExpired)
        told = cas.refuse_for_good(first)
        assert isinstance(told, AccessDenied)
        assert "invalid key pair id" in str(told)
        assert isinstance(await refusal(), AccessDenied)
        mock_clock.jump(REFUSAL_LIFETIME_S)
        second = await refusal()
        assert isinstance(second, SignedUrlExpired)
        cas.refuse_for_good(second)
        mended = True
        await ask(cas, signed(server))
        mended = False
        assert isinstance(await refusal(), SignedUrlExpired), "it accepted one in between"


async def test_an_expired_url_that_is_replaced_says_nothing_of_the_server() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(403, S3_EXPIRED if expired else BAD_KEY)

    expired = True
    async with serving(handler) as server, client_of(server.url) as http:
        cas = CasClient(http, no_token)
        with pytest.raises(SignedUrlExpired) as caught:
            await ask(cas, signed(server))
        assert isinstance(cas.refuse_for_good(caught.value), AccessDenied)
        expired = False
        with pytest.raises(SignedUrlExpired):
            await ask(cas, signed(server))


def repeating(status: int, text: str) -> Handler:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status, text.encode())

    return handler


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "text",
    [
        f"no such key at http://data.example/x?Signature={SIGNATURE}",
        f"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>{SIGNATURE}</SignatureProvided></Error>",
        f"<Error><Code>Bad</Code><Message>for {SIGNATURE}</Message></Error>",
        f'{{"error": "{SIGNATURE} is bad"}}',
        SIGNATURE * 200,
        f"<html><script>var x = '{SIGNATURE}'</script><p title={SIGNATURE}>Log in</p>",
    ],
)
async def test_no_secret_is_repeated(status: int, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(repeating(status, text)) as server, client_of(server.url) as http:
        with pytest.raises(XetfsError) as caught:
            await ask(CasClient(http, no_token), signed(server))
    for shown in (str(caught.value), repr(caught.value), caplog.text):
        assert SIGNATURE not in shown
    assert len(str(caught.value)) < 400
