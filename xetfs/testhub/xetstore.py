"""Xorbs and the files made of them.

A xorb is kept as it was uploaded, followed by the footer that tells where its chunks end and what they hash to
(protocol/footer.py); a file as the runs of chunks that it consists of, with their lengths. Both are immutable. Large tables are
numpy arrays: a file of 200 GB has millions of chunks, and a query about a range of it must cost a bisection.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from xetfs.errors import CorruptData, EntryNotFound
from xetfs.protocol.footer import XorbInfo, encode_footer, parse_footer
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, XorbHash, chunk_hash, file_id, xorb_hash
from xetfs.protocol.xorb import (
    CHUNK_WIRE_BYTES_MAX,
    FOOTER_TAG,
    HEADER_BYTES,
    XORB_BYTES_MAX,
    XORB_CHUNKS_MAX,
    Scheme,
    decode_chunk,
    encode_xorb,
)
from xetfs.testhub.database import Recent
from xetfs.testhub.records import StoredFile
from xetfs.testhub.storage import Storage

Numbers = npt.NDArray[np.int64]
XORB_WIRE_BYTES_MAX: Final = XORB_BYTES_MAX + 8 * XORB_CHUNKS_MAX
_XORBS_CACHED = 2000
_TERMS_CACHED = 2_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks [start, end) of a xorb, as a piece of a file."""

    xorb: XorbHash
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class XorbIndex:
    """Where the chunks of a xorb lie: wire[i] and data[i] are the offsets at which chunk i begins, with one more for the end."""

    path: Path
    wire: Numbers
    data: Numbers
    hashes: tuple[ChunkHash, ...]


@dataclass(eq=False)
class FileRecord:
    """What a file is made of. terms has a row (xorb, start, end) per term, where xorb is a position in xorbs; ends[i] is the
    offset in the file at which term i ends."""

    id: FileId
    size: int
    xorbs: tuple[XorbHash, ...]
    terms: Numbers
    lengths: Numbers

    @cached_property
    def ends(self) -> Numbers:
        return np.cumsum(self.lengths)

    def runs(self) -> Iterator[Run]:
        for xorb, start, end in self.terms.tolist():
            yield Run(self.xorbs[xorb], start, end)


