"""The engine over a test hub: repos as trees, what is asked for and what is kept."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from flat_settings import flat_settings, open_engine

from xetfs.credentials import FixedToken
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    IsADirectory,
    NotADirectory,
    NotFound,
    Offline,
    RepoNotFound,
    RevisionNotFound,
    XetfsError,
)
from xetfs.hub.client import HubClient
from xetfs.net.client import Network
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.shelf import Shelf
from xetfs.repo import Engine, Node, RepoView
from xetfs.repo import engine as engine_module
from xetfs.secret import Secret
from xetfs.telemetry import READER_SERVED_BYTES
from xetfs.testhub import Fault, StoredFile, TestHub, open_test_hub

OpenEngine = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def engine(hub: TestHub, tmp_path: Path) -> OpenEngine:
    """engine(**settings): an engine with the cache directory of this test."""

    @asynccontextmanager
    async def make(*, token: Secret | None = None, **settings: object) -> AsyncIterator[Engine]:
        if token is not None:
            settings["credentials"] = FixedToken(token)
        chosen = flat_settings(**{"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", **settings})  # type: ignore[arg-type]
        async with open_engine(chosen) as opened:
            yield opened

    return make


def xet_file(hub: TestHub, content: bytes) -> StoredFile:
    chunks = [content[i : i + 50_000] for i in range(0, len(content), 50_000)]
    return hub.xet.add_file_from_chunks(chunks)[1]


def make_repo(hub: TestHub, name: str = "acme/demo", *, kind: str = "model", private: bool = False) -> dict[str, bytes]:
    """A repo with files of every kind; their content by path."""
    content = random.Random(3).randbytes(400_000)
    files: dict[str, bytes | StoredFile] = {
        "README.md": b"# demo\n",
        "empty": b"",
        "data/deep/er/model.bin": xet_file(hub, content),
        "data/ünïcödé ☃.txt": b"snow",
        "%41#?&+ .txt": b"percent",
    }
    repo = hub.storage.create_repo(kind, name, private=private)
    hub.storage.commit_files(repo, files)
    return {path: value if isinstance(value, bytes) else content for path, value in files.items()}


async def walk(view: RepoView, node: Node) -> dict[str, Node]:
    found = {}
    for child in await view.children(node):
        if child.is_directory:
            found.update(await walk(view, child))
        else:
            found[child.path] = child
    return found


async def read(view: RepoView, node: Node) -> bytes:
    reader = view.open_file(node)
    try:
        return bytes(await reader.read(ByteRange(0, node.size)))
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("kind", "name"), [("model", "acme/demo"), ("dataset", "datasets/acme/demo"), ("space", "spaces/acme/demo")]
)
async def test_every_file_of_every_kind_of_repo(hub: TestHub, engine: OpenEngine, kind: str, name: str) -> None:
    files = make_repo(hub, kind=kind)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse(name))
        nodes = await walk(view, view.root)
        assert {path: await read(view, node) for path, node in nodes.items()} == files
        assert list((await walk(view, view.root)).values()) == list(nodes.values())
        hub.log.reset()
        assert {path: await read(view, node) for path, node in nodes.items()} == files
        assert hub.requests() == []


async def test_a_second_engine_asks_only_what_the_revision_is(hub: TestHub, engine: OpenEngine) -> None:
    files = make_repo(hub)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        for node in (await walk(view, view.root)).values():
            await read(view, node)
    hub.log.reset()
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert {path: await read(view, node) for path, node in (await walk(view, view.root)).items()} == files
    assert [record.path for record in hub.requests()] == ["/api/models/acme/demo/revision/main"]
    hub.log.reset()
    async with engine(offline=True) as opened:
        again = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert again.commit == view.commit
        assert {path: await read(again, node) for path, node in (await walk(again, again.root)).items()} == files
        with pytest.raises(Offline):
            await opened.open_repo(RepoRef.parse("acme/other"))
    assert hub.requests() == []


def tokens_asked(hub: TestHub) -> int:
    return sum("/xet-read-token/" in record.path for record in hub.requests())


async def test_the_token_for_the_cas_comes_with_the_first_listing(hub: TestHub, engine: OpenEngine) -> None:
    """So that the first read need not wait for it; a repo that was listed before may have all its content in the cache."""
    make_repo(hub)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert tokens_asked(hub) == 0, "nothing in the root is in Xet"
        nodes = await walk(view, view.root)
        with trio.fail_after(5):
            while not tokens_asked(hub):
                await trio.sleep(0.01)
        await read(view, nodes["data/deep/er/model.bin"])
        assert tokens_asked(hub) == 1
    hub.log.reset()
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        nodes = await walk(view, view.root)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert tokens_asked(hub) == 0


async def test_a_bug_on_the_way_to_that_token_costs_nothing_but_a_line_in_the_log(
    hub: TestHub, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = make_repo(hub)

    async def xet_token(*_: object) -> object:
        raise ValueError("a bug")

    async with engine() as opened:
        with monkeypatch.context() as patch:
            patch.setattr(HubClient, "xet_token", xet_token)
            view = await opened.open_repo(RepoRef.parse("acme/demo"))
            nodes = await walk(view, view.root)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert "getting a CAS token ahead of time failed" in caplog.text
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert await read(view, nodes["README.md"]) == files["README.md"]


async def test_the_hub_unreachable_means_the_last_known_commit(
    hub: TestHub, engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    make_repo(hub)
    async with engine() as opened:
        commit = (await opened.open_repo(RepoRef.parse("acme/demo"))).commit
    hub.servers["hub"].refuse()
    with caplog.at_level(logging.WARNING):
        async with engine(attempts_max=1) as opened:
            assert (await opened.open_repo(RepoRef.parse("acme/demo"))).commit == commit
    assert "serving the last known commit" in caplog.text


async def test_names_lead_to_their_commit(hub: TestHub, engine: OpenEngine) -> None:
    make_repo(hub)
    repo = hub.storage.require_repo("model", "acme/demo")
    hub.storage.add_old_name(repo, "gpt2")
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("gpt2"))
        assert str(view.repo) == "acme/demo"
        by_commit = await opened.open_repo(RepoRef.parse(f"acme/demo@{view.commit}"))
        assert by_commit.commit == view.commit


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("acme/absent", RepoNotFound),
        ("acme/demo@absent", RevisionNotFound),
        ("acme/demo/absent", EntryNotFound),
        ("acme/demo/README.md", EntryNotFound),
        ("datasets/acme/demo", RepoNotFound),
    ],
)
async def test_what_is_not_there(hub: TestHub, engine: OpenEngine, ref: str, error: type[Exception]) -> None:
    make_repo(hub)
    async with engine() as opened:
        with pytest.raises(error):
            await opened.open_repo(RepoRef.parse(ref))


async def test_a_subfolder_is_a_root_of_its_own(hub: TestHub, engine: OpenEngine) -> None:
    make_repo(hub)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo/data/deep"))
        assert [node.name for node in await view.children(view.root)] == ["er"]
        with pytest.raises(EntryNotFound):
            await view.lookup(view.root, "README.md")


async def test_private_and_gated_repos_fail_when_they_are_opened(hub: TestHub, engine: OpenEngine) -> None:
    hub.accounts.add_user("owner")
    hub.accounts.add_user("guest")
    hub.accounts.add_token("hf_owner", "owner", "write")
    hub.accounts.add_token("hf_guest", "guest", "read")
    make_repo(hub, "owner/secret", private=True)
    make_repo(hub, "owner/gated")
    hub.storage.update_repo(hub.storage.require_repo("model", "owner/gated"), gated="manual")
    async with engine(token=Secret("hf_owner")) as opened:
        await opened.open_repo(RepoRef.parse("owner/secret"))
        await opened.open_repo(RepoRef.parse("owner/gated"))
    for token, error in [(Secret("hf_guest"), AccessDenied), (None, AuthRequired)]:
        async with engine(token=token) as opened:
            with pytest.raises(RepoNotFound):
                await opened.open_repo(RepoRef.parse("owner/secret"))
            with pytest.raises(error):
                await opened.open_repo(RepoRef.parse("owner/gated"))
        async with engine(token=token, offline=True) as opened:
            for name in ("owner/secret", "owner/gated"):
                with pytest.raises(Offline):
                    await opened.open_repo(RepoRef.parse(name))
    async with engine(token=Secret("hf_owner"), offline=True) as opened:
        await opened.open_repo(RepoRef.parse("owner/secret"))


async def test_names_that_cannot_be_served_are_left_out(
    hub: TestHub, engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    repo = hub.storage.create_repo("model", "acme/odd")
    long = "x" * 256
    hub.storage.commit_files(repo, {"good": b"1", long: b"2", "a\0b": b"3", "new\nline": b"4", "ok/..": b"5", "é" * 127: b"6"})
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/odd"))
        assert [node.name for node in await view.children(view.root)] == ["good", "new\nline", "ok", "é" * 127]
        assert len(await view.children(await view.lookup(view.root, "ok"))) == 0
    assert "cannot be served" in caplog.text


async def test_wrong_kinds_of_nodes(hub: TestHub, engine: OpenEngine) -> None:
    make_repo(hub)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        readme = await view.lookup(view.root, "README.md")
        with pytest.raises(NotADirectory):
            await view.children(readme)
        with pytest.raises(NotADirectory):
            await view.lookup(readme, "x")
        with pytest.raises(IsADirectory):
            view.open_file(view.root)
        with pytest.raises(EntryNotFound):
            await view.lookup(view.root, "absent")
        details = view.describe(await view.lookup(view.root, "data"))
        assert (details.is_directory, details.size, details.level) == (True, 0, None)


async def test_a_large_directory_is_listed_once_for_all_who_ask(hub: TestHub, engine: OpenEngine) -> None:
    repo = hub.storage.create_repo("dataset", "acme/many")
    hub.storage.commit_files(repo, {f"files/{i:05}.txt": b"x" for i in range(5000)})
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("datasets/acme/many"))
        hub.log.reset()
        folder = await view.lookup(view.root, "files")
        counts = []

        async def count() -> None:
            counts.append(len(await view.children(folder)))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(count)
        assert counts == [5000] * 10
        assert len(hub.requests()) == 5


async def test_memory_is_given_back_when_nobody_reads(hub: TestHub, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(hub)
    monkeypatch.setattr(engine_module, "HOUSEKEEPING_INTERVAL_S", 0.01)
    monkeypatch.setattr(engine_module, "IDLE_TURNS", 3)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        node = (await walk(view, view.root))["data/deep/er/model.bin"]
        content = await read(view, node)
        assert opened.counters[READER_SERVED_BYTES] == node.size
        assert opened.shelf.budget.held_most > 0
        with trio.fail_after(10):
            while opened.shelf.budget.held:
                await trio.sleep(0.01)
        assert await read(view, node) == content


async def test_closing_does_not_wait_for_a_store_that_takes_no_record(
    hub: TestHub, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is what many others that write to the same cache come to, each for a moment."""
    make_repo(hub)
    monkeypatch.setattr(engine_module, "FLUSH_TIMEOUT_S", 0.1)
    with trio.fail_after(10):
        async with engine() as opened:
            view = await opened.open_repo(RepoRef.parse("acme/demo"))
            node = (await walk(view, view.root))["data/deep/er/model.bin"]
            monkeypatch.setattr(Shelf, "put_record", lambda *_: trio.sleep_forever())
            await read(view, node)
    assert "closed before the store had taken what was learnt" in caplog.text
    monkeypatch.undo()
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        node = (await walk(view, view.root))["data/deep/er/model.bin"]
        assert len(await read(view, node)) == node.size


