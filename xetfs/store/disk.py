"""DiskStore: blocks and records in a directory, bounded, shared by all processes of one user.

Who runs: `find_nowait` on the event loop, everything else in worker threads, and one thread of the store's own that looks after
it (`maintain`). Finds do not wait for puts. Between looking up a row and opening its file another thread or process may evict it:
that is a miss. What is atomic, how room is made and what happens when the disk fails: backing.py.

A file is complete before its row is made, and each carries its own checksums, so a crash leaves at worst files without rows
(sweep.py removes them) and rows whose files are short (dropped when they are opened).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from xetfs import telemetry
from xetfs.errors import CorruptData, StoreFailed
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.settings import StoreSettings
from xetfs.store import records
from xetfs.store.api import RECORD_BYTES_MAX, Block, StoreStatistics, covered_by
from xetfs.store.backing import STORE_FAILURES, Backing
from xetfs.store.blocks import DiskBlock, encode_header, open_block
from xetfs.store.index import Index, Row, block_key, parse_block_key, record_key
from xetfs.store.sweep import STRAY_AGE_S
from xetfs.store.values import value_of
from xetfs.telemetry import Counters
from xetfs.units import KIB

log = logging.getLogger(__name__)

MAINTENANCE_INTERVAL_S: Final = 15.0
RECORD_INLINE_BYTES_MAX: Final = 16 * KIB
"""A longer record is a file: SQLite reads long values slowly."""
CLOSE_TIMEOUT_S: Final = 10.0
"""Longest wait for what the store's own thread is doing; a disk that hangs does not let it end."""
_CANDIDATES_MAX: Final = 16
"""Blocks that `find` tries for one chunk; when so many are bad, the next find goes on."""


