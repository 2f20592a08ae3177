"""A CAS in memory that counts what it is asked, and readers on top of it."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from flat_settings import flat_settings

from xetfs.cas.fetching import Part
from xetfs.cas.refusals import refused_for_good
from xetfs.errors import AccessDenied, EntryNotFound, SignedUrlExpired, Unavailable
from xetfs.net.origins import Origin
from xetfs.net.writers import write
from xetfs.protocol.formats import probe
from xetfs.protocol.hashes import ChunkHash, FileId, XorbHash, chunk_hash, file_id
from xetfs.protocol.proof import RangeProof, build_range_proof, parse_range_proof
from xetfs.protocol.ranges import ByteRange, ChunkRange, HttpRange
from xetfs.protocol.reconstruction import FetchInfo, Reconstruction, SignedUrl, Term
from xetfs.protocol.xorb import encode_xorb
from xetfs.reader.content import FileContent
from xetfs.reader.fetcher import Fetcher
from xetfs.reader.file import FileReader
from xetfs.reader.proofs import ProofPolicy
from xetfs.reader.shelf import Shelf
from xetfs.reader.xet_source import XetSource
from xetfs.settings import Settings
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters
from xetfs.testhub.shaping import Line
from xetfs.units import KIB

BODY_PIECE = 256 * KIB


@dataclass
class FakeXorb:
    hash: XorbHash
    wire: bytearray
    ends: tuple[int, ...]
    leaves: tuple[tuple[ChunkHash, int], ...]


@dataclass
class FakeFile:
    """terms: (index of a xorb, chunk range), in file order."""

    terms: list[tuple[int, ChunkRange]]
    content: bytes
    leaves: list[tuple[ChunkHash, int]]
    id: FileId


@dataclass(eq=False)
class FakeCas:
    """What CasClient offers, from memory. `delay_s` is the round trip; `gate` holds fetches back until it is set."""

    xorbs: list[FakeXorb] = field(default_factory=list)
    files: dict[FileId, FakeFile] = field(default_factory=dict)
    proofless: bool = False
    proof_error: Exception | None = None
    proof_delay_s: float = 0.0
    delay_s: float = 0.0
    origin: Origin = field(default_factory=lambda: Origin("https", "cas.example", 443))
    gate: trio.Event | None = None
    expire_next: int = 0
    fail_next: int = 0
    asked: list[tuple[str, ByteRange]] = field(default_factory=list)
    fetched: list[tuple[XorbHash, HttpRange]] = field(default_factory=list)
    requests: int = 0
    cancelled: int = 0
    prepared: int = 0

    def add_xorb(self, chunks: Sequence[bytes]) -> int:
        encoded = encode_xorb(chunks)
        leaves = tuple(zip(encoded.hashes, encoded.lengths, strict=True))
        self.xorbs.append(FakeXorb(encoded.xorb, bytearray(encoded.wire), encoded.wire_ends, leaves))
        self._chunks = getattr(self, "_chunks", [])
        self._chunks.append(list(chunks))
        return len(self.xorbs) - 1

    def add_file(self, terms: Sequence[tuple[int, int, int]]) -> FakeFile:
        """A file of (xorb index, first chunk, end chunk) terms."""
        ranges = [(index, ChunkRange(first, end)) for index, first, end in terms]
        pieces = [self._chunks[index][i] for index, chunks in ranges for i in range(chunks.start, chunks.end)]
        leaves = [(chunk_hash(piece), len(piece)) for piece in pieces]
        file = FakeFile(ranges, b"".join(pieces), leaves, file_id(leaves))
        self.files[file.id] = file
        return file

    @property
    def fetched_bytes(self) -> int:
        return sum(len(part) for _, part in self.fetched)

    async def prepare(self) -> None:
        self.prepared += 1

    async def reconstruction(self, file: FileId, span: ByteRange) -> Reconstruction:
        self.asked.append(("reconstruction", span))
        await self._travel()
        return self.answer(self.files[file], span)

    def answer(self, file: FakeFile, span: ByteRange) -> Reconstruction:
        at, offset = 0, -1
        terms: list[Term] = []
        for index, chunks in file.terms:
            first, end, length = None, chunks.start, 0
            for chunk in range(chunks.start, chunks.end):
                size = self.xorbs[index].leaves[chunk][1]
                if at + size > span.start and at < span.end:
                    if first is None:
                        first = chunk
                        if offset < 0:
                            offset = span.start - at
                    end, length = chunk + 1, length + size
                at += size
            if first is not None:
                terms.append(Term(self.xorbs[index].hash, ChunkRange(first, end), length))
        return Reconstruction(offset, tuple(terms), self._fetches(terms))

    def _fetches(self, terms: Sequence[Term]) -> dict[XorbHash, tuple[FetchInfo, ...]]:
        found: dict[XorbHash, tuple[FetchInfo, ...]] = {}
        for xorb in {term.xorb for term in terms}:
            ranges: list[ChunkRange] = []
            for chunks in sorted(term.chunks for term in terms if term.xorb == xorb):
                if ranges and chunks.start <= ranges[-1].end:
                    ranges[-1] = ChunkRange(ranges[-1].start, max(ranges[-1].end, chunks.end))
                else:
                    ranges.append(chunks)
            stored = self._xorb(xorb)
            url = SignedUrl(f"https://transfer.example/{xorb.hex()}?signature=secret")
            found[xorb] = tuple(
                FetchInfo(c, url, HttpRange(stored.ends[c.start - 1] if c.start else 0, stored.ends[c.end - 1] - 1))
                for c in ranges
            )
        return found

    def count(self, kind: str) -> int:
        """Questions of a kind so far: "proof" or "reconstruction"."""
        return sum(asked == kind for asked, _ in self.asked)

    def _xorb(self, xorb: XorbHash) -> FakeXorb:
        return next(stored for stored in self.xorbs if stored.hash == xorb)

    async def range_proof(self, file: FileId, span: ByteRange) -> RangeProof:
        self.asked.append(("proof", span))
        if self.proofless:
            raise EntryNotFound("no proofs here")
        await trio.sleep(self.proof_delay_s)
        await self._travel()
        if self.proof_error is not None:
            raise self.proof_error
        return parse_range_proof(json.dumps(build_range_proof(self.files[file].leaves, [span])).encode())

    async def fetch(self, url: SignedUrl, parts: Sequence[Part]) -> None:
        self.requests += 1
        try:
            await self._travel()
            if self.gate is not None:
                await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.expire_next:
            self.expire_next -= 1
            raise SignedUrlExpired("expired")
        if self.fail_next:
            self.fail_next -= 1
            raise Unavailable("broken off")
        name = url.shown.rpartition("/")[2]
        stored = next(xorb for xorb in self.xorbs if xorb.hash.hex() == name)
        for part, make_writer in parts:
            self.fetched.append((stored.hash, part))
            body, writer = memoryview(bytes(stored.wire[part.first : part.last + 1])), make_writer()
            for start in range(0, len(body), BODY_PIECE):
                piece = body[start : start + BODY_PIECE]
                await self.carry(len(piece))
                write(writer, piece)

    async def carry(self, length: int) -> None:
        """Take the time of so many bytes of a body."""

    def refuse_for_good(self, refusal: SignedUrlExpired) -> AccessDenied:
        return refused_for_good(refusal.message)

    async def _travel(self) -> None:
        if self.delay_s:
            await trio.sleep(self.delay_s)
        else:
            await trio.lowlevel.checkpoint()


def reader_of(content: FileContent, view: object = None) -> FileReader:
    """A reader of a content for the view that it was made by, or for another with the same source."""
    return FileReader(content, content.accesses.of(view, content.source))


@dataclass
class LineCas(FakeCas):
    """Behind a link: each answer takes `latency_s`, and the link has a bandwidth for one connection and one for all."""

    connection_bytes_s: float = 25e6
    total_bytes_s: float = 250e6
    latency_s: float = 0.04
    places: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(32))

    def __post_init__(self) -> None:
        self.delay_s = self.latency_s
        self._total = Line(self.total_bytes_s)
        self._connections: ContextVar[Line] = ContextVar("connection")  # of the fetch that a task makes

    async def fetch(self, url: SignedUrl, parts: Sequence[Part]) -> None:
        place = object()
        await self.places.acquire_on_behalf_of(place)
        try:
            self._connections.set(Line(self.connection_bytes_s))
            await super().fetch(url, parts)
        finally:
            self.places.release_on_behalf_of(place)

    async def carry(self, length: int) -> None:
        await trio.sleep_until(max(self._total.reserve(length), self._connections.get().reserve(length)))


def cut(content: bytes) -> list[bytes]:
    """Into chunks as long as those of ordinary data."""
    rng, pieces, at = random.Random(9), [], 0
    while at < len(content):
        end = at + min(8192 + int(rng.expovariate(1 / 57344)), 131072)
        pieces.append(content[at:end])
        at = end
    return pieces


def add_file(cas: FakeCas, content: bytes) -> FakeFile:
    pieces = cut(content)
    groups = [pieces[i : i + 1000] for i in range(0, len(pieces), 1000)]
    return cas.add_file([(cas.add_xorb(group), 0, len(group)) for group in groups])


@dataclass
class Bench:
    """A shelf, a store and a nursery for readers of one FakeCas."""

    cas: FakeCas
    shelf: Shelf
    store: MemoryStore
    settings: Settings
    counters: Counters
    nursery: trio.Nursery
    fetcher: Fetcher
    policy: ProofPolicy

    def source(self, file: FakeFile, cas: FakeCas | None = None) -> XetSource:
        """A source of a file, from this bench's CAS or with the right of another client."""
        return XetSource(
            file.id,
            len(file.content),
            cas=cas or self.cas,  # type: ignore[arg-type]
            fetcher=self.fetcher,
            shelf=self.shelf,
            nursery=self.nursery,
            verify=self.settings.reader.verify,
            policy=self.policy,
            counters=self.counters,
        )

    def reader(self, file: FakeFile, name: str = "data") -> FileReader:
        content = FileContent(
            self.source(file),
            len(file.content),
            shelf=self.shelf,
            nursery=self.nursery,
            settings=self.settings,
            counters=self.counters,
            layout=probe(name, len(file.content)),
        )
        return reader_of(content)


