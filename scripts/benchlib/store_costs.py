"""What the store's operations cost with a given number of blocks in it; the cache of a long-lived machine, made in seconds.

    python store_costs.py make DIRECTORY BLOCKS     fill a new store
    python store_costs.py measure DIRECTORY ROUND   open it, find, put; prints what each cost as JSON

Run by the interpreter of the version under test, and by path: it knows of nothing but xetfs. The blocks that are looked for are
put by the store itself. Of the others only rows, files and sizes matter: their rows are written in one transaction, and their
files are links to a few.
"""

import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from xetfs.protocol.hashes import MerkleHash, XorbHash, chunk_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.settings import StoreSettings
from xetfs.store.disk import DiskStore
from xetfs.store.index import DATABASE, block_key
from xetfs.telemetry import STORE_EVICTED, Counters

T = TypeVar("T")
LOOKED_FOR = 1000
"""More than are kept open, so that a find opens a file."""
PUT = 500
CHUNK = b"a small chunk, as it is not its bytes that cost"
LINKS_MAX = 20_000
"""Links to one file; filesystems have a limit."""
IDLE_STEP_S = 0.2
IDLE_CPU_S = 0.002
MAKE_BYTES_MAX = 2**50


def settings(directory: Path, bytes_max: int) -> StoreSettings:
    return StoreSettings(cache_dir=directory, cache_bytes_max=bytes_max, cache_free_share=0.0)


def xorbs(seed: int, count: int) -> list[XorbHash]:
    chance = random.Random(seed)
    return [XorbHash(MerkleHash.from_raw(chance.randbytes(32))) for _ in range(count)]


def block(xorb: XorbHash) -> XorbBlock:
    return XorbBlock(xorb, ChunkRange(0, 1), memoryview(CHUNK), (0, len(CHUNK)), (chunk_hash(CHUNK),))


def make(directory: Path, blocks: int) -> None:
    directory.mkdir()
    store = DiskStore(settings(directory, MAKE_BYTES_MAX), Counters())
    for xorb in xorbs(1, LOOKED_FOR):
        store.put(block(xorb))
    store.close()
    connection = sqlite3.connect(directory / DATABASE, isolation_level=None)
    (sample,) = connection.execute("SELECT size FROM Cache LIMIT 1").fetchone()
    columns = "key, raw, store_time, access_time, access_count, tag, size, mode, filename, value"
    # Used long ago, so that these are what is evicted; mode 2 is a file.
    rows = ((block_key(xorb, ChunkRange(0, 1)), 1, 1e9 + n, 1e9 + n, 0, None, sample, 2, name, None)
            for n, (xorb, name) in enumerate(linked(directory, blocks - LOOKED_FOR)))  # fmt: skip
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT INTO Cache ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def linked(directory: Path, count: int) -> Iterator[tuple[XorbHash, str]]:
    """Xorbs, each with the name of a file of its own in the store's folders."""
    chance = random.Random(2)
    template = directory / "template"
    for number in range(256):
        (directory / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
    for number, xorb in enumerate(xorbs(3, count)):
        if number % LINKS_MAX == 0:
            template.unlink(missing_ok=True)
            template.write_bytes(bytes(len(CHUNK)))
        digits = chance.randbytes(16).hex()
        name = f"{digits[:2]}/{digits[2:]}.val"
        os.link(template, directory / name)
        yield xorb, name
    template.unlink(missing_ok=True)


def measure(directory: Path, round_number: int) -> dict[str, float]:
    """CPU seconds of opening, of what is done once an hour, and of a find, a miss and a put with eviction each."""
    before = time.thread_time()
    counters = Counters()
    store = DiskStore(settings(directory, used_bytes(directory)), counters)
    opened = time.thread_time() - before
    wait_until_idle()
    before = time.thread_time()
    store.sweep()
    upkeep = time.thread_time() - before
    memory = resident_bytes()
    looked_for = xorbs(1, LOOKED_FOR)
    random.Random(round_number).shuffle(looked_for)
    found = each(lambda xorb: store.find(xorb, 0) is not None, looked_for)
    missed = each(lambda xorb: store.find(xorb, 0) is None, xorbs(1000 + round_number, LOOKED_FOR))
    new = [block(xorb) for xorb in xorbs(2000 + round_number, PUT)]
    evicted = counters[STORE_EVICTED]
    put = each(partial(put_one, store), new)
    evicted = counters[STORE_EVICTED] - evicted
    if evicted < PUT // 2:
        sys.exit(f"only {evicted} blocks were evicted by {PUT} puts")
    store.close()
    return {"open_s": opened, "upkeep_s": upkeep, "find_s": found, "miss_s": missed, "put_s": put, "resident_bytes": memory}


def each(act: Callable[[T], bool], values: Sequence[T]) -> float:
    """CPU time of this thread for each value, of which each must do what is expected."""
    before = time.thread_time()
    right = sum(map(act, values))
    spent = time.thread_time() - before
    if right != len(values):
        sys.exit(f"{len(values) - right} of {len(values)} operations did not do what they should")
    return spent / len(values)


def put_one(store: DiskStore, one: XorbBlock) -> bool:
    store.put(one)
    return True  # whether it was kept is seen by what was evicted for it


def used_bytes(directory: Path) -> int:
    """What the store holds now: with that as its limit, each put must evict."""
    connection = sqlite3.connect(directory / DATABASE)
    (size,) = connection.execute("SELECT value FROM Settings WHERE key = 'size'").fetchone()
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    connection.close()
    return int(size) + int(pages) * int(page_bytes)


def wait_until_idle() -> None:
    """The thread that looks after the store begins with a round of it."""
    last = time.process_time() - 1
    while time.process_time() - last > IDLE_CPU_S:
        last = time.process_time()
        time.sleep(IDLE_STEP_S)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    what, path, number = sys.argv[1:]
    if what == "make":
        make(Path(path), int(number))
    else:
        print(json.dumps(measure(Path(path), int(number))))