async def test_housekeeping_closes_idle_connections(hub: TestHub, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "HOUSEKEEPING_INTERVAL_S", 0.01)
    asked = trio.Event()
    monkeypatch.setattr(Network, "close_expired", lambda self: asked.set())
    async with engine():
        with trio.fail_after(10):
            await asked.wait()


async def test_a_failure_of_housekeeping_costs_a_turn_and_not_the_engine(
    hub: TestHub, engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_repo(hub)
    monkeypatch.setattr(engine_module, "HOUSEKEEPING_INTERVAL_S", 0.01)
    failed = trio.Event()

    async def flush(self: Engine) -> None:
        failed.set()
        raise RuntimeError("a bug")

    async with engine() as opened:
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "flush", flush)
            await failed.wait()
            await trio.testing.wait_all_tasks_blocked()
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert await read(view, await view.lookup(view.root, "README.md")) == b"# demo\n"
    assert "housekeeping failed" in caplog.text


def spoil_tree(hub: TestHub, change: Callable[[list[dict[str, object]]], None]) -> None:
    """Change every page of a listing before it is sent."""

    def rewrite(page: list[dict[str, object]]) -> list[dict[str, object]]:
        change(page)
        return page

    hub.faults.add(Fault("rewrite", origin="hub", path="/tree/", rewrite=rewrite))