class XetStore:
    """The Xet part of a hub's directory."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._indexes: Recent[XorbHash, XorbIndex] = Recent(_XORBS_CACHED)
        self._records: Recent[FileId, FileRecord] = Recent(_TERMS_CACHED)

    # Xorbs

    def xorb_path(self, xorb: XorbHash) -> Path:
        text = xorb.hex()
        return self._storage.directory / "xorbs" / text[:2] / text

    def has_xorb(self, xorb: XorbHash) -> bool:
        return self._indexes.get(xorb) is not None or self.xorb_path(xorb).exists()

    def index(self, xorb: XorbHash) -> XorbIndex:
        """Raises EntryNotFound, CorruptData."""
        held = self._indexes.get(xorb)
        if held is None:
            held = _read_index(self.xorb_path(xorb), xorb)
            self._indexes.put(xorb, held)
        return held

    def put_xorb(self, expected: XorbHash, records: bytes) -> bool:
        """Check chunk records (a footer after them is cut off) against the hash and keep them. False if they were held already.

        Decodes and hashes everything: call it in a worker thread. Raises CorruptData.
        """
        if self.has_xorb(expected):
            return False
        info = _scan(expected, memoryview(records))
        assert info.data_ends is not None
        lengths = (end - start for start, end in pairwise((0, *info.data_ends)))
        if xorb_hash(zip(info.hashes, lengths, strict=True)) != expected:
            raise CorruptData(f"the chunks of the xorb do not hash to {expected.hex()}")
        path = self.xorb_path(expected)
        path.parent.mkdir(exist_ok=True)
        temporary = self._storage.temporary / f"{expected.hex()}.{id(records):x}"
        with temporary.open("wb") as file:
            file.write(memoryview(records)[: info.wire_ends[-1]])
            file.write(encode_footer(info))
        temporary.replace(path)
        self._indexes.put(expected, _to_index(path, info.wire_ends, info.data_ends, info.hashes))
        return True

    def add_xorb(self, chunks: Sequence[bytes], scheme: Scheme | None = None) -> XorbHash:
        """Make a xorb of these chunks."""
        encoded = encode_xorb(chunks, scheme)
        self.put_xorb(encoded.xorb, encoded.wire)
        return encoded.xorb

    # Files

    def record(self, file: FileId) -> FileRecord:
        """Raises EntryNotFound."""
        held = self._records.get(file)
        if held is None:
            row = self._storage.row("SELECT size, xorbs, terms FROM files WHERE id = ?", bytes(file))
            if row is None:
                raise EntryNotFound(f"no file {file.hex()}")
            size, xorbs, terms = row
            assert isinstance(size, int)
            assert isinstance(xorbs, bytes)
            assert isinstance(terms, bytes)
            table = np.frombuffer(terms, np.int64).reshape(-1, 4)
            names = tuple(XorbHash(MerkleHash.from_raw(xorbs[at : at + 32])) for at in range(0, len(xorbs), 32))
            held = FileRecord(file, size, names, table[:, :3], table[:, 3])
            self._records.put(file, held, len(table) + 1)
        return held

    def put_record(self, file: FileId, runs: Iterable[Run]) -> FileRecord:
        """Keep what a file is made of; the runs must lie within xorbs that are held. Raises EntryNotFound, CorruptData."""
        positions: dict[XorbHash, int] = {}
        rows: list[tuple[int, int, int, int]] = []
        for run in runs:
            data = self.index(run.xorb).data
            if not 0 <= run.start < run.end < len(data):
                raise CorruptData(f"chunks {run.start} to {run.end} of xorb {run.xorb.hex()}, which has {len(data) - 1}")
            position = positions.setdefault(run.xorb, len(positions))
            rows.append((position, run.start, run.end, int(data[run.end] - data[run.start])))
        table = np.array(rows, np.int64).reshape(-1, 4)
        size = int(table[:, 3].sum())
        with self._storage.transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)", (bytes(file), size, b"".join(positions), table.tobytes())
            )
        return self.record(file)

    def leaves(self, runs: Iterable[Run]) -> Iterator[tuple[ChunkHash, int]]:
        """(hash, size) of every chunk of a file, in its order."""
        for run in runs:
            index = self.index(run.xorb)
            sizes = np.diff(index.data[run.start : run.end + 1]).tolist()
            yield from zip(index.hashes[run.start : run.end], sizes, strict=True)

    def add_file_from_terms(
        self, runs: Sequence[Run], *, sha256: str | None = None, file: FileId | None = None
    ) -> tuple[FileId, StoredFile]:
        """A file of these runs, ready to be committed.

        sha256 (64 hex digits) is computed from the content unless given: give one for a file of hundreds of gigabytes, and
        `file` too where no proof will be asked, since hashing millions of leaves takes seconds.
        """
        identity = file_id(self.leaves(runs)) if file is None else file
        record = self.put_record(identity, runs)
        if sha256 is None:
            digest = hashlib.sha256()
            for data in self.read(record):
                digest.update(data)
            sha256 = digest.hexdigest()
        return identity, self._storage.add_lfs(sha256, record.size, file_id=bytes(identity))

    def add_file_from_chunks(
        self, chunks: Sequence[bytes], *, scheme: Scheme | None = None, xorb_chunks: int = 1000
    ) -> tuple[FileId, StoredFile]:
        """A file of these chunks: equal ones are stored once, new ones go into xorbs of at most xorb_chunks."""
        places: dict[ChunkHash, tuple[int, int]] = {}
        groups: list[list[bytes]] = []
        names = [chunk_hash(chunk) for chunk in chunks]
        held = 0
        for name, chunk in zip(names, chunks, strict=True):
            if name in places:
                continue
            if not groups or len(groups[-1]) == xorb_chunks or held + len(chunk) > XORB_BYTES_MAX:
                groups.append([])
                held = 0
            places[name] = (len(groups) - 1, len(groups[-1]))
            groups[-1].append(chunk)
            held += len(chunk)
        xorbs = [self.add_xorb(group, scheme) for group in groups]
        runs: list[Run] = []
        for name in names:
            group, position = places[name]
            if runs and runs[-1].xorb == xorbs[group] and runs[-1].end == position:
                runs[-1] = Run(xorbs[group], runs[-1].start, position + 1)
            else:
                runs.append(Run(xorbs[group], position, position + 1))
        return self.add_file_from_terms(runs)

    def read(self, record: FileRecord, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The content of [start, end), decoded chunk by chunk."""
        end = record.size if end is None else min(end, record.size)
        if start >= end:
            return
        term = int(np.searchsorted(record.ends, start, "right"))
        at = int(record.ends[term] - record.lengths[term])
        while at < end:
            xorb, first, last = record.terms[term].tolist()
            index = self.index(record.xorbs[xorb])
            with index.path.open("rb") as file:
                for chunk in range(first, last):
                    length = int(index.data[chunk + 1] - index.data[chunk])
                    if at + length > start and at < end:
                        file.seek(int(index.wire[chunk]))
                        content, _ = decode_chunk(memoryview(file.read(int(index.wire[chunk + 1] - index.wire[chunk]))))
                        yield content[max(0, start - at) : end - at]
                    at += length
            term += 1


def _scan(xorb: XorbHash, records: memoryview) -> XorbInfo:
    """What a footer would say of these chunk records; stops at one. Raises CorruptData."""
    wire_ends: list[int] = []
    data_ends: list[int] = []
    hashes: list[ChunkHash] = []
    at = end = 0
    while at < len(records) and bytes(records[at : at + len(FOOTER_TAG)]) != FOOTER_TAG:
        content, used = decode_chunk(records[at : at + HEADER_BYTES + CHUNK_WIRE_BYTES_MAX])
        at, end = at + used, end + len(content)
        wire_ends.append(at)
        data_ends.append(end)
        hashes.append(chunk_hash(content))
    if end > XORB_BYTES_MAX:
        raise CorruptData(f"a xorb of {end} bytes")
    return XorbInfo(xorb, tuple(hashes), tuple(wire_ends), tuple(data_ends))


def _read_index(path: Path, xorb: XorbHash) -> XorbIndex:
    """From the footer of a stored xorb, whose records are not looked at. Raises EntryNotFound, CorruptData."""
    try:
        with path.open("rb") as file:
            # Closed by nobody: whoever looks at an error may still hold a part of it.
            info = parse_footer(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError as error:
        raise EntryNotFound(f"no xorb {xorb.hex()}") from error
    except (OSError, ValueError) as error:
        raise CorruptData(f"the stored xorb {xorb.hex()} cannot be read: {error}") from error
    if info is None or info.data_ends is None or info.xorb != xorb:
        raise CorruptData(f"the stored xorb {xorb.hex()} has no footer of its own")
    return _to_index(path, info.wire_ends, info.data_ends, info.hashes)


def _to_index(path: Path, wire_ends: Sequence[int], data_ends: Sequence[int], hashes: tuple[ChunkHash, ...]) -> XorbIndex:
    return XorbIndex(path, np.array((0, *wire_ends), np.int64), np.array((0, *data_ends), np.int64), hashes)
