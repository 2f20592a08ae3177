"""Buffers: as long as asked, never shared by two who use them, used again when nobody does."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol.memory import KEPT_BYTES_MAX, MAPPED_BYTES_MIN, new_buffer


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


def test_what_is_kept_is_bounded() -> None:
    from xetfs.protocol import memory

    buffers = [new_buffer(8 * 1024 * 1024) for _ in range(12)]
    assert sum(len(buffer) for buffer in buffers) > KEPT_BYTES_MAX
    buffers.clear()
    gc.collect()
    held = sum(len(mapping) for mappings in memory._kept._free.values() for mapping in mappings)
    assert MAPPED_BYTES_MIN <= held <= KEPT_BYTES_MAX
