"""Xorbs as the hub keeps them: with the footer of the reference, and refused when it is not theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xetfs.errors import CorruptData, EntryNotFound
from xetfs.protocol.footer import parse_footer
from xetfs.protocol.hashes import ZERO_HASH, XorbHash, chunk_hash
from xetfs.protocol.xorb import Scheme, encode_xorb
from xetfs.testhub.storage import Storage
from xetfs.testhub.xetstore import XetStore

CHUNKS = [b"a" * 20_000, bytes(range(256)) * 100, b"the last"]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path / "hub")
    yield storage
    storage.close()


@pytest.mark.parametrize("scheme", [None, *Scheme])
def test_a_stored_xorb_ends_with_the_footer_of_its_chunks(storage: Storage, scheme: Scheme | None) -> None:
    xet = XetStore(storage)
    xorb = xet.add_xorb(CHUNKS, scheme)
    stored = xet.xorb_path(xorb).read_bytes()
    info = parse_footer(stored)
    assert info is not None
    assert info.xorb == xorb
    assert info.hashes == tuple(chunk_hash(chunk) for chunk in CHUNKS)
    assert info.data_ends == (20_000, 45_600, 45_608)
    assert stored[: info.wire_ends[-1]] == encode_xorb(CHUNKS, scheme).wire
    again = XetStore(storage).index(xorb)  # nothing in memory: read from the footer
    assert again.hashes == info.hashes
    assert again.wire.tolist() == [0, *info.wire_ends]
    assert again.data.tolist() == [0, *info.data_ends]


def test_an_uploaded_footer_is_replaced_by_our_own(storage: Storage) -> None:
    xet = XetStore(storage)
    encoded = encode_xorb(CHUNKS)
    assert xet.put_xorb(encoded.xorb, encoded.wire + b"XETBLOB\x07 of a time to come")
    assert xet.index(encoded.xorb).hashes == encoded.hashes
    assert not xet.put_xorb(encoded.xorb, b"held already, so not looked at")


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored[:-1],
        lambda stored: b"",
        lambda stored: stored[:9],
        lambda stored: b"x" + stored,
        lambda stored: bytes(99),
    ],
    ids=["cut", "empty", "a stump", "too long", "zeros"],
)
def test_a_xorb_that_is_not_whole_any_more_is_corrupt(storage: Storage, damage: Callable[[bytes], bytes]) -> None:
    xet = XetStore(storage)
    xorb = xet.add_xorb(CHUNKS)
    path = xet.xorb_path(xorb)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptData):
        XetStore(storage).index(xorb)


def test_a_xorb_under_a_wrong_name_is_corrupt_and_a_missing_one_is_not_found(storage: Storage) -> None:
    xet = XetStore(storage)
    one, other = xet.add_xorb(CHUNKS), xet.add_xorb(CHUNKS[:1])
    xet.xorb_path(one).replace(xet.xorb_path(other))
    with pytest.raises(CorruptData, match="no footer of its own"):
        XetStore(storage).index(other)
    with pytest.raises(EntryNotFound):
        XetStore(storage).index(XorbHash(ZERO_HASH))
