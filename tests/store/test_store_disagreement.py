"""An index whose table and lookups say different things, as a byte that changed in one of them makes it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from store_samples import make_block, xorb_named

from xetfs.protocol.ranges import ChunkRange
from xetfs.store.api import covered_by
from xetfs.store.disk import DiskStore

OpenStore = Callable[..., DiskStore]
CHUNKS = 16


def places_of_keys(database: bytes) -> list[int]:
    """Where in the file every byte stands of what a key says about chunks, and of the last digits of its xorb."""
    found = re.finditer(rb"(?<=b/[0-9a-f]{60})[0-9a-f]{4}/[0-9]{5}-[0-9]{5}", database)
    return [at for match in found for at in range(match.start(), match.end())]


def test_what_is_not_found_is_not_held_either(tmp_path: Path, open_store: OpenStore) -> None:
    """Else a reader would wait for what it is promised and never given."""
    store = open_store()
    for number in (1, 2):
        for first in range(0, CHUNKS, 4):
            store.put(make_block(number, first))
    store.close()
    cache, good = tmp_path / "cache", tmp_path / "good"
    shutil.copytree(cache, good)
    good.chmod(0o700)
    pristine = (good / "cache.db").read_bytes()
    places = places_of_keys(pristine)
    assert len(places) > 100
    lost = 0
    for at in places:
        spoilt = bytearray(pristine)
        spoilt[at] = ord("9") if spoilt[at] != ord("9") else ord("1")
        shutil.rmtree(cache)
        shutil.copytree(good, cache)
        (cache / "cache.db").write_bytes(spoilt)
        store = open_store()
        for number in (1, 2):
            for chunk in range(CHUNKS):
                block = store.find(xorb_named(number), chunk)
                if block is None:
                    lost += 1
                    assert not covered_by(ChunkRange(chunk, chunk + 1), store.held(xorb_named(number))), at
                else:
                    assert block.chunks.start <= chunk < block.chunks.end
                    assert block.xorb == xorb_named(number)
        store.close()
    assert lost > 0


def test_when_the_rows_cannot_be_read_their_blocks_are_not_held(tmp_path: Path, open_store: OpenStore) -> None:
    """The keys can be on a page that is good, the rows on one that is not."""
    store = open_store()
    for first in range(0, CHUNKS, 4):
        store.put(make_block(1, first))
    store.close()
    path = tmp_path / "cache" / "cache.db"
    database = bytearray(path.read_bytes())
    page_bytes = int.from_bytes(database[16:18], "big")
    pages = [at for at in range(0, len(database), page_bytes) if b".val" in database[at : at + page_bytes]]
    for at in pages:
        database[at] ^= 1  # no kind of page
    path.write_bytes(database)
    store = open_store()
    assert store.find(xorb_named(1), 0) is None
    assert store.held(xorb_named(1)) == ()
    store.put(make_block(1))  # which opens the index anew
    assert store.find(xorb_named(1), 0) is not None
