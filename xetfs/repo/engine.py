"""One engine for all that a process shows of the Hub: the wiring, and the one nursery whose tasks outlive the calls that start
them.

Closing runs in reverse order of opening: readers stop loading ahead, maps and blocks on their way are written, the connections
close, the store closes last.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import trio

from xetfs import telemetry
from xetfs.cas.client import CasClient
from xetfs.cas.facts import ServerFacts
from xetfs.detached import run_detached
from xetfs.errors import StoreFailed
from xetfs.hub.client import HubClient
from xetfs.hub.endpoint import Hub
from xetfs.net.client import Network, open_network
from xetfs.protocol import formats
from xetfs.protocol.memory import release_unused
from xetfs.protocol.names import RepoRef
from xetfs.protocol.tree import RepoInfo, TreeEntry
from xetfs.reader.content import FileContent
from xetfs.reader.fallback import Detours, FallbackSource, Pieces, Places
from xetfs.reader.fetcher import Fetcher
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.proofs import ProofPolicy
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Names, PlainSource, Source, key_of
from xetfs.reader.whole import WholeChecker
from xetfs.reader.xet_source import XetSource
from xetfs.repo.listing import Lister
from xetfs.repo.readings import open_first
from xetfs.repo.registry import ViewKey, ViewRegistry
from xetfs.repo.revisions import Revisions
from xetfs.repo.view import Node, RepoView
from xetfs.settings import Settings, StoreSettings
from xetfs.store.api import ChunkStore, StoreStatistics
from xetfs.store.disk import DiskStore
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

CONTENTS_KEPT_MAX: Final = 256
"""Contents that are kept when nobody has them open, with what is known of them, for the next opening."""
LEVELS_KEPT_MAX: Final = 50_000
"""Contents of which only the level is kept, for `status` and attributes: some 10 MiB."""
HOUSEKEEPING_INTERVAL_S: Final = 1.0
"""How often what was learnt about files is given to the store; a crash loses no more than that, and only time."""
FLUSH_TIMEOUT_S: Final = 10.0
"""Longest that closing waits for what was learnt about files to be written: others may be writing to the same cache, and what is
not written is learnt again one day."""
STORE_OPEN_S: Final = 20.0
"""Longest wait for the store to open: milliseconds on a disk that answers, some seconds on one that is busy."""
STORE_CLOSE_S: Final = 15.0
"""Longest wait for the store to close. What it is doing then is finished first, which takes longer than this only on a disk that
hangs."""
IDLE_TURNS: Final = 10
"""Turns of housekeeping without a read after which what is in memory, and on disk too, is dropped."""


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """Bytes on the wire and decoded, held by all readers together: now, at most so far, and at most ever."""

    bytes: int
    bytes_most: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """files: number of opened files by verification level; None: of which nothing is known. detours: files, repos and
    servers whose files in Xet are read through the Hub's resolve route, and why."""

    counters: Mapping[str, int]
    store: StoreStatistics
    memory: MemoryStatistics
    files: Mapping[Level | None, int]
    detours: Mapping[str, str]


class _HubAccess:
    """What the repos of one Hub share: its clients, and what is known of it."""

    def __init__(self, hub: Hub, network: Network, shelf: Shelf, settings: Settings) -> None:
        self.hub = hub
        self.http = network.client(hub.endpoint, hub.hosts)
        self.client = HubClient(self.http, hub)
        self.revisions = Revisions(hub, self.client, shelf, settings)
        self.detours = Detours(xet=settings.xet)


