"""A process of its own for each hostile answer: what became of it, and how much memory it took.

usage: hostile_memory.py CASE; prints the error's class, the growth of the largest resident size in bytes, and what was sent.
"""

from __future__ import annotations

import itertools
import json
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio
from loopback import Asked, answer, client_of, hub_at, serving

from xetfs.cas.client import CasClient
from xetfs.errors import XetfsError
from xetfs.hub import client as hub_client
from xetfs.hub.client import HubClient
from xetfs.net.client import HttpClient
from xetfs.net.writers import BufferWriter
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange, ChunkRange, HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.protocol.tree import XetToken
from xetfs.protocol.xorb import XorbHash, decode_block
from xetfs.repo.listing import Lister
from xetfs.secret import Secret

MIB = 1024 * 1024
REPO = RepoId("model", "o/r")
COMMIT = CommitId("0" * 40)
FILE = FileId(MerkleHash(bytes(range(32))))
SENT_MAX = 400 * MIB
"""What a server sends before it gives up being hostile, so that a client without a bound is told from one with."""

Body = Callable[[], AsyncIterator[bytes]]


class Sent:
    def __init__(self) -> None:
        self.bytes = 0


# What is asked


async def list_directory(http: HttpClient, url: str) -> None:
    # A tenth of the limit, so that it does not take a minute: memory grows with the entries (tests/repo/test_repo_entries.py).
    hub_client.ENTRIES_MAX = 100_000  # type: ignore[misc]

    async def records(kind: str, keys: list[str]) -> list[None]:
        await trio.lowlevel.checkpoint()
        return [None] * len(keys)

    shelf: Any = SimpleNamespace(records=records)
    nobody: Any = SimpleNamespace(start_soon=lambda *run, name: None)
    await Lister(
        HubClient(http, hub_at(url, Secret("hf_x"))), shelf, url, REPO, COMMIT, on_new=lambda: None, nursery=nobody
    ).list("")


async def ask_token(http: HttpClient, url: str) -> None:
    await HubClient(http, hub_at(url, Secret("hf_x"))).xet_token(REPO, COMMIT)


def _cas(http: HttpClient, url: str) -> CasClient:
    async def token() -> XetToken:
        await trio.lowlevel.checkpoint()
        return XetToken(url, Secret("xet_token"), 2**40)

    return CasClient(http, token)


async def reconstruct(http: HttpClient, url: str) -> None:
    await _cas(http, url).reconstruction(FILE, ByteRange(0, 1000))


async def prove(http: HttpClient, url: str) -> None:
    await _cas(http, url).range_proof(FILE, ByteRange(0, 1000))


async def fetch(http: HttpClient, url: str) -> None:
    await _cas(http, url).fetch(
        SignedUrl(f"{url}/x?s=1"), [(HttpRange(0, 299_999), partial(BufferWriter, memoryview(bytearray(300_000))))]
    )


async def fetch_parts(http: HttpClient, url: str) -> None:
    parts = [(HttpRange(at, at + 99_999), partial(BufferWriter, memoryview(bytearray(100_000)))) for at in (0, 200_000)]
    await _cas(http, url).fetch(SignedUrl(f"{url}/x?s=1"), parts)


# What is answered


def repeating(
    piece: bytes, *, first: bytes = b"", head: bytes = b""
) -> Callable[[Asked, trio.abc.Stream, Sent], Awaitable[None]]:
    """Headers, `first`, then `piece` again and again, without a length."""
    start = head or b"HTTP/1.1 200 OK\r\n\r\n"
    block = piece * (64 * 1024 // len(piece) + 1)

    async def handler(asked: Asked, stream: trio.abc.Stream, sent: Sent) -> None:
        await stream.send_all(start + first)
        while sent.bytes < SENT_MAX:
            await stream.send_all(block)
            sent.bytes += len(block)

    return handler


def whole(body: bytes, **headers: str) -> Callable[[Asked, trio.abc.Stream, Sent], Awaitable[bytes]]:
    async def handler(asked: Asked, stream: trio.abc.Stream, sent: Sent) -> bytes:
        sent.bytes += len(body)
        return answer(200, body, **headers)

    return handler


def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(400)) + packer.flush()


def endless_pages() -> Callable[[Asked, trio.abc.Stream, Sent], Awaitable[bytes]]:
    """Pages of 1000 entries, each with a next, until there would be 10^7."""
    numbers = itertools.count()

    async def handler(asked: Asked, stream: trio.abc.Stream, sent: Sent) -> bytes:
        page = next(numbers)
        entries = [
            {"type": "file", "oid": f"{page * 1000 + n:040x}", "size": 2**46, "path": f"file-{page * 1000 + n:08}.bin",
             "lfs": {"oid": f"{page * 1000 + n:064x}", "size": 2**46, "pointerSize": 134}, "xetHash": f"{page * 1000 + n:064x}"}
            for n in range(1000)
        ]  # fmt: skip
        body = json.dumps(entries).encode()
        sent.bytes += len(body)
        link = f'<{asked.path}?cursor={page}>; rel="next"' if page < 10_000 else ""
        return answer(200, body, link=link)

    return handler


