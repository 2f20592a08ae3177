"""The clients of Hub and CAS together, against a whole hub that enforces what the real one does."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio.testing
from loopback import CANARY, client_of, hub_at

from xetfs.cas.client import CasClient
from xetfs.cas.token import EXPIRY_MARGIN_S
from xetfs.errors import AccessDenied, AuthRequired, EntryNotFound, RepoNotFound, RevisionNotFound, SignedUrlExpired, XetfsError
from xetfs.hub.client import HubClient
from xetfs.net.writers import BufferWriter
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.proof import verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import Reconstruction
from xetfs.protocol.tree import TreeEntry, XetToken
from xetfs.protocol.xorb import Scheme, XorbBlock, decode_block
from xetfs.secret import Secret
from xetfs.telemetry import HUB_TOKEN_REFRESHES, NET_RETRIES
from xetfs.testhub import Fault, Run, TestHub, open_test_hub, rate_limited

REPO = RepoId("model", "o/r")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


class Sample:
    """A file of scattered chunks of two xorbs, so that its reconstruction has URLs of several ranges."""

    def __init__(self, hub: TestHub) -> None:
        chance = random.Random(3)
        chunks = [chance.randbytes(chance.randrange(8192, 30_000)) for _ in range(90)]
        xorbs = [hub.xet.add_xorb(chunks[:50], Scheme.NONE), hub.xet.add_xorb(chunks[50:], Scheme.LZ4)]
        runs = [Run(xorbs[n % 2], start, start + 2) for n, start in enumerate(range(0, 38, 3))]
        parts = [(chunks[:50] if run.xorb == xorbs[0] else chunks[50:])[run.start : run.end] for run in runs]
        self.content = b"".join(chunk for part in parts for chunk in part)
        self.file, stored = hub.xet.add_file_from_terms(runs)
        self.plain = b"# Hello\n" * 100
        repo = hub.storage.create_repo("model", REPO.name)
        hub.storage.commit_files(repo, {"f.bin": stored, "README.md": self.plain, "empty": b"", "dir/ü #?.txt": b"x"})
        self.commit = CommitId(hub.storage.commit(repo, "main").oid)


@asynccontextmanager
async def clients(hub: TestHub, token: str | None = None, **choices: object) -> AsyncIterator[tuple[HubClient, CasClient]]:
    async with client_of(hub.endpoint, **choices) as http:
        client = HubClient(http, hub_at(hub.endpoint, Secret(token) if token else None))
        commit = CommitId(hub.storage.commit(hub.storage.require_repo("model", REPO.name), "main").oid)

        async def fetch_token() -> XetToken:
            return await client.xet_token(REPO, commit)

        yield client, CasClient(http, fetch_token)


async def read(cas: CasClient, found: Reconstruction) -> tuple[bytes, list[XorbBlock]]:
    """The bytes of all terms, each URL's ranges fetched in one call."""
    blocks: dict[tuple[object, object], XorbBlock] = {}
    for xorb, fetches in found.fetches.items():
        for url in {fetch.url for fetch in fetches}:
            parts = [(fetch, bytearray(len(fetch.bytes))) for fetch in fetches if fetch.url == url]
            await cas.fetch(url, [(fetch.bytes, partial(BufferWriter, memoryview(buffer))) for fetch, buffer in parts])
            blocks |= {(xorb, fetch.chunks): decode_block(xorb, fetch.chunks, memoryview(buffer)) for fetch, buffer in parts}
    data = b""
    for term in found.terms:
        block = blocks[term.xorb, found.fetch_of(term).chunks]
        data += b"".join(block.chunk(index) for index in range(term.chunks.start, term.chunks.end))
    return data, list(blocks.values())


@pytest.mark.parametrize("multirange", [False, True])
@pytest.mark.parametrize("v2_status", [200, 404, 501])
async def test_any_range_of_a_file_comes_right_in_both_versions(hub: TestHub, v2_status: int, multirange: bool) -> None:
    sample = Sample(hub)
    hub.options.v2_status = v2_status
    chance = random.Random(9)
    async with clients(hub, multirange=multirange) as (_, cas):
        for _ in range(6):
            start = chance.randrange(len(sample.content))
            span = ByteRange(start, chance.randrange(start + 1, len(sample.content) + 1))
            found = await cas.reconstruction(sample.file, span)
            data, _ = await read(cas, found)
            assert data[found.offset : found.offset + len(span)] == sample.content[start : span.end]
    assert all(not request.authorized for request in hub.requests("transfer"))
    assert len([request for request in hub.requests("hub") if "xet-read-token" in request.path]) == 1
    probes = [request for request in hub.requests("cas") if request.path.startswith("/v2/")]
    assert len(probes) == (6 if v2_status == 200 else 1)
    together = [request for request in hub.requests("transfer") if "," in (request.range or "")]
    assert bool(together) == (multirange and v2_status == 200)


async def test_a_window_is_proven_with_what_the_clients_fetch(hub: TestHub) -> None:
    sample = Sample(hub)
    async with clients(hub) as (_, cas):
        proof = await cas.range_proof(sample.file, ByteRange(100_000, 100_001))
        (window,) = proof.windows
        found = await cas.reconstruction(sample.file, window)
        assert found.offset == 0
        _, blocks = await read(cas, found)
        held = {(block.xorb, block.chunks.start + n): (block.hashes[n], len(block.chunk(block.chunks.start + n)))
                for block in blocks for n in range(len(block.chunks))}  # fmt: skip
        chunks = [held[term.xorb, index] for term in found.terms for index in range(term.chunks.start, term.chunks.end)]
        verify_range(proof, sample.file, len(sample.content), [chunks])


