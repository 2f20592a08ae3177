from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import BadHandle
from xetfs.fs.inodes import HandleTable, name_from_kernel, name_to_kernel


@given(st.binary())
def test_any_bytes_are_a_name_and_come_back(name: bytes) -> None:
    assert name_to_kernel(name_from_kernel(name)) == name


@given(st.lists(st.booleans()))
def test_handles_are_never_used_again(steps: list[bool]) -> None:
    table: HandleTable[object] = HandleTable()
    held: dict[int, object] = {}
    seen: set[int] = set()
    for opening in steps:
        if opening or not held:
            value = object()
            number = table.add(value)
            assert number not in seen
            seen.add(number)
            held[number] = value
        else:
            number, value = held.popitem()
            assert table.remove(number) is value
            with pytest.raises(BadHandle):
                table.get(number)
        assert len(table) == len(held)
    assert all(table.get(number) is value for number, value in held.items())
    assert table.drain() == list(held.values())
    assert len(table) == 0
