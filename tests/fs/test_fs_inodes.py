from __future__ import annotations

import random

import pytest
from fake_view import COMMIT, FakeNode, FakeRepoView
from hypothesis import given
from hypothesis import strategies as st
from pyfuse3 import FUSEError

from xetfs.errors import BadHandle
from xetfs.fs import inodes
from xetfs.fs.inodes import HandleTable, InodeTable, name_from_kernel, name_to_kernel


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


KNOWN = {"a/0": 6431738283945552051, "näme ☃/1": 4629199421977964610}
PATHS = [f"{folder}/{name}" for folder in ("a", "b/c", "näme ☃") for name in range(50)]


def numbers(paths: list[str], commit: str = COMMIT) -> dict[str, int]:
    """The inode numbers of a fresh mount whose files are looked up in this order."""
    view = FakeRepoView(dict.fromkeys(PATHS, b""))
    table = InodeTable(view.root, commit)  # type: ignore[arg-type]
    return {path: table.number(view.at(path)) for path in paths}  # type: ignore[arg-type]


def test_a_path_has_the_same_number_in_every_mount_of_its_commit() -> None:
    shuffled = random.Random(0).sample(PATHS, len(PATHS))
    assert numbers(PATHS) == numbers(shuffled) == numbers(PATHS) | numbers(PATHS[:3])
    assert len(set(numbers(PATHS).values())) == len(PATHS)
    assert all(1 < number < 2**63 for number in numbers(PATHS).values())
    assert not set(numbers(PATHS).values()) & set(numbers(PATHS, commit="f" * 40).values())


def test_known_numbers() -> None:
    """Other versions of the program must give the same ones."""
    assert numbers(["a/0", "näme ☃/1"]) == KNOWN


@pytest.mark.parametrize("taken", [0, 1, 77])
def test_equal_hashes_and_reserved_numbers_are_avoided(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """77 is what the first attempt gives to every path; 0 is no inode, 1 the root."""
    view = FakeRepoView({"x": b"", "y": b"", "z": b""})
    table = InodeTable(view.root, COMMIT)  # type: ignore[arg-type]
    real = inodes.inode_hash
    monkeypatch.setattr(inodes, "inode_hash", lambda keyed, path, attempt: real(keyed, path, attempt) if attempt else taken)
    nodes: list[FakeNode] = [view.root, *map(view.at, "xyz")]
    found = [table.number(node) for node in nodes]  # type: ignore[arg-type]
    assert len(set(found)) == 4
    assert [table.node(number) for number in found] == nodes
    assert [table.number(node) for node in nodes] == found  # type: ignore[arg-type]


def test_a_number_that_was_not_given_out_is_stale() -> None:
    table = InodeTable(FakeRepoView({}).root, COMMIT)  # type: ignore[arg-type]
    with pytest.raises(FUSEError):
        table.node(2)
    assert table.find(2) is None
