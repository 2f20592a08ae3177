"""Directory listings: from the store when this commit's was read before, else from the Hub, page by page.

A commit never changes, so a listing is kept without an expiry. What a server lists is not trusted: an entry that makes no
sense, does not lie directly in the directory, or has a name that a file system cannot carry, is left out; of two entries with one
name the first stays. One line in the log tells how many there were and shows the first.

A large directory takes many pages, each of which the Hub counts. After an error that may pass, the next try goes on at the page
that failed; an error that would come again is remembered for a while.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from xetfs.detached import run_detached
from xetfs.errors import CorruptData, NotFound, ProtocolViolation, XetfsError
from xetfs.hub.client import HubClient, TreeCursor
from xetfs.protocol.names import PATH_BYTES_MAX, CommitId, RepoId, is_servable_name
from xetfs.protocol.tree import ParsedPage
from xetfs.reader.shelf import Shelf
from xetfs.repo.entries import Entries, EntriesBuilder, decode_entries, parts_of

log = logging.getLogger(__name__)

LISTING_RECORD = "listing"
"""Kind of the store's records that hold listings."""
FAILURE_KEPT_S: Final = 60.0
"""How long an error that would come again is given without asking: a program that tries every name of a directory must not cost
the Hub's quota."""
CHEAP_PAGES: Final = 10
"""A listing that failed within so many pages is asked for again at once."""
ODD_KEPT_MAX: Final = 1000
"""Odd entries that the log tells in detail."""
AHEAD_PAGES: Final = {4: 4, 32: 32, 128: 128}
"""After so many directories that had to be asked for one by one, the Hub is asked for all below the one that holds them, if that
takes no more than so many requests. So a walk over a thousand directories costs a handful, somebody who looks around nothing, and
a repo of a million entries no more than twice what the walk would have cost without."""
COMING_S: Final = 2.0
"""How long a directory is waited for that is coming with others, before it is asked for alone."""


@dataclass(slots=True)
class _Progress:
    """A directory of which some pages are here."""

    path: str
    entries: EntriesBuilder
    cursor: TreeCursor = field(default_factory=TreeCursor)
    odd: list[str] = field(default_factory=list)
    odd_count: int = 0

    def take(self, page: ParsedPage) -> None:
        self._note(page.odd)
        for entry in page.entries:
            name = _name_in(entry.path, self.path)
            if name is None:
                self._note([f"tree entry {entry.path!r:.200}: its name cannot be served"])
            else:
                self.entries.add(name, entry)

    def take_repeated(self, names: Sequence[str]) -> None:
        self._note([f"tree entry {name!r:.200}: listed before" for name in names])

    def _note(self, odd: Sequence[str]) -> None:
        self.odd_count += len(odd)
        self.odd += odd[: ODD_KEPT_MAX - len(self.odd)]