class Engine:
    """What repos and files of one process share: store, memory, connections, and tasks. Made by open_engine. Event loop only."""

    def __init__(self, settings: Settings, *, network: Network, shelf: Shelf, nursery: trio.Nursery, counters: Counters) -> None:
        self.settings = settings
        self.counters = counters
        self.shelf = shelf
        self._network = network
        self._hubs: WeakValueDictionary[Hub, _HubAccess] = WeakValueDictionary()  # held by their views
        self._views = ViewRegistry()
        self._facts = ServerFacts()
        self._nursery = nursery
        self._fetcher = Fetcher(nursery, shelf, settings.reader)
        self._contents: OrderedDict[str, tuple[FileContent, Pieces]] = OrderedDict()
        self._levels: OrderedDict[str, Level | None] = OrderedDict()
        self._proofs = ProofPolicy(settings.reader.proof_timeout_s, counters)
        self._whole = WholeChecker(shelf, nursery, counters)

    async def open_repo(self, ref: RepoRef, hub: Hub) -> RepoView:
        """Return the repo at the commit that `ref` is now at a Hub, its root directory listed: the same view while one is held.

        Of a ref that can be read in several ways, the first reading that leads to a directory. Raises RepoNotFound,
        RevisionNotFound, AuthRequired, AccessDenied, Offline, Unavailable and what else stands between these credentials and the
        bytes; EntryNotFound or NotADirectory if there is no such subfolder.
        """
        access = self._hubs.get(hub)
        if access is None:
            access = self._hubs[hub] = _HubAccess(hub, self._network, self.shelf, self.settings)
        return await open_first(await access.revisions.known_first(ref.readings), partial(self._open_reading, access))

    async def open_path(self, ref: RepoRef, hub: Hub) -> tuple[RepoView, Node]:
        """Return the whole repo that `ref` is of, and the file or directory in it at its subfolder. Raises as `open_repo`."""

        async def open_one(reading: RepoRef) -> tuple[RepoView, Node]:
            view = await self.open_repo(RepoRef(reading.repo, revision=reading.revision), hub)
            return view, await view.find(reading.subfolder)

        return await open_first(ref.readings, open_one)

    async def _open_reading(self, access: _HubAccess, ref: RepoRef) -> RepoView:
        info = await access.revisions.resolve(ref)
        key = ViewKey(access.hub, ref, info.repo, info.commit)
        view = self._views.view(key, partial(self._make_view, access, ref, info), partial(self._make_client, access, info))
        await view.children(view.root)
        self._views.keep(key, view)
        return view

    def _make_client(self, access: _HubAccess, info: RepoInfo) -> CasClient:
        return CasClient(access.http, partial(access.client.xet_token, info.repo, info.commit), facts=self._facts)

    def _make_view(self, access: _HubAccess, ref: RepoRef, info: RepoInfo, cas: CasClient) -> RepoView:
        lister = Lister(
            access.client,
            self.shelf,
            access.hub.endpoint,
            info.repo,
            info.commit,
            on_new=partial(self._prepare, access, info, cas),
            nursery=self._nursery,
        )
        return RepoView(
            ref,
            info,
            hub=access.hub,
            quotas=access.client.quotas,
            lister=lister,
            shelf=self.shelf,
            open_reader=partial(self._reader, access, info, cas),
            level_of=partial(self._level_of, info),
            nursery=self._nursery,
        )

    def _prepare(self, access: _HubAccess, info: RepoInfo, cas: CasClient) -> None:
        """Ask for a token for the CAS: the first read need not wait for it."""
        if not access.detours.on(_places("", info, cas)):
            run_detached(self._nursery, cas.prepare, "getting a CAS token ahead of time")

    def _reader(self, access: _HubAccess, info: RepoInfo, cas: CasClient, entry: TreeEntry) -> FileReader:
        """A reader of a file, of the content that is shared by all views that have it."""
        content, pieces = self._contents.get(key_of(entry, info.repo, info.commit)) or (None, Pieces())
        source = self._source(access, info, cas, entry, pieces)
        if content is None or content.size != entry.size:
            content = FileContent(
                source,
                entry.size,
                shelf=self.shelf,
                nursery=self._nursery,
                settings=self.settings,
                counters=self.counters,
                layout=formats.probe(entry.path, entry.size),
            )
            self._drop_idle_contents()  # before the new one is among them: nobody has opened it yet
            self._contents[source.key] = (content, pieces)
        self._contents.move_to_end(source.key)
        return FileReader(content, content.accesses.of(cas, source))

    def _source(self, access: _HubAccess, info: RepoInfo, cas: CasClient, entry: TreeEntry, pieces: Pieces) -> Source:
        verify = self.settings.reader.verify
        plain = PlainSource(entry, access.client, info.repo, info.commit, self.shelf, self.counters, verify=verify)
        if entry.file_id is None or not entry.size:
            return plain
        xet = XetSource(
            entry.file_id,
            entry.size,
            cas=cas,
            fetcher=self._fetcher,
            shelf=self.shelf,
            nursery=self._nursery,
            verify=verify,
            policy=self._proofs,
            counters=self.counters,
            names=Names.of(entry),
        )
        places = partial(_places, xet.key, info, cas)
        return FallbackSource(xet, plain, access.detours, places, self.counters, size=entry.size, verify=verify, pieces=pieces)

    def _drop_idle_contents(self) -> None:
        excess = len(self._contents) - CONTENTS_KEPT_MAX
        if excess > 0:
            for key in [key for key, (content, _) in self._contents.items() if content.idle][:excess]:
                self._levels[key] = _level_of_known(self._contents.pop(key)[0])
            while len(self._levels) > LEVELS_KEPT_MAX:
                self._levels.popitem(last=False)

    def _contents_now(self) -> list[FileContent]:
        return [content for content, _ in self._contents.values()]

    def _level_of(self, info: RepoInfo, entry: TreeEntry) -> Level | None:
        """Lowest verification level of what this process knows of a file, or None if that is nothing."""
        key = key_of(entry, info.repo, info.commit)
        if key in self._contents:
            return _level_of_known(self._contents[key][0])
        return self._levels.get(key) if entry.size else Level.FILE

    async def wait_served(self) -> None:
        """Wait until no program that waits for bytes now has to any more."""
        for content in self._contents_now():
            await content.wait_served()

    async def statistics(self) -> EngineStatistics:
        """Return the state of the engine. One hop to a thread."""
        levels = dict(self._levels) | {key: _level_of_known(content) for key, (content, _) in self._contents.items()}
        budget = self.shelf.budget
        return EngineStatistics(
            self.counters.snapshot(),
            await self.shelf.statistics(),
            MemoryStatistics(budget.held, budget.held_most, budget.limit),
            dict(Counter(levels.values())),
            {place: why for access in self._hubs.values() for place, why in access.detours.reasons().items()},
        )

    async def flush(self) -> None:
        """Give what was learnt about files to the store."""
        for content in self._contents_now():
            await content.flush()

    async def run_housekeeping(self) -> None:
        """Every HOUSEKEEPING_INTERVAL_S, until cancelled: flush, check files that have become known whole, close idle
        connections, and give memory back when nobody has read for a while. An error costs one turn, and not the engine."""
        served, idle_turns = 0, 0
        while True:
            await trio.sleep(HOUSEKEEPING_INTERVAL_S)
            idle_turns = idle_turns + 1 if served == self.counters[telemetry.READER_SERVED_BYTES] else 0
            served = self.counters[telemetry.READER_SERVED_BYTES]
            try:
                if self.settings.reader.verify != "off" and self.settings.reader.whole_checks:
                    for content in self._contents_now():
                        self._whole.consider(content)
                await self.flush()
                self._network.close_expired()
                if idle_turns == IDLE_TURNS:
                    self.shelf.release_idle()
                    release_unused()
            except Exception:
                log.exception("housekeeping failed")

    def __repr__(self) -> str:
        return f"Engine({len(self._views)} views, {len(self._contents)} contents, {self.shelf!r})"