@asynccontextmanager
async def open_bench(cas: FakeCas, store: MemoryStore | None = None, **settings: object) -> AsyncIterator[Bench]:
    chosen = flat_settings(cache_dir=Path("unused"), **settings)  # type: ignore[arg-type]
    counters = Counters()
    store = store or MemoryStore(counters)
    async with trio.open_nursery() as nursery:
        shelf = Shelf(store, chosen.reader.memory_bytes_max, patience_s=chosen.store.disk_timeout_s)
        nursery.start_soon(shelf.run_writer)
        yield Bench(
            cas,
            shelf,
            store,
            chosen,
            counters,
            nursery,
            Fetcher(nursery, shelf, chosen.reader),
            ProofPolicy(chosen.reader.proof_timeout_s, counters),
        )
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what belongs in threads at once: a clock that jumps when all tasks wait would not know that a thread works."""

    async def run_sync(function: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@pytest.fixture
def cas() -> FakeCas:
    return FakeCas()


@pytest.fixture
def make_file(cas: FakeCas) -> Callable[..., FakeFile]:
    """make_file(chunk count, seed=…): a file of chunks as content-defined chunking makes them, 500 to a xorb."""

    def make(count: int, seed: int = 1) -> FakeFile:
        rng = random.Random(seed)
        chunks = [rng.randbytes(min(8192 + int(rng.expovariate(1 / 57344)), 131072)) for _ in range(count)]
        xorbs = [chunks[i : i + 500] for i in range(0, count, 500)]
        return cas.add_file([(cas.add_xorb(part), 0, len(part)) for part in xorbs])

    return make
