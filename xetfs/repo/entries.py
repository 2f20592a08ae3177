"""The entries of one directory in little memory.

A directory may have a million entries. As objects they would take some 700 bytes each; here an entry is its name and a row of
fixed size, about 190 bytes together, and becomes a TreeEntry when somebody asks for it. In the store a directory is its names and
rows, compressed, in parts: to read them back takes a fraction of the time that the Hub's JSON takes.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import Final

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.tree import TreeEntry

PART_ENTRIES: Final = 250_000
"""Entries of one record in the store: some 25 MiB, as most of a row is hashes. The store takes records of up to 64 MiB."""
NAME_BYTES_MAX: Final = 256
"""Longest name with the separator that follows it."""

_ROW = struct.Struct("<BQq20s32s32s")  # flags, size, mtime_s, oid, file id, SHA-256
_HEAD = struct.Struct("<4sIII")  # magic, number of parts, entries of this part, bytes of its names
_MAGIC: Final = b"xdl1"
_DIRECTORY, _MTIME, _OID, _FILE_ID, _SHA256 = 1, 2, 4, 8, 16
_START = struct.Struct("<BQq")  # of a row: what `stat` asks for


class Entries:
    """The entries directly in `folder` ("" is the root of the repo), sorted by name. Never changes."""

    __slots__ = ("_names", "_rows", "folder")

    def __init__(self, folder: str, names: Sequence[str], rows: bytes | bytearray) -> None:
        """names: sorted, each once. rows: of the entries in the same order. Both are kept, and belong to it from now on."""
        self.folder = folder
        self._names = names
        self._rows = rows

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Entries({self.folder!r}, {len(self)})"

    def name(self, index: int) -> str:
        return self._names[index]

    def find(self, name: str) -> int | None:
        """The index of the entry with this name."""
        index = bisect_left(self._names, name)
        return index if index < len(self._names) and self._names[index] == name else None

    def path(self, index: int) -> str:
        """The path within the repo."""
        return f"{self.folder}/{self._names[index]}" if self.folder else self._names[index]

    def is_directory(self, index: int) -> bool:
        return bool(self._rows[index * _ROW.size] & _DIRECTORY)

    def size(self, index: int) -> int:
        size: int = _START.unpack_from(self._rows, index * _ROW.size)[1]
        return size

    def mtime_s(self, index: int) -> int | None:
        flags, _, mtime_s = _START.unpack_from(self._rows, index * _ROW.size)
        return mtime_s if flags & _MTIME else None

    def entry(self, index: int) -> TreeEntry:
        flags, size, mtime_s, oid, file_id, sha256 = _ROW.unpack_from(self._rows, index * _ROW.size)
        return TreeEntry(
            self.path(index),
            "directory" if flags & _DIRECTORY else "file",
            size,
            oid.hex() if flags & _OID else "",
            FileId(MerkleHash(file_id)) if flags & _FILE_ID else None,
            sha256 if flags & _SHA256 else None,
            mtime_s if flags & _MTIME else None,
        )

    def encode(self) -> list[bytes]:
        """The entries as records for the store: at least one. Takes a second for a million of them: not for the event loop."""
        starts = range(0, len(self), PART_ENTRIES) or range(1)
        return [self._encode_part(start, len(starts)) for start in starts]

    def _encode_part(self, start: int, parts: int) -> bytes:
        names = "".join(f"{name}/" for name in self._names[start : start + PART_ENTRIES]).encode()
        rows = memoryview(self._rows)[start * _ROW.size : (start + PART_ENTRIES) * _ROW.size]
        packer = zlib.compressobj(1)
        head = _HEAD.pack(_MAGIC, parts, len(rows) // _ROW.size, len(names))
        return head + packer.compress(names) + packer.compress(rows) + packer.flush()


def parts_of(record: bytes) -> int:
    """The number of records that a directory was stored as, from the first of them. Raises CorruptData."""
    if len(record) < _HEAD.size or record[:4] != _MAGIC:
        raise CorruptData("not a listing")
    parts: int = _HEAD.unpack_from(record)[1]
    return parts


def decode_entries(folder: str, records: Sequence[bytes]) -> Entries:
    """What `Entries.encode` gave. Raises CorruptData."""
    names: list[str] = []
    rows = bytearray()
    for record in records:
        parts_of(record)
        _, _, count, name_bytes = _HEAD.unpack_from(record)
        if count > PART_ENTRIES or name_bytes > count * 4 * NAME_BYTES_MAX:
            raise CorruptData("not a listing")
        length = name_bytes + count * _ROW.size
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(record[_HEAD.size :], length + 1)
            found = data[:name_bytes].decode().split("/")
        except (zlib.error, UnicodeDecodeError):
            raise CorruptData("not a listing") from None
        if len(data) != length or len(found) != count + 1 or found.pop():
            raise CorruptData("not a listing")
        names += found
        rows += memoryview(data)[name_bytes:]
    return Entries(folder, names, rows)


class EntriesBuilder:
    """Gathers the entries of a directory, page by page; of two with one name the first stays."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._rows = bytearray()
        self.has_xet = False
        """Whether a file in Xet is among them."""

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, entry: TreeEntry) -> None:
        """Add an entry that is called `name` in this directory."""
        flags = (
            (_DIRECTORY if entry.kind == "directory" else 0)
            | (_MTIME if entry.mtime_s is not None else 0)
            | (_OID if entry.oid else 0)
            | (_FILE_ID if entry.file_id is not None else 0)
            | (_SHA256 if entry.sha256 is not None else 0)
        )
        self.has_xet = self.has_xet or entry.file_id is not None
        self._names.append(name)
        self._rows += _ROW.pack(
            flags, entry.size, entry.mtime_s or 0, bytes.fromhex(entry.oid), entry.file_id or b"", entry.sha256 or b""
        )

    def finish(self) -> tuple[Entries, Sequence[str]]:
        """The entries, and the names that came more than once. Takes seconds for a million: not for the event loop."""
        names, rows = self._names, self._rows
        if all(map(lt, names, islice(names, 1, None))):  # as the Hub sends them; nothing is copied
            return Entries(self._folder, names, rows), ()
        order = sorted(range(len(names)), key=names.__getitem__)
        ordered: list[str] = []
        ordered_rows = bytearray()
        repeated: list[str] = []
        for at in order:
            if ordered and ordered[-1] == names[at]:
                repeated.append(names[at])
            else:
                ordered.append(names[at])
                ordered_rows += rows[at * _ROW.size : (at + 1) * _ROW.size]
        return Entries(self._folder, ordered, ordered_rows), repeated
