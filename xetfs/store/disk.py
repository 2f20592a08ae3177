"""DiskStore: blocks and records in a directory, bounded, shared by all processes of one user.

Who runs: `find_nowait` on the event loop, everything else in worker threads, and one thread of the store's own that looks after
it (`maintain`). What is atomic: each call of the index (its locks, SQLite's transactions) and each change of the open blocks.
Between looking up a row and opening its file another thread or process may evict it: that is a miss. Puts of one process are
made one after the other (`_putting`), so that each process has at most one block on its way beyond the limit; finds do not wait.

A file is complete before its row is made, and each carries its own checksums, so a crash leaves at worst files without rows
(sweep.py removes them) and rows whose files are short (dropped when they are opened).

Eviction is by least recent use, in the index. Use is noted in memory, and told to the index before it evicts and every
MAINTENANCE_INTERVAL_S: hits on open blocks cost no transaction, and yet keep their blocks.

When writing fails the store goes on as one that can be read only, or not at all, and tries again (health.py). An index that is
damaged is set aside and a new one begun; one that was removed, or set aside by another process, is opened again.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from xetfs import telemetry
from xetfs.errors import CorruptData, StoreFailed
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.settings import KIB, Settings
from xetfs.store import records
from xetfs.store.api import RECORD_BYTES_MAX, Block, StoreStatistics, covered_by
from xetfs.store.blocks import DiskBlock, encode_header, open_block
from xetfs.store.directory import prepare_directory
from xetfs.store.handles import OpenBlocks
from xetfs.store.health import Health
from xetfs.store.index import (
    INDEX_FAILURES,
    Index,
    Row,
    block_key,
    is_busy,
    is_damage,
    is_full,
    parse_block_key,
    record_key,
    xorb_of_key,
)
from xetfs.store.opening import open_index
from xetfs.store.rawdisk import StoredFile
from xetfs.store.space import free_for_store
from xetfs.store.sweep import STRAY_AGE_S, remove_strays
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

MAINTENANCE_INTERVAL_S: Final = 15.0
SWEEP_INTERVAL_S: Final = 3600.0
RECORD_INLINE_BYTES_MAX: Final = 16 * KIB
"""A longer record is a file: SQLite reads long values slowly."""
_CANDIDATES_MAX: Final = 16
"""Blocks that `find` tries for one chunk; when so many are bad, the next find goes on."""
_BANNED_MAX: Final = 4096
_INDEX_GROWTH_BYTES: Final = 32 * KIB
"""What a new row may add to the database at once: a page in the table and in each of its indexes, and their parents."""
_PROBE_BYTES: Final = 64 * KIB
_WRITE_ATTEMPTS: Final = 3
"""An evicted file frees an inode; the folder of the new file may take it."""
_FAILURES: Final = (OSError, StoreFailed, *INDEX_FAILURES)
"""What a disk or an index that does not work raises."""


class DiskStore:
    """Raises StoreFailed, with a hint, if the directory of the settings is not acceptable. A disk that fails is told later."""

    def __init__(self, settings: Settings, counters: Counters, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = Path(os.path.abspath(settings.cache_dir))
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._health = Health(clock)
        self._open = OpenBlocks(settings.store_handles_max)
        self._index: Index | None = None
        self._damaged = False
        self._opening = threading.Lock()
        self._putting = threading.Lock()
        self._touched: set[str] = set()
        self._banned: set[str] = set()
        self._sweep_at = clock()
        self._closing = threading.Event()
        prepare_directory(self._directory)
        try:
            self._current_index()
            self._health.succeeded()
        except _FAILURES as exc:
            self._failed(exc)
        self._keeper = threading.Thread(target=self._keep, name="xetfs-store", daemon=True)
        self._keeper.start()

    # Blocks

    def find_nowait(self, xorb: XorbHash, chunk: int) -> DiskBlock | None:
        block = self._open.find(xorb, chunk)
        if block is not None:
            self._counters.add(telemetry.STORE_HITS)
        return block

    def find(self, xorb: XorbHash, chunk: int) -> Block | None:
        block = self._open.find(xorb, chunk) or self._open_covering(xorb, chunk)
        self._counters.add(telemetry.STORE_MISSES if block is None else telemetry.STORE_HITS)
        return block

    def _open_covering(self, xorb: XorbHash, chunk: int) -> DiskBlock | None:
        index = self._index
        if index is None:
            return None
        try:
            keys = [key for key in index.covering(xorb, chunk) if key not in self._banned]
            for key in keys[:_CANDIDATES_MAX]:
                block = self._open_row(index, index.row(key), xorb)
                if block is not None:
                    self._open.add(block)
                    self._touched.add(key)
                    return block
        except _FAILURES as exc:
            self._failed(exc, index)
        return None

    def _open_row(self, index: Index, row: Row | None, xorb: XorbHash) -> DiskBlock | None:
        """The block of a row; None if it is bad, which then is dropped, or gone."""
        chunks = None if row is None else parse_block_key(row.key)
        if row is None or chunks is None:
            return None
        try:
            stored = index.values.fetch(row.mode, row.filename, row.value, True)
            if not isinstance(stored, StoredFile):
                raise CorruptData("a block is kept in the index")
            return open_block(self._open_file(index, stored.name), stored.name, xorb, chunks)
        except CorruptData as exc:
            log.warning("dropped a damaged block from the store xorb=%s: %s", xorb.hex()[:12], exc)
            self._counters.add(telemetry.STORE_CORRUPT)
        except FileNotFoundError:
            log.debug("a block's file is gone xorb=%s", xorb.hex()[:12])
        self._forget(index, row)
        return None

    def _open_file(self, index: Index, name: str) -> int:
        """Open a value file, letting go of other blocks if the process may open no more. Raises OSError, CorruptData."""
        try:
            return index.values.open_file(name)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO):
                raise CorruptData(f"{name} is not a plain file") from None
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._open.halve()
        return index.values.open_file(name)

    def _forget(self, index: Index, row: Row) -> None:
        """Remove a row that is of no use. If that fails it is passed over from now on."""
        try:
            if index.delete_row(row):
                return
        except _FAILURES as exc:
            self._failed(exc, index)
        if len(self._banned) < _BANNED_MAX:
            self._banned.add(row.key)

    def held(self, xorb: XorbHash) -> Sequence[ChunkRange]:
        index = self._index
        if index is None:
            return ()
        try:
            return [chunks for key, chunks in index.ranges(xorb) if key not in self._banned]
        except _FAILURES as exc:
            self._failed(exc, index)
            return ()

    def put(self, block: XorbBlock) -> None:
        key = block_key(block.xorb, block.chunks)

        def write(index: Index) -> bool:
            if covered_by(block.chunks, self.held(block.xorb)):
                return False
            return self._write_file(index, key, (encode_header(block), block.data))

        self._change(write)

    def drop(self, block: Block) -> None:
        self._counters.add(telemetry.STORE_CORRUPT)
        self._open.remove_key(block.xorb, block.chunks)
        index = self._index
        if index is None:
            return
        try:
            row = index.row(block_key(block.xorb, block.chunks))
            if row is not None and (not isinstance(block, DiskBlock) or row.filename == block.name):
                self._forget(index, row)
        except _FAILURES as exc:
            self._failed(exc, index)

    # Records

    def get_record(self, kind: str, key: str) -> bytes | None:
        index = self._index
        row_key = record_key(kind, key)
        if index is None or row_key in self._banned:
            return None
        try:
            row = index.row(row_key, value_bytes_max=RECORD_INLINE_BYTES_MAX + records.OVERHEAD_BYTES)
            if row is None:
                return None
            try:
                value = records.decode(kind, key, self._read_value(index, row))
            except CorruptData as exc:
                log.warning("dropped a damaged record from the store: %s", exc)
                self._counters.add(telemetry.STORE_CORRUPT)
                self._forget(index, row)
                return None
            except FileNotFoundError:
                self._forget(index, row)
                return None
        except _FAILURES as exc:
            self._failed(exc, index)
            return None
        self._touched.add(row_key)
        return value

    def _read_value(self, index: Index, row: Row) -> bytes:
        stored = index.values.fetch(row.mode, row.filename, row.value, True)
        if not isinstance(stored, StoredFile):
            return bytes(stored)
        with open(self._open_file(index, stored.name), "rb") as file:
            if os.fstat(file.fileno()).st_size > RECORD_BYTES_MAX + records.OVERHEAD_BYTES:
                raise CorruptData(f"{stored.name} is longer than any record")
            return file.read()

    def put_record(self, kind: str, key: str, value: bytes) -> None:
        if len(value) > RECORD_BYTES_MAX:
            self._counters.add(telemetry.STORE_FAILURES)
            return
        row_key = record_key(kind, key)
        checksum = records.checksum(kind, key, value)

        def write(index: Index) -> bool:
            if len(value) > RECORD_INLINE_BYTES_MAX:
                return self._write_file(index, row_key, (checksum, value))
            if not self._make_room(index, len(value)):
                return False
            index.insert(row_key, checksum + value)
            self._banned.discard(row_key)
            return True

        self._change(write)

    # Writing, within the budget

    def _change(self, write: Callable[[Index], bool]) -> None:
        """Let `write` change the store, if the disk's health allows; what fails is counted, and no error gets out.

        write: gives whether it wrote anything, and thereby showed that the disk works.
        """
        with self._putting:
            if self._closing.is_set():
                return
            if not self._health.may_write():
                self._counters.add(telemetry.STORE_FAILURES)
                return
            try:
                if write(self._current_index()):
                    self._health.succeeded()
                else:
                    self._health.undecided()
            except _FAILURES as exc:
                self._counters.add(telemetry.STORE_FAILURES)
                self._failed(exc)

    def _write_file(self, index: Index, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Keep a value in a file. False if it is larger than the whole store may be."""
        size = sum(len(part) for part in parts)
        if not self._make_room(index, size):
            return False
        name, _ = index.values.filename()
        for last in (*(False,) * (_WRITE_ATTEMPTS - 1), True):
            try:
                stored = index.values.write_file(name, parts)
                try:
                    index.insert(key, stored)
                except BaseException:
                    index.values.remove(name)
                    raise
                break
            except _FAILURES as exc:  # full in spite of what the disk says is free: inodes, quotas, the index itself
                if last or not is_full(exc) or not self._evict(index, size):
                    raise
        self._banned.discard(key)
        self._counters.add(telemetry.STORE_WRITTEN_BYTES, size)
        return True

    def _make_room(self, index: Index, size: int) -> bool:
        """Evict until there is room for `size` bytes. False if the settings forbid it for good, StoreFailed if the disk does."""
        used = index.used_bytes()
        limit = self._bytes_max(used)
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
            self._tell_uses(index)
        except INDEX_FAILURES as exc:
            if not is_full(exc):  # where not even that can be written, evicting goes before knowing what was used last
                raise
        evicted = index.evict(amount, self._let_go)
        self._counters.add(telemetry.STORE_EVICTED, evicted)
        return evicted > 0

    def _let_go(self, key: str) -> None:
        chunks = parse_block_key(key)
        if chunks is not None:
            self._open.remove_key(xorb_of_key(key), chunks)

    def _bytes_max(self, used: int) -> int:
        """The limit as it is now: that of the settings, or less so that the disk keeps its free share."""
        return max(
            0, min(self._settings.cache_bytes_max, used + free_for_store(self._directory, self._settings.cache_free_share))
        )

    def _tell_uses(self, index: Index) -> None:
        """Let the index know which rows were used since it was last told."""
        touched, self._touched = self._touched, set()
        keys = touched.copy()  # a thread may still be adding to it
        for block in self._open.all():
            if block.used:
                block.used = False
                keys.add(block_key(block.xorb, block.chunks))
        if keys:
            index.touch_keys(keys)

    # The index, and what to do when it or the disk fails

    def _current_index(self) -> Index:
        """The index of the directory as it is now. Raises OSError, sqlite3.Error or StoreFailed if there can be none."""
        index = self._index
        if index is not None and index.is_in_place and not self._damaged:
            return index
        with self._opening:
            index, damaged = self._index, self._damaged
            if index is not None and index.is_in_place and not damaged:
                return index
            self._index = None
            set_aside = damaged and index is not None and index.is_in_place
            if index is not None:
                log.warning("the store's index is %s, opening it anew", "damaged" if damaged else "gone")
                index.shut()
            self._open.clear()
            prepare_directory(self._directory)
            self._index = open_index(self._directory, set_aside=set_aside)
            self._damaged = False
            self._banned.clear()
            return self._index

    def _failed(self, exc: Exception, index: Index | None = None) -> None:
        """Draw the conclusions from an error of the disk or the index; none if another index has taken its place meanwhile."""
        if index is not None and index is not self._index:
            log.debug("an index that was replaced failed: %s", exc)
        elif is_busy(exc):
            log.debug("the store's index is in use by others: %s", exc)
            self._health.undecided()
        elif is_damage(exc):
            self._damaged = True
            self._health.undecided()
        elif isinstance(exc, sqlite3.ProgrammingError) and "closed" in str(exc):  # by another thread, which opens it anew
            self._health.undecided()
        else:
            self._health.failed(f"{exc}" or type(exc).__name__)

    # Looking after it

    def maintain(self) -> None:
        """What the store's own thread does every MAINTENANCE_INTERVAL_S: tell uses, keep the limit, try a failing disk again."""
        self._open.remove_unlinked()
        if self._health.state != "ok" or self._index is not None:
            self._change(self._maintain_index)
        if self._health.state == "ok" and self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP_INTERVAL_S
            self.sweep()

    def _maintain_index(self, index: Index) -> bool:
        self._tell_uses(index)
        self._make_room(index, 0)
        if self._health.state != "probing":
            return False
        name, _ = index.values.filename()
        index.values.remove(index.values.write_file(name, (bytes(_PROBE_BYTES),)).name)
        index.touch_keys(("",))
        return True

    def sweep(self, *, age_s: float = STRAY_AGE_S) -> int:
        """Remove files that the index does not name, and put its sums right. Returns how many files. Does not hold up puts."""
        index = self._index
        if index is None:
            return 0
        try:
            removed = remove_strays(index.values, index.file_names(), age_s=age_s, stopped=self._closing.is_set)
            index.recount()
        except _FAILURES as exc:
            self._failed(exc, index)
            return 0
        if removed:
            log.info("removed files that the store's index does not name files=%d", removed)
        return removed

    def _keep(self) -> None:
        while True:
            try:
                self.maintain()
            except Exception:
                log.exception("looking after the store failed")
            if self._closing.wait(MAINTENANCE_INTERVAL_S):
                return

    def statistics(self) -> StoreStatistics:
        index, health = self._index, self._health
        count = used = 0
        if index is not None:
            try:
                count, used = index.rows_count(), index.used_bytes()
            except _FAILURES as exc:
                self._failed(exc)
        try:
            limit = self._bytes_max(used)
        except OSError as exc:
            limit = 0
            self._failed(exc)
        return StoreStatistics(health.state, count, used, limit, len(self._open), health.failure)

    def close(self) -> None:
        self._closing.set()
        self._keeper.join()
        with self._putting:
            index, self._index = self._index, None
            if index is not None:
                try:
                    self._tell_uses(index)
                    index.shut()
                except _FAILURES as exc:
                    log.debug("the store's index could not be told what was used last: %s", exc)
            self._open.clear()

    def __repr__(self) -> str:
        return f"DiskStore({self._directory}, {self._health!r}, {self._open!r})"
