"""Directories in little memory, and as records of the store."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.names import is_servable_name
from xetfs.protocol.tree import TreeEntry
from xetfs.repo import entries as entries_module
from xetfs.repo.entries import Entries, EntriesBuilder, decode_entries, parts_of

HASH = st.binary(min_size=32, max_size=32)
NAMES = st.text(min_size=1, max_size=20).filter(is_servable_name)


@st.composite
def tree_entries(draw: st.DrawFn, path: str) -> TreeEntry:
    oid = draw(st.just("") | st.binary(min_size=20, max_size=20).map(bytes.hex))
    mtime_s = draw(st.none() | st.integers(0, 2**33))
    if draw(st.booleans()):
        return TreeEntry(path, "directory", 0, oid, mtime_s=mtime_s)
    file_id = draw(st.none() | HASH.map(lambda data: FileId(MerkleHash(data))))
    return TreeEntry(path, "file", draw(st.integers(0, 2**53)), oid, file_id, draw(st.none() | HASH), mtime_s)


def build(folder: str, found: list[tuple[str, TreeEntry]]) -> tuple[Entries, list[str]]:
    builder = EntriesBuilder(folder)
    for name, entry in found:
        builder.add(name, entry)
    entries, repeated = builder.finish()
    return entries, list(repeated)


@given(st.data(), st.sampled_from(["", "a/b"]), st.lists(NAMES, max_size=30), st.integers(1, 7))
def test_what_goes_in_comes_out_sorted_and_once_also_through_the_store(
    data: st.DataObject, folder: str, names: list[str], part: int
) -> None:
    def path(name: str) -> str:
        return f"{folder}/{name}" if folder else name

    found = [(name, data.draw(tree_entries(path(name)))) for name in names]
    first = dict(reversed(found))
    expected = [first[name] for name in sorted(first)]
    entries, repeated = build(folder, found)
    assert len(repeated) == len(names) - len(first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries_module, "PART_ENTRIES", part)
        records = entries.encode()
        assert parts_of(records[0]) == len(records)
        again = decode_entries(folder, records)
    for held in (entries, again):
        assert [held.entry(index) for index in range(len(held))] == expected
        for index, entry in enumerate(expected):
            assert held.find(held.name(index)) == index
            assert (held.path(index), held.size(index), held.mtime_s(index)) == (entry.path, entry.size, entry.mtime_s)
            assert held.is_directory(index) == (entry.kind == "directory")
        assert held.find("no such name/") is None


def many(count: int) -> list[tuple[str, TreeEntry]]:
    chance = random.Random(5)
    found = []
    for number in range(count):
        name = f"part-{number:08}.bin"
        file_id = FileId(MerkleHash(chance.randbytes(32)))
        entry = TreeEntry(f"train/{name}", "file", number, chance.randbytes(20).hex(), file_id, chance.randbytes(32))
        found.append((name, entry))
    return found


def test_an_entry_takes_less_than_200_bytes_of_memory_and_100_of_the_store() -> None:
    found = many(20_000)
    builder = EntriesBuilder("train")
    tracemalloc.start()
    try:
        for name, entry in found:
            builder.add(f"{name}", entry)
        entries, _ = builder.finish()
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The names are the caller's own objects: 67 bytes each.
    assert held / len(entries) <= 200 - 67
    assert most / len(entries) <= 250 - 67
    assert sum(map(len, entries.encode())) / len(entries) <= 100


@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: data[:10], lambda data: b"xdl0" + data[4:], lambda data: data[:-20],
    lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:], lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:],
    lambda data: data[:8] + b"\x01\0\0\0" + data[12:], lambda data: data[:30] + bytes(10) + data[40:],
])  # fmt: skip
def test_a_record_that_is_none_is_refused(spoil: object) -> None:
    [record] = build("train", many(50))[0].encode()
    with pytest.raises(CorruptData):
        decode_entries("train", [spoil(record)])  # type: ignore[operator]