PARTS_HEAD = b"HTTP/1.1 206 Partial Content\r\ncontent-type: multipart/byteranges; boundary=B\r\n\r\n"
RANGE_HEAD = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-299999/300000\r\n\r\n"

CASES: dict[str, tuple[Any, Any]] = {
    "an endless listing": (list_directory, lambda: repeating(b'{"path":"a"},', first=b"[")),
    "a listing of 10^7 entries": (list_directory, endless_pages),
    "a listing packed to a thousandth": (list_directory, lambda: whole(gzip_bomb(), content_encoding="gzip")),
    "endless headers": (list_directory, lambda: repeating(b"x-y: z\r\n", head=b"HTTP/1.1 200 OK\r\n")),
    "a header without an end": (list_directory, lambda: repeating(b"y" * 1000, head=b"HTTP/1.1 200 OK\r\nx: ")),
    "an endless token": (ask_token, lambda: repeating(b"a", first=b'{"accessToken":"')),
    "an endless reconstruction": (reconstruct, lambda: repeating(b'{"hash":"a"},', first=b'{"terms":[')),
    "a reconstruction of empty lists": (reconstruct, lambda: whole(b"[" + b"[]," * (7 * MIB // 3) + b"[]]")),
    "a reconstruction of many names": (
        reconstruct, lambda: whole(b"{" + b",".join(b'"%x":1' % n for n in range(700_000)) + b"}"),
    ),
    "a reconstruction nested deeply": (reconstruct, lambda: whole(b"[" * 7 * MIB)),
    "a reconstruction of wide characters": (
        reconstruct, lambda: whole(b'{"terms":"' + b"a" * 7 * MIB + "\U0001f600".encode() + b'"}'),
    ),
    "an endless proof": (prove, lambda: repeating(b"9", first=b'{"fileSize":')),
    "endless data": (fetch, lambda: repeating(b"d" * 1000, head=RANGE_HEAD)),
    "endless data in place of a range": (fetch, lambda: repeating(b"d" * 1000)),
    "endless parts": (fetch_parts, lambda: repeating(b"--B\r\nx: y\r\n\r\nd\r\n", head=PARTS_HEAD)),
    "a part whose headers never end": (fetch_parts, lambda: repeating(b"x: y\r\n", first=b"--B\r\n", head=PARTS_HEAD)),
    "a preamble without an end": (fetch_parts, lambda: repeating(b"nothing\r\n", head=PARTS_HEAD)),
}  # fmt: skip


def chunk(scheme: int, packed: bytes, claimed: int, *, claimed_packed: int | None = None) -> bytes:
    """A chunk record that claims to be `claimed` bytes long when decoded."""
    length = len(packed) if claimed_packed is None else claimed_packed
    return struct.pack("<B", 0) + length.to_bytes(3, "little") + bytes([scheme]) + claimed.to_bytes(3, "little") + packed


def decode_claims() -> None:
    """A hundred bytes that claim 16 MiB, in each scheme, and many chunks that claim as much as is allowed: all refused."""
    for scheme in range(4):
        for wire in (
            chunk(scheme, bytes(92), 2**24 - 1),
            chunk(scheme, bytes(92), 131_072),
            chunk(scheme, bytes(92), 100, claimed_packed=2**24 - 1),
            chunk(scheme, bytes(8), 131_072) * 500,
        ):
            count = 500 if len(wire) > 1000 else 1
            try:
                decode_block(XorbHash(FILE), ChunkRange(0, count), memoryview(wire))
            except XetfsError:
                continue
            raise AssertionError(f"decoded what it is not: scheme {scheme}, {len(wire)} bytes")


@asynccontextmanager
async def hostile(make: Any, sent: Sent) -> AsyncIterator[tuple[HttpClient, str]]:
    behave = make()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        return await behave(asked, stream, sent)  # type: ignore[no-any-return]

    async with serving(handler) as server, client_of(server.url, attempts_max=2) as http:
        yield http, server.url


def memory(name: str) -> int:
    """VmRSS or VmHWM in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


async def run(case: str) -> tuple[str, int]:
    sent = Sent()
    if case == "chunks that claim much from little":
        decode_claims()
        return "ProtocolViolation", 0
    use, make = CASES[case]
    prepared = make()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    async with hostile(lambda: prepared, sent) as (http, url):
        try:
            with trio.fail_after(60):
                await use(http, url)
        except XetfsError as error:
            return type(error).__name__, sent.bytes
    return "accepted", sent.bytes


def main() -> None:
    before = memory("VmRSS")
    outcome, sent = trio.run(run, sys.argv[1])
    print(outcome, memory("VmHWM") - before, sent)


if __name__ == "__main__":
    main()
