"""Several Hubs and several tokens in one engine: contents are shared, rights are not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flat_settings import flat_settings

from xetfs.credentials import FixedToken
from xetfs.errors import AuthRequired, RepoNotFound, XetfsError
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import Engine, RepoView, open_engine
from xetfs.secret import Secret
from xetfs.telemetry import CAS_FETCH_BYTES, HUB_BYTES
from xetfs.testhub import TestHub, open_test_hub

CONTENT = random.Random(5).randbytes(3_000_000)
OLD = random.Random(6).randbytes(300_000)
NAME, OLD_NAME = "model.bin", "old.bin"
FIRST, LAST = ByteRange(0, 10_000), ByteRange(2_900_000, 2_910_000)


def add_repo(hub: TestHub, name: str, token: str) -> None:
    """A private repo with the same two files, and a user with a token who may read it."""
    chunks = [CONTENT[at : at + 60_000] for at in range(0, len(CONTENT), 60_000)]
    spooled = hub.storage.temporary / "old"
    spooled.write_bytes(OLD)
    owner = name.partition("/")[0]
    hub.accounts.add_user(owner)
    hub.accounts.add_token(token, owner, "read")
    old = hub.storage.add_lfs(hashlib.sha256(OLD).hexdigest(), len(OLD), spooled)
    repo = hub.storage.create_repo("model", name, private=True)
    hub.storage.commit_files(repo, {NAME: hub.xet.add_file_from_chunks(chunks)[1], OLD_NAME: old})


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        add_repo(hub, "ann/one", "hf_ann")
        add_repo(hub, "bob/two", "hf_bob")
        yield hub


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "other") as hub:
        add_repo(hub, "eve/three", "hf_eve")
        yield hub


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    settings = flat_settings(cache_dir=tmp_path / "cache", ahead_bytes_max=0, attempts_max=2, whole_checks=False)
    async with open_engine(settings) as engine:
        yield engine


def account(hub: TestHub, token: str) -> Hub:
    return Hub(hub.endpoint, FixedToken(Secret(token)))


async def read(view: RepoView, span: ByteRange, name: str = NAME) -> bytes:
    reader = view.open_file(await view.lookup(view.root, name))
    try:
        return bytes(await reader.read(span))
    finally:
        reader.close()


async def test_a_token_opens_only_what_it_may(hub: TestHub, other: TestHub, engine: Engine) -> None:
    await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))
    for account_of in (account(hub, "hf_bob"), account(other, "hf_eve"), Hub(hub.endpoint)):
        with pytest.raises(RepoNotFound):
            await engine.open_repo(RepoRef.parse("ann/one"), account_of)


async def test_a_content_that_a_second_hub_has_is_not_fetched_from_it(hub: TestHub, other: TestHub, engine: Engine) -> None:
    one = await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))
    three = await engine.open_repo(RepoRef.parse("eve/three"), account(other, "hf_eve"))
    for name, content in ((NAME, CONTENT), (OLD_NAME, OLD)):
        whole = ByteRange(0, len(content))
        assert await read(one, whole, name) == content
        before = engine.counters[CAS_FETCH_BYTES]
        other.log.reset()
        assert await read(three, whole, name) == content
        assert engine.counters[CAS_FETCH_BYTES] == before
        paths = [record.path for record in other.requests()]
        assert not [path for path in paths if "/xorbs" in path or "transfer" in path], paths
        assert sum(record.bytes_sent for record in other.requests()) < 5000, "it is asked whether the file may be read"


async def test_a_repo_that_is_deleted_takes_nothing_from_others(hub: TestHub, engine: Engine) -> None:
    one = await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))
    two = await engine.open_repo(RepoRef.parse("bob/two"), account(hub, "hf_bob"))
    kept = one.open_file(await one.lookup(one.root, NAME))
    assert await kept.read(FIRST) == CONTENT[: FIRST.end]
    hub.storage.delete_repo(hub.storage.require_repo("model", "ann/one"))
    assert await read(two, LAST) == CONTENT[LAST.start : LAST.end]
    assert await read(two, ByteRange(1_000_000, 1_010_000)) == CONTENT[1_000_000:1_010_000]
    assert kept.read_nowait(LAST) is None
    with pytest.raises(XetfsError):
        await kept.read(LAST)
    kept.close()
    with pytest.raises(RepoNotFound):
        await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))


async def test_a_token_that_is_revoked_reads_nothing_that_another_fetches(hub: TestHub, engine: Engine) -> None:
    one = await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))
    two = await engine.open_repo(RepoRef.parse("bob/two"), account(hub, "hf_bob"))
    hub.accounts.remove_token("hf_bob")  # a token for the CAS, which it may have, stays good until it ends
    assert await read(one, FIRST, OLD_NAME) == OLD[: FIRST.end]
    with pytest.raises((AuthRequired, RepoNotFound)):
        await read(two, FIRST, OLD_NAME)
    assert await read(one, FIRST, OLD_NAME) == OLD[: FIRST.end]


async def test_each_right_has_its_own_signed_urls(hub: TestHub, engine: Engine) -> None:
    """The kept URL of a file outside Xet is for those who were sent there."""
    one = await engine.open_repo(RepoRef.parse("ann/one"), account(hub, "hf_ann"))
    two = await engine.open_repo(RepoRef.parse("bob/two"), account(hub, "hf_bob"))
    assert await read(one, ByteRange(0, 1000), OLD_NAME) == OLD[:1000]
    hub.accounts.remove_token("hf_bob")
    before = engine.counters[HUB_BYTES]
    with pytest.raises(XetfsError):
        await read(two, ByteRange(200_000, 201_000), OLD_NAME)
    assert engine.counters[HUB_BYTES] - before < 5000