class DiskStore:
    """Raises StoreFailed, with a hint, if the directory of the settings is not acceptable. A disk that fails is told later."""

    def __init__(self, settings: StoreSettings, counters: Counters, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        if settings.cache_dir is None:
            raise StoreFailed("there is no cache directory")
        self._backing = Backing(Path(os.path.abspath(settings.cache_dir)), settings, counters, clock)
        self._open = self._backing.open_blocks
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
        index = self._backing.usable
        if index is None:
            return None
        try:
            # What a damaged index says in one way it can hide in another: what `held` promises is looked for as well, and banned
            # if it cannot be had.
            return self._open_first(index, index.covering(xorb, chunk), xorb) or self._open_first(
                index, (key for key, chunks in index.ranges(xorb) if chunks.start <= chunk < chunks.end), xorb
            )
        except STORE_FAILURES as exc:
            self._backing.failed(exc, index)
        return None

    def _open_first(self, index: Index, keys: Iterable[str], xorb: XorbHash) -> DiskBlock | None:
        """The first of these rows whose block is good."""
        for key in islice((key for key in keys if key not in self._backing.banned), _CANDIDATES_MAX):
            block = self._open_row(index, key, xorb)
            if block is not None:
                self._open.add(block)
                self._backing.touched.add(key)
                return block
        return None

    def _open_row(self, index: Index, key: str, xorb: XorbHash) -> DiskBlock | None:
        """The block of a row; None if it is bad, which then is dropped, or gone."""
        row, chunks = index.row(key), parse_block_key(key)
        if row is None or chunks is None:
            self._backing.ban(key)
            return None
        try:
            name = value_of(row.mode, row.filename, row.value)
            if isinstance(name, bytes):
                raise CorruptData("a block is kept in the index")
            return open_block(self._open_file(index, name), name, xorb, chunks)
        except CorruptData as exc:
            log.warning("dropped a damaged block from the store xorb=%s: %s", xorb.hex()[:12], exc)
            self._counters.add(telemetry.STORE_CORRUPT)
        except FileNotFoundError:
            log.debug("a block's file is gone xorb=%s", xorb.hex()[:12])
        self._backing.forget(index, row)
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

    def held(self, xorb: XorbHash) -> Sequence[ChunkRange]:
        index = self._backing.usable
        if index is None:
            return ()
        try:
            return [chunks for key, chunks in index.ranges(xorb) if key not in self._backing.banned]
        except STORE_FAILURES as exc:
            self._backing.failed(exc, index)
            return ()

    def put(self, block: XorbBlock) -> None:
        key = block_key(block.xorb, block.chunks)

        def write(index: Index) -> bool:
            if covered_by(block.chunks, self.held(block.xorb)):
                return False
            return self._backing.write_file(index, key, (encode_header(block), block.data))

        self._backing.change(write)

    def drop(self, block: Block) -> None:
        self._counters.add(telemetry.STORE_CORRUPT)
        self._open.remove_key(block.xorb, block.chunks)
        index = self._backing.usable
        if index is None:
            return
        try:
            row = index.row(block_key(block.xorb, block.chunks))
            if row is not None and (not isinstance(block, DiskBlock) or row.filename == block.name):
                self._backing.forget(index, row)
        except STORE_FAILURES as exc:
            self._backing.failed(exc, index)

    # Records

    def get_record(self, kind: str, key: str) -> bytes | None:
        index = self._backing.usable
        row_key = record_key(kind, key)
        if index is None or row_key in self._backing.banned:
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
                self._backing.forget(index, row)
                return None
            except FileNotFoundError:
                self._backing.forget(index, row)
                return None
        except STORE_FAILURES as exc:
            self._backing.failed(exc, index)
            return None
        self._backing.touched.add(row_key)
        return value

    def _read_value(self, index: Index, row: Row) -> bytes:
        value = value_of(row.mode, row.filename, row.value)
        if isinstance(value, bytes):
            return value
        with open(self._open_file(index, value), "rb") as file:
            if os.fstat(file.fileno()).st_size > RECORD_BYTES_MAX + records.OVERHEAD_BYTES:
                raise CorruptData(f"{value} is longer than any record")
            return file.read()

    def put_record(self, kind: str, key: str, value: bytes) -> None:
        if len(value) > RECORD_BYTES_MAX:
            self._counters.add(telemetry.STORE_FAILURES)
            return
        row_key = record_key(kind, key)
        checksum = records.checksum(kind, key, value)

        def write(index: Index) -> bool:
            if len(value) > RECORD_INLINE_BYTES_MAX:
                return self._backing.write_file(index, row_key, (checksum, value))
            if not self._backing.make_room(index, len(value)):
                return False
            index.insert(row_key, checksum + value)
            self._backing.banned.discard(row_key)
            return True

        self._backing.change(write)

    # Looking after it

    def maintain(self) -> None:
        """What the store's own thread does every MAINTENANCE_INTERVAL_S."""
        self._backing.maintain()

    def sweep(self, *, age_s: float = STRAY_AGE_S) -> int:
        """Remove files that the index does not name and that are older than age_s. Returns how many."""
        return self._backing.sweep(age_s=age_s)

    def _keep(self) -> None:
        while True:
            try:
                self.maintain()
            except Exception:
                log.exception("looking after the store failed")
            if self._backing.closing.wait(MAINTENANCE_INTERVAL_S):
                return

    def statistics(self) -> StoreStatistics:
        index, health = self._backing.index, self._backing.health
        count = used = 0
        if index is not None:
            try:
                count, used = index.rows_count(), index.used_bytes()
            except STORE_FAILURES as exc:
                self._backing.failed(exc)
        try:
            limit = self._backing.bytes_max(used)
        except OSError as exc:
            limit = 0
            self._backing.failed(exc)
        return StoreStatistics(health.state, count, used, limit, len(self._open), health.failure)

    def disk_hangs(self, hangs: bool) -> None:
        self._backing.health.hangs(hangs)

    def close(self) -> None:
        self._backing.closing.set()
        self._keeper.join(CLOSE_TIMEOUT_S)
        self._backing.close()

    def __repr__(self) -> str:
        return f"DiskStore({self._backing.directory}, {self._backing.health!r}, {self._open!r})"
