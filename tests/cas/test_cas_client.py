"""CasClient: its questions, its tokens, and what it makes of a CAS that is older, slower or less honest than it should be."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from loopback import CANARY, Asked, Handler, Loopback, answer, client_of, serving

from xetfs.cas.client import CasClient
from xetfs.cas.facts import FACT_LIFETIME_S
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    ProtocolViolation,
    RangeNotSatisfiable,
    Unavailable,
    XetfsError,
)
from xetfs.net.client import HttpClient
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.proof import build_range_proof
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.tree import XetToken
from xetfs.secret import Secret
from xetfs.telemetry import CAS_RECONSTRUCTIONS

FILE = FileId(MerkleHash.from_raw(bytes(range(32))))
XORB = MerkleHash.from_raw(bytes(range(100, 132))).hex()
SPAN = ByteRange(10, 90)
TERMS = {"offset_into_first_range": 10, "terms": [{"hash": XORB, "unpacked_length": 100, "range": {"start": 0, "end": 1}}]}
BYTES = {"start": 0, "end": 107}
URL = "http://127.0.0.1:9/x?X-Signature=s"
V2 = json.dumps(
    {**TERMS, "xorbs": {XORB: [{"url": URL, "ranges": [{"chunks": {"start": 0, "end": 1}, "bytes": BYTES}]}]}},
).encode()
V1 = json.dumps({**TERMS, "fetch_info": {XORB: [{"range": {"start": 0, "end": 1}, "url": URL, "url_range": BYTES}]}}).encode()
PROOF = json.dumps(build_range_proof([(MerkleHash.from_raw(bytes([n] * 32)), 100) for n in range(20)], [SPAN])).encode()


@dataclass
class Cas:
    """A CasClient, the server it talks to, and how many tokens it asked for."""

    client: CasClient
    http: HttpClient
    server: Loopback
    tokens: int = 0


@asynccontextmanager
async def cas_of(handler: Handler, **choices: object) -> AsyncIterator[Cas]:
    async with serving(handler) as server, client_of(server.url, **choices) as http:
        cas: Cas

        async def token() -> XetToken:
            await trio.lowlevel.checkpoint()
            cas.tokens += 1
            return XetToken(server.url, Secret(f"{CANARY}{cas.tokens}"), 2_000_000_000)

        cas = Cas(CasClient(http, token), http, server)
        yield cas


async def failing(cas: Cas, use: Callable[[CasClient], Awaitable[object]]) -> XetfsError:
    with pytest.raises(XetfsError) as caught:
        await use(cas.client)
    return caught.value


async def test_a_reconstruction_is_asked_for_with_the_cas_token() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, V2)

    async with cas_of(handler) as cas:
        found = await cas.client.reconstruction(FILE, SPAN)
        assert (found.offset, len(found.terms)) == (10, 1)
        asked = cas.server.asked[0]
        assert asked.target == f"/v2/reconstructions/{FILE.hex()}"
        assert asked.headers["range"] == "bytes=10-89"
        assert asked.headers["authorization"] == f"Bearer {CANARY}1"
        await cas.client.reconstruction(FILE, SPAN)
        assert cas.tokens == 1
        assert cas.http.counters[CAS_RECONSTRUCTIONS] == 2


@pytest.mark.parametrize("status", [404, 501])
async def test_an_older_cas_is_asked_in_version_one_until_that_expires(status: int, mock_clock: trio.testing.MockClock) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status) if asked.path.startswith("/v2/") else answer(200, V1)

    async with cas_of(handler) as cas:
        first = await cas.client.reconstruction(FILE, SPAN)
        assert first.terms
        await cas.client.reconstruction(FILE, SPAN)
        assert [path[:4] for path in cas.server.paths] == ["/v2/", "/v1/", "/v1/"]
        mock_clock.jump(FACT_LIFETIME_S + 1)
        await cas.client.reconstruction(FILE, SPAN)
        assert [path[:4] for path in cas.server.paths[3:]] == ["/v2/", "/v1/"]


async def test_clients_of_an_engine_share_what_is_known_of_a_server() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(404) if asked.path.startswith("/v2/") else answer(200, V1)

    async with cas_of(handler) as cas:
        await cas.client.reconstruction(FILE, SPAN)

        async def token() -> XetToken:
            return XetToken(cas.server.url, Secret(CANARY), 2_000_000_000)

        another = CasClient(cas.http, token, facts=cas.client.facts)
        await another.reconstruction(FILE, SPAN)
        assert [path[:4] for path in cas.server.paths] == ["/v2/", "/v1/", "/v1/"]


async def test_a_missing_file_says_nothing_about_versions() -> None:
    known = False

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, V2) if known and asked.path.startswith("/v2/") else answer(404)

    async with cas_of(handler) as cas:
        assert isinstance(await failing(cas, lambda client: client.reconstruction(FILE, SPAN)), EntryNotFound)
        known = True
        await cas.client.reconstruction(FILE, SPAN)
        assert [path[:4] for path in cas.server.paths] == ["/v2/", "/v1/", "/v2/"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ProtocolViolation),
        (403, AccessDenied),
        (405, ProtocolViolation),
        (416, RangeNotSatisfiable),
        (500, Unavailable),
        (503, Unavailable),
        (204, ProtocolViolation),
    ],
)
async def test_refusals_of_a_reconstruction(status: int, expected: type[XetfsError]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status)

    async with cas_of(handler, attempts_max=1) as cas:
        assert type(await failing(cas, lambda client: client.reconstruction(FILE, SPAN))) is expected
        assert len(cas.server.asked) == 1


async def test_a_refused_token_is_replaced_once() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(401) if asked.headers["authorization"].endswith("1") else answer(200, V2)

    async with cas_of(handler) as cas:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(cas.client.reconstruction, FILE, SPAN)
        assert cas.tokens == 2


async def test_two_refused_tokens_are_an_error() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(401)

    async with cas_of(handler) as cas:
        error = await failing(cas, lambda client: client.reconstruction(FILE, SPAN))
        assert isinstance(error, AuthRequired)
        assert (cas.tokens, len(cas.server.asked)) == (2, 2)


async def test_a_redirect_of_the_cas_does_not_carry_its_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def elsewhere(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, V2)

    async with serving(elsewhere) as other:

        async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
            return answer(307, location=f"{other.url}/y?X-Signature=SIGNED")

        async with cas_of(handler) as cas:
            await cas.client.reconstruction(FILE, SPAN)
        assert CANARY not in repr(other.asked)
    assert CANARY not in caplog.text
    assert "SIGNED" not in caplog.text


# Proofs


async def test_a_range_proof() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, PROOF)

    async with cas_of(handler) as cas:
        proof = await cas.client.range_proof(FILE, SPAN)
        assert proof.covers(SPAN)
        asked = cas.server.asked[0]
        assert asked.target == f"/v2/file-chunk-hashes/{FILE.hex()}"
        assert asked.headers["x-range-dirty"] == "bytes=10-89"
        assert "range" not in asked.headers


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_cas_without_a_proof_says_so_each_time_it_is_asked(status: int) -> None:
    """Whether to ask again is decided elsewhere."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status)

    async with cas_of(handler) as cas:
        for count in (1, 2):
            assert isinstance(await failing(cas, lambda client: client.range_proof(FILE, SPAN)), EntryNotFound)
            assert len(cas.server.asked) == count


async def test_the_client_says_which_cas_was_asked() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, PROOF)

    async with cas_of(handler) as cas:
        assert cas.client.origin is None
        await cas.client.range_proof(FILE, SPAN)
        assert str(cas.client.origin) == cas.server.url


async def test_a_cas_that_is_busy_is_not_one_without_proofs() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(503 if asked.connection == 1 and len(cas.server.asked) == 1 else 200, PROOF)

    async with cas_of(handler) as cas:
        assert (await cas.client.range_proof(FILE, SPAN)).covers(SPAN)
        assert len(cas.server.asked) == 2
