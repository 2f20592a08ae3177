"""Buffers: as long as asked, never shared by two who use them, used again when nobody does."""

from __future__ import annotations

import ctypes
import gc
import mmap
import random
from array import array
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol import memory
from xetfs.protocol.memory import ARENA_BYTES, MAPPED_BYTES_MIN, STRETCH_STEP, Arena, new_buffer, release_unused
from xetfs.units import MIB


@given(st.lists(st.integers(0, 3 * 1024 * 1024), max_size=8))
def test_buffers_in_use_are_apart(sizes: list[int]) -> None:
    buffers = [new_buffer(size) for size in sizes]
    for i, buffer in enumerate(buffers):
        assert len(buffer) == sizes[i]
        buffer[:] = bytes([i + 1]) * len(buffer)
    for i, buffer in enumerate(buffers):
        assert bytes(buffer) == bytes([i + 1]) * sizes[i]


def test_memory_is_used_again_only_when_its_last_view_is_gone() -> None:
    size = 5 * 1024 * 1024
    first = new_buffer(size)
    first[:4] = b"mine"
    part = first[:4].toreadonly()
    del first
    gc.collect()
    second = new_buffer(size)
    second[:4] = b"your"
    assert bytes(part) == b"mine"
    del part, second
    gc.collect()
    assert bytes(new_buffer(size)[:4]) in (b"mine", b"your")


def test_whatever_was_used_before_is_used_again_by_buffers_of_any_size() -> None:
    release_unused()
    rng = random.Random(4)
    held = 0
    for _ in range(100):
        buffers = [new_buffer(rng.randrange(MAPPED_BYTES_MIN, 16 * MIB)) for _ in range(3)]
        for buffer in buffers:
            buffer[:: mmap.PAGESIZE] = bytes(len(buffer[:: mmap.PAGESIZE]))
        del buffer
        buffers.clear()
        held = max(held, _resident_bytes())
    assert held <= 3 * 16 * MIB + 4 * MIB


def test_more_than_the_arena_holds_is_had_all_the_same() -> None:
    buffers = [new_buffer(16 * MIB) for _ in range(20)]
    for i, buffer in enumerate(buffers):
        buffer[-1] = i
    assert [buffer[-1] for buffer in buffers] == list(range(20))
    del buffer
    buffers.clear()
    gc.collect()
    assert memory._arena.unused_bytes == ARENA_BYTES


def test_what_nobody_uses_can_be_given_back() -> None:
    used, unused = new_buffer(8 * MIB), new_buffer(40 * MIB)
    used[:] = b"u" * len(used)
    unused[:] = b"n" * len(unused)
    del unused
    assert _resident_bytes() >= 48 * MIB
    release_unused()
    assert 8 * MIB <= _resident_bytes() <= 12 * MIB
    assert used[0] == used[-1] == ord("u")


def _resident_bytes() -> int:
    """How much memory the mapping has that buffers are stretches of."""
    address = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory._arena.mapping))
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(address // mmap.PAGESIZE * 8)
        entries = array("Q", pages.read(ARENA_BYTES // mmap.PAGESIZE * 8))
    return mmap.PAGESIZE * sum(entry >> 63 for entry in entries)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_stretches_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    arena = Arena(64 * STRETCH_STEP)
    held: list[tuple[int, int]] = []
    for take, number in steps:
        if take:
            length = number * STRETCH_STEP
            start = arena.take(length)
            if start is None:
                continue
            assert 0 <= start <= start + length <= 64 * STRETCH_STEP
            assert all(start + length <= other or other + size <= start for other, size in held)
            held.append((start, length))
        elif held:
            arena.give(*held.pop(number % len(held)))
        assert arena.unused_bytes == 64 * STRETCH_STEP - sum(size for _, size in held)
    for stretch in held:
        arena.give(*stretch)
    assert arena.take(64 * STRETCH_STEP) == 0


def test_a_view_may_die_while_memory_is_taken() -> None:
    """The garbage collector runs at any moment, with the lock held too."""
    arena = Arena(MIB)
    start = arena.take(STRETCH_STEP)
    assert start is not None
    with arena._lock:
        arena.give(start, STRETCH_STEP)
    assert arena.unused_bytes == MIB