async def test_odd_entries_are_left_out_with_one_line_in_the_log(
    hub: TestHub, engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    repo = hub.storage.create_repo("model", "acme/odd")
    hub.storage.commit_files(repo, {"good": b"1"})
    odd: list[dict[str, object]] = [
        {"type": "unknown", "path": "vendored", "oid": "1" * 40, "size": 0},
        {"type": "file", "path": "", "oid": "1" * 40, "size": 0},
        {"type": "file", "path": "negative", "oid": "1" * 40, "size": -1},
    ]
    spoil_tree(hub, lambda page: page.extend(odd))
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/odd"))
        assert [node.name for node in await view.children(view.root)] == ["good"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "count=3" in lines[0]
    assert "vendored" in lines[0]
    async with engine(offline=True) as opened:
        view = await opened.open_repo(RepoRef.parse("acme/odd"))
        assert [node.name for node in await view.children(view.root)] == ["good"]


async def test_a_file_whose_hash_is_masked_is_listed_and_read(hub: TestHub, engine: OpenEngine) -> None:
    files = make_repo(hub)

    def mask(page: list[dict[str, object]]) -> None:
        for entry in page:
            if "xetHash" in entry:
                entry["xetHash"] = "*" * 64

    spoil_tree(hub, mask)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        nodes = await walk(view, view.root)
        assert {path: await read(view, node) for path, node in nodes.items()} == files


async def test_without_a_time_of_change_it_is_that_of_the_mount(hub: TestHub, engine: OpenEngine) -> None:
    make_repo(hub)
    hub.faults.add(Fault("rewrite", path="/revision/", members={"lastModified": None}))
    before = int(time.time())
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert before <= view.modified_s <= time.time()
    async with engine(offline=True) as opened:
        again = await opened.open_repo(RepoRef.parse("acme/demo"))
        assert view.modified_s <= again.modified_s


async def test_a_text_of_several_readings_is_what_the_hub_knows(hub: TestHub, engine: OpenEngine) -> None:
    repo = hub.storage.create_repo("dataset", "acme/data")
    commits = {"main": hub.storage.commit_files(repo, {"icons@2x/a": b"a", "v1/train/x": b"x", "main.txt": b"m"}).oid}
    for ref, files in {
        "refs/heads/v1@2": {"b": b"b"},
        "refs/heads/feature/x": {"sub/c": b"c"},
        "refs/convert/parquet": {"default/train/0.parquet": b"p"},
        "refs/tags/v1": {"train/d": b"d"},
    }.items():
        hub.storage.set_ref(repo, ref, commits["main"])
        commits[ref] = hub.storage.commit_files(repo, files, deleted_folders=["."], branch=ref).oid
    readings = {
        "datasets/acme/data@v1@2": ("refs/heads/v1@2", ["b"]),
        "datasets/acme/data@feature/x": ("refs/heads/feature/x", ["sub"]),
        "datasets/acme/data@feature/x/sub": ("refs/heads/feature/x", ["c"]),
        "datasets/acme/data@feature%2Fx/sub": ("refs/heads/feature/x", ["c"]),
        "datasets/acme/data/sub@feature/x": ("refs/heads/feature/x", ["c"]),
        "datasets/acme/data@~parquet": ("refs/convert/parquet", ["default"]),
        "datasets/acme/data@~parquet/default/train": ("refs/convert/parquet", ["0.parquet"]),
        "datasets/acme/data@refs/convert/parquet/default/train": ("refs/convert/parquet", ["0.parquet"]),
        "datasets/acme/data@refs%2Fconvert%2Fparquet": ("refs/convert/parquet", ["default"]),
        "datasets/acme/data@v1/train": ("refs/tags/v1", ["d"]),
        "datasets/acme/data/train@v1": ("refs/tags/v1", ["d"]),
        "datasets/acme/data/icons@2x": ("main", ["a"]),
        "datasets/acme/data@main/v1/train": ("main", ["x"]),
    }
    for offline in (False, True):
        async with engine(offline=offline) as opened:
            for text, (ref, names) in readings.items():
                view = await opened.open_repo(RepoRef.parse(text))
                assert (view.commit, [node.name for node in await view.children(view.root)]) == (commits[ref], names), text
    hub.log.reset()
    async with engine() as opened:
        await opened.open_repo(RepoRef.parse("datasets/acme/data/icons@2x"))
        assert len(hub.requests()) == 1, "the reading that led to a commit before is tried first"
        with pytest.raises(RevisionNotFound):
            await opened.open_repo(RepoRef.parse("datasets/acme/data@absent/there"))
        with pytest.raises(EntryNotFound, match="absent"):
            await opened.open_repo(RepoRef.parse("datasets/acme/data@main/absent"))


@pytest.mark.parametrize(
    "options",
    [
        {"path_prefix": "/artifactory/api/hf"},
        {"link_url": "https://huggingface.co"},
        {"path_prefix": "/artifactory/api/hf", "link_url": "https://huggingface.co"},
        {"path_prefix": "/artifactory/api/hf", "plain_files": "direct"},
    ],
)
async def test_an_endpoint_with_a_path_and_a_mirror_that_hands_on_links(
    hub: TestHub, engine: OpenEngine, options: dict[str, str]
) -> None:
    hub.options.page_size = 2
    for name, value in options.items():
        setattr(hub.options, name, value)
    files = make_repo(hub)
    hub.storage.add_old_name(hub.storage.require_repo("model", "acme/demo"), "gpt2")
    async with engine(endpoint=hub.endpoint) as opened:
        view = await opened.open_repo(RepoRef.parse("gpt2"))
        nodes = await walk(view, view.root)
        assert {path: await read(view, node) for path, node in nodes.items()} == files


def hide(hub: TestHub, name: str) -> None:
    hub.storage.update_repo(hub.storage.require_repo("model", name), private=True)


@pytest.mark.parametrize("how", ["deleted", "made private", "squashed away"])
async def test_what_the_commit_lists_never_becomes_a_missing_entry(hub: TestHub, engine: OpenEngine, how: str) -> None:
    """A mirror job would take that for a deletion, and delete its copy."""
    make_repo(hub)
    repo = hub.storage.require_repo("model", "acme/demo")
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        folder = await view.lookup(view.root, "data")
        if how == "deleted":
            hub.storage.delete_repo(repo)
        elif how == "made private":
            hide(hub, "acme/demo")
        else:
            with hub.storage.transaction() as database:
                database.execute("DELETE FROM commits WHERE repo = ?", (repo.id,))
        for ask in (view.children(folder), view.lookup(folder, "deep")):
            with pytest.raises(XetfsError, match="is listed") as caught:
                await ask
            assert not isinstance(caught.value, NotFound)
        with pytest.raises(EntryNotFound):
            await view.lookup(view.root, "absent")


async def test_rights_are_judged_at_each_mount(hub: TestHub, engine: OpenEngine) -> None:
    hub.accounts.add_token("hf_owner", "acme", "write")
    make_repo(hub)
    async with engine() as opened:
        commit = (await opened.open_repo(RepoRef.parse("acme/demo"))).commit
    by_commit = RepoRef.parse(f"acme/demo@{commit}")
    async with engine(offline=True) as opened:
        assert (await opened.open_repo(by_commit)).commit == commit
    hide(hub, "acme/demo")
    async with engine(offline=True) as opened:
        assert (await opened.open_repo(by_commit)).commit == commit, "nobody here can know"
    async with engine() as opened:
        with pytest.raises(RepoNotFound):
            await opened.open_repo(by_commit)
    for ref in (by_commit, RepoRef.parse("acme/demo")):
        async with engine(offline=True) as opened:
            with pytest.raises(Offline, match="refused acme/demo when it was last asked"):
                await opened.open_repo(ref)
    async with engine(token=Secret("hf_owner")) as opened:
        await opened.open_repo(by_commit)
    async with engine(token=Secret("hf_owner"), offline=True) as opened:
        await opened.open_repo(by_commit)
    async with engine(offline=True) as opened:
        with pytest.raises(Offline):
            await opened.open_repo(by_commit)
    hub.storage.update_repo(hub.storage.require_repo("model", "acme/demo"), private=False)
    for offline in (False, True):
        async with engine(offline=offline) as opened:
            assert (await opened.open_repo(by_commit)).commit == commit


async def test_a_wrong_token_takes_nothing_from_others(hub: TestHub, engine: OpenEngine) -> None:
    hub.accounts.add_user("acme")
    make_repo(hub)
    async with engine() as opened:
        await opened.open_repo(RepoRef.parse("acme/demo"))
    async with engine(token=Secret("hf_wrong")) as opened:
        with pytest.raises(AuthRequired):
            await opened.open_repo(RepoRef.parse("acme/demo"))
    async with engine(offline=True) as opened:
        await opened.open_repo(RepoRef.parse("acme/demo"))


async def test_offline_a_repo_is_found_by_its_old_and_its_new_name(hub: TestHub, engine: OpenEngine) -> None:
    files = make_repo(hub)
    async with engine() as opened:
        view = await opened.open_repo(RepoRef.parse("acme/demo"))
        for node in (await walk(view, view.root)).values():
            await read(view, node)
    hub.storage.move_repo(hub.storage.require_repo("model", "acme/demo"), "acme/renamed")
    async with engine() as opened:
        await opened.open_repo(RepoRef.parse("acme/demo"))
    for name in ("acme/demo", "acme/renamed", f"acme/renamed@{view.commit}"):
        async with engine(offline=True) as opened:
            view = await opened.open_repo(RepoRef.parse(name))
            assert {path: await read(view, node) for path, node in (await walk(view, view.root)).items()} == files
