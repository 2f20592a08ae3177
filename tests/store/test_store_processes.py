"""Several processes on one directory, and processes that are killed while they write."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from store_samples import make_block, xorb_named

from xetfs.errors import CorruptData
from xetfs.store.disk import DiskStore
from xetfs.units import MIB

OpenStore = Callable[..., DiskStore]

PROGRAM = """
    import sys
    sys.path.insert(0, {helpers!r})
    from pathlib import Path
    from store_samples import make_block, xorb_named
    from xetfs.settings import StoreSettings
    from xetfs.store.disk import DiskStore
    from xetfs.telemetry import Counters

    store = DiskStore(StoreSettings(cache_dir=Path({cache!r}), cache_bytes_max={limit}, cache_free_share=0.0), Counters())
    print("ready", flush=True)
"""


def start(cache: Path, body: str, *, limit: int = 64 * MIB) -> subprocess.Popen[str]:
    """Another process with a store on the same directory; `body` is what it does with `store`."""
    program = textwrap.dedent(PROGRAM).format(helpers=str(Path(__file__).parent), cache=str(cache), limit=limit)
    program += textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


def holds(store: DiskStore, number: int, lengths: tuple[int, ...] = (1000, 70000, 1, 30000)) -> bool:
    """Whether a block is held. Fails if it is held and wrong."""
    block = make_block(number, 0, lengths)
    found = store.find(block.xorb, 0)
    if found is None:
        return False
    assert bytes(found.read(0, len(block.data))) == bytes(block.data)
    return True


def test_two_processes_find_one_anothers_blocks_and_records(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store.put(make_block(1))
    other = start(
        tmp_path / "cache",
        """
        store.put(make_block(2))
        store.put_record("map", "theirs", b"value")
        found = store.find(xorb_named(1), 0)
        print(bytes(found.read(0, 101001)) == bytes(make_block(1).data), store.get_record("map", "ours"), flush=True)
        sys.stdin.readline()
        found = store.find(xorb_named(3), 0)
        print(bytes(found.read(0, 101001)) == bytes(make_block(3).data))
        store.close()
        """,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True None\n"
    assert holds(store, 2)
    assert store.get_record("map", "theirs") == b"value"
    store.put(make_block(3))
    assert finish(other) == "True\n"


def test_two_processes_keep_within_one_budget(tmp_path: Path, open_store: OpenStore) -> None:
    limit = 3 * MIB
    store = open_store(cache_bytes_max=limit)
    body = """
        for number in range(1000, 1150):
            store.put(make_block(number))
        found = [store.find(xorb_named(number), 0) for number in range(1000, 1150)]
        assert any(found)
        assert store.statistics().state == "ok", store.statistics()
        store.close()
    """
    other = start(tmp_path / "cache", body, limit=limit)
    for number in range(150):
        store.put(make_block(number))
        used = sum(_size(file) for file in (tmp_path / "cache").glob("??/*.val"))
        assert used <= limit + 2 * 110_000
    finish(other)
    assert store.statistics().bytes <= limit
    assert store.statistics().state == "ok"
    assert any(holds(store, number) for number in range(150))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_store_notices_that_another_process_began_a_new_index(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store.put(make_block(1))
    other = start(
        tmp_path / "cache",
        """
        store._backing.damaged = True
        store.put(make_block(2))
        store.close()
        """,
    )
    finish(other)
    store.put(make_block(3))
    assert holds(store, 2)
    assert holds(store, 3)
    assert not holds(store, 1)


def test_processes_killed_while_writing_leave_nothing_wrong(tmp_path: Path, open_store: OpenStore) -> None:
    cache = tmp_path / "cache"
    rng = random.Random(17)
    lengths = (131072,) * 6
    body = """
        for number in range({first}, {first} + 400):
            store.put(make_block(number, 0, (131072,) * 6))
            print(number, flush=True)
    """
    written = 0
    for round_ in range(10):
        process = start(cache, body.format(first=1000 * round_), limit=12 * MIB)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 12)):
            process.stdout.readline()
            written += 1
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
    assert written > 20
    store = open_store(cache_bytes_max=12 * MIB)
    held = 0
    for number in (1000 * round_ + i for round_ in range(10) for i in range(14)):
        try:
            held += holds(store, number, lengths)
        except CorruptData:
            raise AssertionError("a process that is killed cannot tear a file that has a row") from None
    assert held >= 5
    for file in cache.glob("??/*.val"):
        os.utime(file, (1, 1))
    store.sweep()
    named = store.statistics().blocks_and_records
    assert len(list(cache.glob("??/*.val"))) == named
    assert sum(_size(file) for file in cache.glob("??/*.val")) <= 12 * MIB
    store.put(make_block(1))
    assert holds(store, 1)
    assert xorb_named(1) == make_block(1).xorb
