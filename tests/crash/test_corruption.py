"""Single bytes that change, on the wire, in the cache's block files, in its index: not one reaches a reader.

In process, an engine over a hub. XETFS_FLIPS says how many, XETFS_FLIPS_SEED which; the seed of a run is printed. What the Hub
itself says, its listings, has nothing to be checked against, and is left alone here.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from flat_settings import flat_settings, open_engine
from stage import block_files

from xetfs.errors import CorruptData, Offline, ProtocolViolation, Unavailable
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import RepoView
from xetfs.telemetry import STORE_CORRUPT, Counters
from xetfs.testhub import Fault, TestHub, open_test_hub

FLIPS = int(os.environ.get("XETFS_FLIPS", "500"))
SEED = int(os.environ.get("XETFS_FLIPS_SEED", random.SystemRandom().randrange(2**32)))
REF = RepoRef.parse("acme/flips")
TOLD = (CorruptData, Offline, ProtocolViolation, Unavailable)
"""Offline: a URL may come to name a host that is none."""

Files = dict[str, bytes]


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[TestHub, Files]]:
    """A hub with a few files in Xet, which share chunks, and one in git."""
    chance = random.Random(6)
    pieces = [chance.randbytes(chance.randrange(4_000, 40_000)) for _ in range(24)]
    text = [b"line %d of a text that can be packed\n" % number * 300 for number in range(8)]
    chunks = {"a.bin": pieces[:16], "b.bin": [*pieces[8:], *pieces[:3]], "text.bin": text}
    async with open_test_hub(directory) as hub:
        stored = {path: hub.xet.add_file_from_chunks(parts, xorb_chunks=6)[1] for path, parts in chunks.items()}
        files = {path: b"".join(parts) for path, parts in chunks.items()}
        plain = {"plain.txt": b"".join(text)[:50_000]}
        hub.storage.commit_files(hub.storage.create_repo("model", "acme/flips"), {**stored, **plain})
        yield hub, files | plain


@asynccontextmanager
async def opened(hub: TestHub, cache: Path) -> AsyncIterator[tuple[RepoView, Counters]]:
    settings = flat_settings(endpoint=hub.endpoint, cache_dir=cache, attempts_max=2)
    async with open_engine(settings) as engine:
        yield await engine.open_repo(REF), engine.counters


async def read(view: RepoView, path: str, span: ByteRange) -> bytes:
    reader = view.open_file(await view.lookup(view.root, path))
    try:
        return bytes(await reader.read(span))
    finally:
        reader.close()


async def read_all(view: RepoView, files: Files, choose: random.Random) -> None:
    """Every file, a random half of it first; whatever comes is right."""
    for path, content in files.items():
        at = choose.randrange(len(content))
        assert await read(view, path, ByteRange(at, len(content))) == content[at:]
        assert await read(view, path, ByteRange(0, len(content))) == content


def flip(path: Path, choose: random.Random) -> None:
    with path.open("r+b") as file:
        at = choose.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0] ^ 1 << choose.randrange(8)
        file.seek(at)
        file.write(bytes([byte]))


@pytest.fixture
def choose() -> random.Random:
    print(f"XETFS_FLIPS_SEED={SEED}")
    return random.Random(SEED)


@pytest.mark.timeout(120 + FLIPS // 3)
async def test_on_the_wire(tmp_path: Path, choose: random.Random) -> None:
    """In data, maps, proofs and plain files: made good by fetching again, or told."""
    places = [("transfer", "^/xorbs/"), ("cas", "/reconstructions/"), ("cas", "/file-chunk-hashes/"), ("hub", "/resolve-cache/")]
    right = told = fired = 0
    async with served(tmp_path / "hub") as (hub, files):
        for number in range(FLIPS * 2 // 5):
            origin, path = choose.choices(places, (6, 2, 2, 1))[0]
            cache = tmp_path / f"cache{number}"
            async with opened(hub, cache) as (view, _):
                fault = hub.faults.add(Fault("flip", origin=origin, path=path, skip=choose.randrange(3), count=1))  # type: ignore[arg-type]
                try:
                    await read_all(view, files, choose)
                    right += 1
                except TOLD:
                    told += 1
                fired += fault.fired
                hub.faults.clear()
            shutil.rmtree(cache)
    print(f"{fired} flips on the wire: made good in {right} runs, told in {told}")
    assert fired > FLIPS // 5
    assert right > told


@pytest.mark.timeout(120 + FLIPS // 3)
async def test_in_block_files(tmp_path: Path, choose: random.Random) -> None:
    """Found when the block is opened or first read, dropped, fetched again."""
    noticed = 0
    cache = tmp_path / "cache"
    async with served(tmp_path / "hub") as (hub, files):
        async with opened(hub, cache) as (view, _):
            await read_all(view, files, choose)
        for _ in range(FLIPS * 2 // 5):
            flip(choose.choice(block_files(cache)), choose)
            async with opened(hub, cache) as (view, counters):
                await read_all(view, files, choose)
                noticed += counters[STORE_CORRUPT]
    print(f"{noticed} of {FLIPS * 2 // 5} flips in blocks were noticed, and made good")
    assert noticed == FLIPS * 2 // 5


@pytest.mark.timeout(120 + FLIPS // 3)
async def test_in_the_index(tmp_path: Path, choose: random.Random) -> None:
    cache, spoilt = tmp_path / "cache", tmp_path / "spoilt"
    async with served(tmp_path / "hub") as (hub, files):
        async with opened(hub, cache) as (view, _):
            await read_all(view, files, choose)
        for _ in range(FLIPS // 5):
            shutil.copytree(cache, spoilt)
            spoilt.chmod(0o700)
            flip(spoilt / "cache.db", choose)
            async with opened(hub, spoilt) as (view, _):
                await read_all(view, files, choose)
            shutil.rmtree(spoilt)
