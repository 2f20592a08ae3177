"""safetensors as everybody opens it: a file mapped into memory."""

from __future__ import annotations

import hashlib
import json
import random

import loader_data
import pytest
import safetensors.numpy
from loader_data import INDEX, MIB, MODEL, SHARDS
from loader_runs import Loaders

HEADERS = """
import sys
from safetensors import safe_open
for path in sys.argv[1:]:
    with safe_open(path, framework="numpy") as file:
        print(len(list(file.keys())))
"""
TENSORS = """
import hashlib, sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework="numpy") as file:
    for name in sys.argv[2:] or sorted(file.keys()):
        print(name, hashlib.sha256(file.get_tensor(name)).hexdigest())
"""
# What the C library does when it copies a tensor whose place in the file and in memory lie unfavourably to each other.
BACKWARD = """
import hashlib, json, mmap, sys
with open(sys.argv[1], "rb") as file:
    head = file.read(8)
    data = 8 + int.from_bytes(head, "little")
    entries = json.loads(file.read(data - 8))
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
spans = {name: entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"}
for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
    sum(mapped[data + at] for at in range(end - 1, start - 1, -4096))
for name, (start, end) in sorted(spans.items()):
    print(name, hashlib.sha256(memoryview(mapped)[data + start:data + end]).hexdigest())
"""


def expected(loaders: Loaders, names: list[str]) -> tuple[list[str], int]:
    """What TENSORS prints of these, and their bytes."""
    tensors = safetensors.numpy.load_file(loaders.folder / MODEL)
    lines = [f"{name} {hashlib.sha256(tensors[name]).hexdigest()}" for name in names or sorted(tensors)]
    return lines, sum(tensors[name].nbytes for name in names or tensors)


def names_of(loaders: Loaders) -> tuple[list[str], list[str]]:
    """The large and the small tensors."""
    with (loaders.folder / MODEL).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    names = sorted(name for name in header if name != "__metadata__")
    return [name for name in names if "mlp" in name], [name for name in names if "norm" in name]


def test_a_header_alone_moves_less_than_a_mebibyte_of_each_shard(loaders: Loaders) -> None:
    printed, moved = loaders.run(HEADERS, *[loader_data.shard(number) for number in range(SHARDS)])
    assert printed.split() == ["500"] * SHARDS
    assert moved < SHARDS * MIB


def test_the_headers_of_all_shards_come_at_once_when_the_index_is_read(loaders: Loaders) -> None:
    """Which is how a program that opens them one after the other is spared their round trips."""
    loaders.hub.control("PUT", "shape", {"latency_s": 0.1})
    try:
        shards = [loader_data.shard(number) for number in range(SHARDS)]
        printed, moved = loaders.run(f"import json, sys; json.load(open({INDEX!r}))\n{HEADERS}", *shards)
    finally:
        loaders.hub.control("PUT", "shape", {})
    assert printed.split() == ["500"] * SHARDS
    assert moved < SHARDS * MIB + (loaders.folder / INDEX).stat().st_size
    asked: dict[str, float] = {}
    for request in loaders.hub.requests("cas"):
        if "/reconstructions/" in request["path"]:
            asked.setdefault(request["path"], request["start"])
    index, *headers = sorted(asked.values())
    assert len(headers) == SHARDS
    second = sorted(request["end"] for request in loaders.hub.requests("transfer"))[1]  # the first is that of the index
    assert index < max(headers) < second


def test_one_tensor_moves_that_and_little_beside_it(loaders: Loaders) -> None:
    name = names_of(loaders)[0][7]
    lines, size = expected(loaders, [name])
    printed, moved = loaders.run(TENSORS, MODEL, name)
    assert printed.splitlines() == lines
    assert size <= moved <= size + 3 * MIB


@pytest.mark.production
@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_a_quarter_of_the_tensors_moves_no_more_than_30_percent(loaders: Loaders, order: str) -> None:
    """A quarter of the large and of the small ones."""
    chance = random.Random(9)
    names = [name for group in names_of(loaders) for name in chance.sample(group, len(group) // 4)]
    names.sort(key=None if order == "in order" else lambda name: chance.random())
    lines, size = expected(loaders, names)
    printed, moved = loaders.run(TENSORS, MODEL, *names)
    assert printed.splitlines() == lines
    whole = (loaders.folder / MODEL).stat().st_size
    assert 0.22 * whole <= size <= moved <= 0.3 * whole


def test_consecutive_layers_move_little_more_than_these(loaders: Loaders) -> None:
    """As one of four machines does that each run a part of the layers."""
    names = sorted(name for group in names_of(loaders) for name in group if "layers.04" <= name < "layers.08")
    lines, size = expected(loaders, names)
    printed, moved = loaders.run(TENSORS, MODEL, *names)
    assert printed.splitlines() == lines
    assert moved <= 1.5 * size


def test_tensors_that_are_copied_backward_move_the_file_once_and_take_no_question_for_each_request(loaders: Loaders) -> None:
    lines, _ = expected(loaders, [])
    printed, moved = loaders.run(BACKWARD, MODEL)
    assert printed.splitlines() == lines
    assert moved <= 1.02 * (loaders.folder / MODEL).stat().st_size
    assert len(loaders.hub.requests("cas")) <= 140


def test_all_tensors_move_the_file_once(loaders: Loaders) -> None:
    lines, _ = expected(loaders, [])
    printed, moved = loaders.run(TENSORS, MODEL)
    assert printed.splitlines() == lines
    assert moved <= 1.02 * (loaders.folder / MODEL).stat().st_size