async def test_an_expired_url_is_told_and_a_new_reconstruction_helps(hub: TestHub) -> None:
    sample = Sample(hub)
    hub.faults.add(Fault("expire", origin="transfer", count=1))
    async with clients(hub) as (_, cas):
        found = await cas.reconstruction(sample.file, ByteRange(0, 1000))
        with pytest.raises(SignedUrlExpired):
            await read(cas, found)
        data, _ = await read(cas, await cas.reconstruction(sample.file, ByteRange(0, 1000)))
        assert data[:1000] == sample.content[:1000]


async def test_tokens_that_are_soon_over_are_replaced(hub: TestHub, mock_clock: trio.testing.MockClock) -> None:
    sample = Sample(hub)
    hub.options.token_lifetime_s = 80
    async with clients(hub) as (client, cas):
        for asked in (1, 2, 3):
            for _ in range(3):
                await cas.reconstruction(sample.file, ByteRange(0, 10))
            assert client._http.counters[HUB_TOKEN_REFRESHES] == asked
            mock_clock.jump(80 - EXPIRY_MARGIN_S)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("answer", origin="transfer", status=503, count=1),
        Fault("answer", origin="cas", status=500, count=1),
        rate_limited(0, origin="cas", count=1),
        rate_limited(0, origin="hub", path="xet-read-token", count=1),
        Fault("truncate", origin="transfer", after_bytes=5000, count=1),
        Fault("reset", origin="transfer", after_bytes=5000, count=1),
    ],
    ids=lambda fault: f"{fault.action}-{fault.origin}",
)
async def test_passing_faults_cost_one_retry_and_no_byte(hub: TestHub, fault: Fault) -> None:
    sample = Sample(hub)
    hub.faults.add(fault)
    async with clients(hub) as (client, cas):
        data, _ = await read(cas, await cas.reconstruction(sample.file, ByteRange(0, len(sample.content))))
        assert data == sample.content
        assert fault.fired == 1
        assert client._http.counters[NET_RETRIES] == 1


async def test_listings_and_plain_files(hub: TestHub) -> None:
    sample = Sample(hub)
    hub.options.page_size = 2
    async with clients(hub) as (client, _):
        info = await client.repo_info(REPO, "main")
        assert (info.repo, info.commit) == (REPO, sample.commit)
        entries = [entry async for page in client.tree_pages(REPO, info.commit, "") for entry in page.entries]
        assert sorted(entry.path for entry in entries) == ["README.md", "dir", "empty", "f.bin"]
        by_path: dict[str, TreeEntry] = {entry.path: entry for entry in entries}
        assert by_path["f.bin"].file_id == sample.file
        for span in (None, ByteRange(3, 500)):
            into = bytearray(len(sample.plain) if span is None else len(span))
            await client.fetch_file(REPO, info.commit, "README.md", span, len(sample.plain), memoryview(into))
            assert into == (sample.plain if span is None else sample.plain[span.start : span.end])
        into = bytearray(1)
        await client.fetch_file(REPO, info.commit, "dir/ü #?.txt", None, 1, memoryview(into))
        assert into == b"x"
        # The same content through the bridge, which redirects to signed storage.
        into = bytearray(70_000)
        await client.fetch_file(REPO, info.commit, "f.bin", ByteRange(5, 70_005), len(sample.content), memoryview(into))
        assert into == sample.content[5:70_005]


async def test_who_may_see_what(hub: TestHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Sample(hub)
    repo = hub.storage.require_repo("model", REPO.name)
    hub.accounts.add_token(CANARY, "visitor", "read")

    told: list[str] = []

    async def outcome(token: str | None, revision: str = "main", repo: RepoId = REPO) -> type[XetfsError] | None:
        async with clients(hub, token) as (client, _):
            try:
                await client.check_readable(await client.repo_info(repo, revision))
            except XetfsError as error:
                told.append(f"{error} {error!r}")
                return type(error)
            return None

    assert await outcome(None) is None
    assert await outcome(CANARY, "no-such-branch") is RevisionNotFound
    assert await outcome(None, repo=RepoId("model", "o/missing")) is RepoNotFound
    assert await outcome(CANARY, repo=RepoId("model", "o/missing")) is RepoNotFound
    assert await outcome("hf_wrong") is AuthRequired
    hub.storage.update_repo(repo, gated="manual")
    assert await outcome(None) is AuthRequired
    assert await outcome(CANARY) is AccessDenied
    hub.accounts.grant_access(hub.storage.require_repo("model", REPO.name), "visitor")
    assert await outcome(CANARY) is None
    hub.storage.update_repo(repo, gated="", private=True)
    assert await outcome(None) is RepoNotFound
    assert await outcome(CANARY) is RepoNotFound
    hub.storage.update_repo(repo, private=False, disabled=True)
    assert await outcome(CANARY) is AccessDenied
    assert len(told) == 9
    assert CANARY not in caplog.text + "".join(told)


async def test_a_missing_folder_or_file_is_not_found(hub: TestHub) -> None:
    sample = Sample(hub)
    async with clients(hub) as (client, _):
        with pytest.raises(EntryNotFound):
            await anext(client.tree_pages(REPO, sample.commit, "nowhere"))
        with pytest.raises(EntryNotFound):
            await client.fetch_file(REPO, sample.commit, "nowhere.txt", None, 3, memoryview(bytearray(3)))