class _Coming:
    """All below `path`, on its way."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.ended = trio.Event()

    def brings(self, path: str) -> bool:
        return not self.ended.is_set() and _is_within(path, self.path)


class Lister:
    """Lists the directories of one repo at one commit."""

    def __init__(
        self,
        hub: HubClient,
        shelf: Shelf,
        endpoint: str,
        repo: RepoId,
        commit: CommitId,
        *,
        on_new: Callable[[], None],
        nursery: trio.Nursery,
    ) -> None:
        """on_new: called when a listing that had to be asked for has files in Xet, of which nothing can have been read yet.
        nursery: for listing ahead, which nobody waits for."""
        self._hub = hub
        self._on_new = on_new
        self._nursery = nursery
        self._shelf = shelf
        self._repo = repo
        self._commit = commit
        self._key = f"{endpoint} {commit}"  # by whatever name the repo goes
        self._broken_off: _Progress | None = None
        """The last directory that failed half way: one, so that it takes no more memory than a listing may."""
        self._failures: dict[str, tuple[float, XetfsError]] = {}
        self._below: dict[str, Entries] = {}
        """Directories that came with others and were not listed yet."""
        self._coming: _Coming | None = None
        self._asked: list[str] = []  # the first directories that had to be asked for one by one

    async def list(self, path: str) -> Entries:
        """The entries of the directory at `path` ("" for the root of the repo) that can be served.

        Raises EntryNotFound if there is no such directory, and the errors of HubClient.tree_pages.
        """
        known = await self._taken_below(path)
        if known is None:
            known = await self._recall(path)
        if known is not None:
            return known
        self._raise_known_failure(path)
        progress = self._take_up(path)
        try:
            async with aclosing(self._hub.tree_pages(self._repo, self._commit, path, progress.cursor)) as pages:
                async for page in pages:
                    progress.take(page)
        except XetfsError as error:
            self._note_failure(progress, error)
            raise
        entries, repeated = await trio.to_thread.run_sync(progress.entries.finish)
        progress.take_repeated(repeated)
        self._tell_odd(progress)
        if progress.entries.has_xet:
            self._on_new()
        await self._remember(path, entries)
        self._note_asked(path)
        return entries

    async def knows(self, path: str) -> bool:
        """Whether `list` of this directory would ask nobody."""
        if path in self._below:
            return True
        [first] = await self._shelf.records(LISTING_RECORD, [self._part_key(path, 0)])
        return first is not None

    async def list_below(self, path: str, pages_max: int) -> bool:
        """Have the listings of the directory at `path`, and of all below it, at hand, in as few requests as there are thousands
        of entries. False, and nothing at hand, if that takes more than pages_max.

        For work in the background: it leaves room in the Hub's quotas. Raises the errors of HubClient.tree_pages.
        """
        coming = self._coming = _Coming(path)
        try:
            found = await self._ask_below(path, pages_max)
            finished = await trio.to_thread.run_sync(lambda: {folder: p.entries.finish() for folder, p in found.items()})
            self._below.update({folder: entries for folder, (entries, _) in finished.items()})
        finally:
            coming.ended.set()
        for folder, (entries, repeated) in finished.items():
            found[folder].take_repeated(repeated)
            self._tell_odd(found[folder])
            await self._remember(folder, entries)
        return bool(found)

    async def _ask_below(self, path: str, pages_max: int) -> dict[str, _Progress]:
        """The directory at `path` and each below it of which the answer tells an entry; nothing if that is too much."""
        found = {path: _Progress(path, EntriesBuilder(path))}
        cursor = found[path].cursor
        async with aclosing(self._hub.tree_pages(self._repo, self._commit, path, cursor, recursive=True)) as pages:
            async for page in pages:
                found[path].take(ParsedPage((), page.odd))
                for entry in page.entries:
                    folder = entry.path.rpartition("/")[0]
                    if not _is_within(folder, path):
                        folder = path  # where it will be told as odd
                    if folder not in found:
                        found[folder] = _Progress(folder, EntriesBuilder(folder))
                    found[folder].take(ParsedPage((entry,), ()))
                if cursor.pages >= pages_max and cursor.more:
                    return {}
        return found

    async def _taken_below(self, path: str) -> Entries | None:
        """A directory that came with others, or is about to."""
        if self._coming is not None and self._coming.brings(path):
            with trio.move_on_after(COMING_S):
                await self._coming.ended.wait()
        return self._below.pop(path, None)

    def _note_asked(self, path: str) -> None:
        """A program that lists one directory after the other will list the next ones, too: they are had beforehand, and all of
        a large repo only for one that goes on."""
        if not path or len(self._asked) == max(AHEAD_PAGES):
            return
        self._asked.append(path)
        pages_max = AHEAD_PAGES.get(len(self._asked))
        if pages_max is not None:
            path = os.path.commonpath(self._asked)
            run_detached(self._nursery, partial(self._list_ahead, path, pages_max), f"listing ahead repo={self._repo}")

    async def _list_ahead(self, path: str, pages_max: int) -> None:
        try:
            await self.list_below(path, pages_max)
        except XetfsError as exc:
            log.debug("not listed ahead repo=%s path=%r: %s", self._repo, path, exc)

    async def _recall(self, path: str) -> Entries | None:
        """What the store has of a directory; None if that is not all."""
        [first] = await self._shelf.records(LISTING_RECORD, [self._part_key(path, 0)])
        if first is None:
            return None
        try:
            rest = await self._shelf.records(LISTING_RECORD, [self._part_key(path, n) for n in range(1, parts_of(first))])
            records = [first, *(record for record in rest if record is not None)]
            if len(records) < 1 + len(rest):
                return None
            return await trio.to_thread.run_sync(decode_entries, path, records)
        except CorruptData as exc:  # written by another version
            log.warning("a listing in the store is not usable repo=%s path=%r: %s", self._repo, path, exc)
            return None

    async def _remember(self, path: str, entries: Entries) -> None:
        for number, record in enumerate(await trio.to_thread.run_sync(entries.encode)):
            await self._shelf.put_record(LISTING_RECORD, self._part_key(path, number), record)

    def _part_key(self, path: str, number: int) -> str:
        return f"{self._key}/{path}" if number == 0 else f"{self._key}/{path}//{number}"

    def _take_up(self, path: str) -> _Progress:
        """Where the last try ended, or a new beginning."""
        progress = self._broken_off
        if progress is None or progress.path != path:
            return _Progress(path, EntriesBuilder(path))
        self._broken_off = None
        return progress

    def _note_failure(self, progress: _Progress, error: XetfsError) -> None:
        if not isinstance(error, ProtocolViolation | NotFound):
            self._broken_off = progress
        elif progress.cursor.pages > CHEAP_PAGES:
            now = trio.current_time()
            self._failures = {path: kept for path, kept in self._failures.items() if kept[0] > now}
            self._failures[progress.path] = (now + FAILURE_KEPT_S, error)

    def _raise_known_failure(self, path: str) -> None:
        until_s, error = self._failures.get(path, (0.0, None))
        if error is not None and trio.current_time() < until_s:
            raise error.with_traceback(None)

    def _tell_odd(self, progress: _Progress) -> None:
        if progress.odd:
            log.warning(
                "odd entries of a listing are left out, or read in part repo=%s path=%r count=%d first=%s",
                self._repo, progress.path, progress.odd_count, progress.odd[0],
            )  # fmt: skip
            for what in progress.odd:
                log.debug("an odd entry repo=%s %s", self._repo, what)


def _is_within(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")


def _name_in(path: str, directory: str) -> str | None:
    """The name of the entry at `path` within `directory`; None if it is not directly in it or cannot be served."""
    folder, _, name = path.rpartition("/")
    if folder != directory or not is_servable_name(name) or path.startswith("/"):
        return None
    # No character takes more than four bytes, so most paths need not be measured.
    return name if 4 * len(path) < PATH_BYTES_MAX or len(path.encode()) < PATH_BYTES_MAX else None
