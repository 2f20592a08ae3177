"""Buffers: as long as asked, never shared by two who use them, used again when nobody does."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol import memory
from xetfs.protocol.memory import MAPPED_BYTES_MAX, new_buffer, release_unused
from xetfs.settings import MIB


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


def test_a_mapping_serves_whoever_asks_for_a_little_less() -> None:
    release_unused()
    del (large := [new_buffer(9 * MIB)])[0]
    gc.collect()
    unused = memory._kept.unused_bytes
    little_less, much_less = new_buffer(7 * MIB), new_buffer(2 * MIB)
    assert (len(little_less), len(much_less), len(large)) == (7 * MIB, 2 * MIB, 0)
    assert unused >= 9 * MIB
    assert memory._kept.unused_bytes == 0


def test_what_is_kept_is_bounded_and_can_be_given_back() -> None:
    buffers = [new_buffer(16 * MIB) for _ in range(20)]
    assert sum(len(buffer) for buffer in buffers) > MAPPED_BYTES_MAX
    buffers.clear()
    gc.collect()
    assert 16 * MIB <= memory._kept.unused_bytes <= MAPPED_BYTES_MAX
    release_unused()
    assert memory._kept.unused_bytes == 0