def _places(key: str, info: RepoInfo, cas: CasClient) -> Places:
    """What a failure to read a file from its CAS may be about."""
    return Places(f"{info.repo} {key[:16]}", str(info.repo), str(cas.origin) if cas.origin is not None else None)


def _level_of_known(content: FileContent) -> Level | None:
    """Lowest verification level of what is known of a content. An empty file has no bytes that could be wrong."""
    return content.map.level if content.size else Level.FILE


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """An engine, ready to open repos. Raises StoreFailed when the cache directory cannot be used.

    An error of the block comes out as it is, not in a group.
    """
    counters = Counters()
    store = await _open_store(settings.store, counters)
    failure: BaseException | None = None
    try:
        async with open_network(settings, counters) as network, trio.open_nursery() as nursery:
            shelf = Shelf(store, settings.reader.memory_bytes_max, patience_s=settings.store.disk_timeout_s)
            engine = Engine(settings, network=network, shelf=shelf, nursery=nursery, counters=counters)
            nursery.start_soon(shelf.run_writer)
            nursery.start_soon(engine.run_housekeeping)
            try:
                yield engine
            except BaseException as exc:  # raised again below, outside of the nursery, which would wrap it into a group
                failure = exc
            finally:
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(FLUSH_TIMEOUT_S) as flushing:
                        await engine.flush()
                    if flushing.cancelled_caught:
                        log.warning("closed before the store had taken what was learnt of files")
                    await shelf.drain()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(STORE_CLOSE_S):
            await trio.to_thread.run_sync(store.close, abandon_on_cancel=True)
    if failure is not None:
        raise failure


async def _open_store(settings: StoreSettings, counters: Counters) -> ChunkStore:
    """Open the store. Raises StoreFailed if its directory is not acceptable, or its disk does not answer."""
    if settings.cache_dir is None:
        return MemoryStore(counters, bytes_max=settings.cache_in_memory_bytes)
    with trio.move_on_after(STORE_OPEN_S):
        return await trio.to_thread.run_sync(DiskStore, settings, counters, abandon_on_cancel=True)
    raise StoreFailed(
        f"the disk of the cache directory {settings.cache_dir} does not answer", hint="name another with --cache-dir"
    )
