"""What stands behind a DiskStore: the index as it is now, the budget, and what is done when the disk fails.

What is atomic: each call of the index (its locks, SQLite's transactions) and each change of the open blocks. Changes of one
process are made one after the other (`change`), so that each process has at most one block on its way beyond the limit.

Eviction is by least recent use, in the index. Use is noted in memory, and told to the index before it evicts and at every
maintenance: hits on open blocks cost no transaction, and yet keep their blocks.

When writing fails the store goes on as one that can be read only, or not at all, and tries again (health.py). An index that is
damaged is set aside and a new one begun; one that was removed, or set aside by another process, is opened again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from xetfs import telemetry
from xetfs.errors import StoreFailed
from xetfs.settings import StoreSettings
from xetfs.store.directory import prepare_directory
from xetfs.store.handles import OpenBlocks
from xetfs.store.health import Health
from xetfs.store.index import INDEX_FAILURES, Index, Row, block_key, is_busy, is_damage, is_full, parse_block_key, xorb_of_key
from xetfs.store.opening import open_index
from xetfs.store.space import free_for_store
from xetfs.store.sweep import STRAY_AGE_S, SWEEP_INTERVAL_S, is_swept, note_swept, remove_strays
from xetfs.store.values import new_name
from xetfs.telemetry import Counters
from xetfs.units import KIB

log = logging.getLogger(__name__)

FIRST_SWEEP_S: Final = 10.0
"""How long after a store was opened it may be swept: at first whoever opened it has better things to do."""
_BANNED_MAX: Final = 4096
_INDEX_GROWTH_BYTES: Final = 32 * KIB
"""What a new row may add to the database at once: a page in the table and in each of its indexes, and their parents."""
_PROBE_BYTES: Final = 64 * KIB
_WRITE_ATTEMPTS: Final = 3
"""An evicted file frees an inode; the folder of the new file may take it."""
STORE_FAILURES: Final = (OSError, StoreFailed, *INDEX_FAILURES)
"""What a disk or an index that does not work raises."""


class Backing:
    """Raises StoreFailed if the directory is not acceptable. A disk that fails is told later.

    index: None while there is none; to be looked at once for each operation, as it may be replaced at any time.
    open_blocks, touched: what is open, and the keys of rows that were used since the index was last told.
    banned: keys of rows that are bad and could not be removed.
    """

    def __init__(self, directory: Path, settings: StoreSettings, counters: Counters, clock: Callable[[], float]) -> None:
        self._named = directory
        self.directory = prepare_directory(directory, trusted=settings.cache_trusted)
        self.index: Index | None = None
        self.open_blocks = OpenBlocks(settings.handles_max)
        self.touched: set[str] = set()
        self.banned: set[str] = set()
        self.damaged = False
        self.health = Health(clock)
        self.closing = threading.Event()
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._changing = threading.Lock()
        self._sweep_at = clock() + FIRST_SWEEP_S
        if self.directory != directory:
            log.info("others may write to the cache directory, using a private one below it directory=%s", self.directory)
        try:
            self.current_index()
        except STORE_FAILURES as exc:
            self.failed(exc)

    # Writing, within the budget

    def change(self, write: Callable[[Index], bool]) -> None:
        """Let `write` change the store, if the disk's health allows; what fails is counted, and no error gets out.

        write: gives whether it wrote anything, and thereby showed that the disk works.
        """
        with self._changing:
            if self.closing.is_set():
                return
            if not self.health.may_write():
                self._counters.add(telemetry.STORE_FAILURES)
                return
            try:
                if write(self.current_index()):
                    self.health.succeeded()
                else:
                    self.health.undecided()
            except STORE_FAILURES as exc:
                self._counters.add(telemetry.STORE_FAILURES)
                self.failed(exc)

    def write_file(self, index: Index, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Keep a value in a file. False if it is larger than the whole store may be."""
        size = sum(len(part) for part in parts)
        if not self.make_room(index, size):
            return False
        name = new_name()
        for last in (*(False,) * (_WRITE_ATTEMPTS - 1), True):
            try:
                stored = index.values.write_file(name, parts)
                try:
                    index.insert(key, stored)
                except BaseException:
                    index.values.remove(name)
                    raise
                break
            except STORE_FAILURES as exc:  # full in spite of what the disk says is free: inodes, quotas, the index itself
                if last or not is_full(exc) or not self._evict(index, size):
                    raise
        self.banned.discard(key)
        self._counters.add(telemetry.STORE_WRITTEN_BYTES, size)
        return True

    def make_room(self, index: Index, size: int) -> bool:
        """Evict until there is room for `size` bytes. False if the settings forbid it for good, StoreFailed if the disk does."""
        used = index.used_bytes()
        limit = self.bytes_max(used)
        if size + _INDEX_GROWTH_BYTES > self._settings.cache_bytes_max:
            return False
        size += _INDEX_GROWTH_BYTES if size else 0
        while size + used > limit:
            if not self._evict(index, size + used - limit):
                raise StoreFailed(f"no room for {size} bytes: the disk is short of free space")
            used = index.used_bytes()  # other processes put and evict as well
        return True

    def _evict(self, index: Index, amount: int) -> bool:
        """Evict about `amount` bytes of what was used least recently; False if nothing is left."""
        try:
            self.tell_uses(index)
        except INDEX_FAILURES as exc:
            if not is_full(exc):  # where not even that can be written, evicting goes before knowing what was used last
                raise
        evicted = index.evict(amount, self._let_go)
        self._counters.add(telemetry.STORE_EVICTED, evicted)
        return evicted > 0

    def _let_go(self, key: str) -> None:
        chunks = parse_block_key(key)
        if chunks is not None:
            self.open_blocks.remove_key(xorb_of_key(key), chunks)

    def bytes_max(self, used: int) -> int:
        """The limit as it is now: that of the settings, or less so that the disk keeps its free share."""
        return max(0, min(self._settings.cache_bytes_max, used + free_for_store(self.directory, self._settings.cache_free_share)))

    def tell_uses(self, index: Index) -> None:
        """Let the index know which rows were used since it was last told."""
        touched, self.touched = self.touched, set()
        keys = touched.copy()  # a thread may still be adding to it
        for block in self.open_blocks.all():
            if block.used:
                block.used = False
                keys.add(block_key(block.xorb, block.chunks))
        if keys:
            index.touch_keys(keys)

    # The index, and what to do when it or the disk fails

    @property
    def usable(self) -> Index | None:
        """The index to look things up in: None while it is known to be damaged, as what it still says does not hold together."""
        return None if self.damaged else self.index

    def current_index(self) -> Index:
        """The index of the directory as it is now; to be called within `change`. Raises STORE_FAILURES if there can be none."""
        index = self.index
        if index is not None and index.is_in_place and not self.damaged:
            return index
        set_aside = self.damaged and index is not None and index.is_in_place  # not one that another process began
        if index is not None:
            self.index = None
            log.warning("the store's index is %s, opening it anew", "damaged" if self.damaged else "gone")
            index.shut()
        self.open_blocks.clear()
        self.directory = prepare_directory(self._named, trusted=self._settings.cache_trusted)
        self.index = open_index(self.directory, set_aside=set_aside)
        self.damaged = False
        self.banned.clear()
        return self.index

    def failed(self, exc: Exception, index: Index | None = None) -> None:
        """Draw the conclusions from an error of the disk or the index; none if another index has taken its place meanwhile."""
        if index is not None and index is not self.index:
            log.debug("an index that was replaced failed: %s", exc)
        elif is_busy(exc):
            log.debug("the store's index is in use by others: %s", exc)
            self.health.undecided()
        elif is_damage(exc):
            self.damaged = True
            self.health.undecided()
        elif isinstance(exc, sqlite3.ProgrammingError) and "closed" in str(exc):  # by another thread, which opens it anew
            self.health.undecided()
        else:
            self.health.failed(f"{exc}" or type(exc).__name__)

    def forget(self, index: Index, row: Row) -> None:
        """Remove a row that is of no use. If that fails it is passed over from now on."""
        try:
            if index.delete_row(row):
                return
        except STORE_FAILURES as exc:
            self.failed(exc, index)
        self.ban(row.key)

    def ban(self, key: str) -> None:
        """Pass over a row from now on, until its key is written anew."""
        if len(self.banned) < _BANNED_MAX:
            self.banned.add(key)

    # Looking after it

    def maintain(self) -> None:
        """Tell uses, keep the limit, try a failing disk again; from time to time sweep."""
        self.open_blocks.remove_unlinked()
        self.change(self._maintain_index)
        if self.health.state == "ok" and self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP_INTERVAL_S
            if not is_swept(self.directory):
                self.sweep()

    def _maintain_index(self, index: Index) -> bool:
        self.tell_uses(index)
        self.make_room(index, 0)
        if self.health.state != "probing":
            return False
        index.values.remove(index.values.write_file(new_name(), (bytes(_PROBE_BYTES),)).name)
        index.touch_keys(("",))
        return True

    def sweep(self, *, age_s: float = STRAY_AGE_S) -> int:
        """Remove files that the index does not name, and put its sums right. Returns how many files. Does not hold up puts."""
        index = self.index
        if index is None:
            return 0
        try:
            removed = remove_strays(index.values, index.file_names(), age_s=age_s, stopped=self.closing.is_set)
            index.recount()
            if not self.closing.is_set():
                note_swept(self.directory)
        except STORE_FAILURES as exc:
            self.failed(exc, index)
            return 0
        if removed:
            log.info("removed files that the store's index does not name files=%d", removed)
        return removed

    def close(self) -> None:
        """Tell the index of the last uses and close it. Changes under way are finished first, later ones do nothing."""
        self.closing.set()
        with self._changing:
            index, self.index = self.index, None
            if index is not None:
                try:
                    self.tell_uses(index)
                except STORE_FAILURES as exc:
                    log.debug("the store's index could not be told what was used last: %s", exc)
                finally:
                    index.shut()
            self.open_blocks.clear()
