"""Files that are not what their name says, or not any more: whatever they hold, a layout is read in bounded steps or given up."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol.formats import Layout, probe
from xetfs.protocol.formats.layout import HEADER_BYTES_MAX, UNITS_MAX
from xetfs.protocol.ranges import ByteRange

NAMES = ("x.safetensors", "x.gguf", "x.parquet", "x.pt")
PIECE_BYTES_MAX = 256 * 1024


def read(name: str, size: int, bytes_of: Callable[[ByteRange], bytes]) -> Layout | None:
    """Read a layout, and check on the way what every reader and every layout must keep to."""
    reader = probe(name, size)
    assert reader is not None
    asked = steps = 0
    while reader.wants is not None:
        wanted = reader.wants
        assert 0 < len(wanted) <= PIECE_BYTES_MAX
        assert wanted.end <= size
        asked, steps = asked + len(wanted), steps + 1
        reader.feed(bytes_of(wanted))
    assert asked <= min(size + PIECE_BYTES_MAX, HEADER_BYTES_MAX + 2 * PIECE_BYTES_MAX)
    assert steps <= 8 + asked // 16
    layout = reader.layout
    if layout is not None:
        assert layout.header.end <= size
        edges = [edge for unit in layout.units for edge in (unit.start, unit.end)]
        assert edges == sorted(edges)
        assert len(edges) <= 2 * UNITS_MAX
        assert not edges or edges[-1] <= size
    return layout


def read_bytes(name: str, content: bytes) -> Layout | None:
    return read(name, len(content), lambda span: content[span.start : span.end])


@cache
def honest(name: str) -> bytes:
    """A small file as the library of the format writes it."""
    if name == "x.safetensors":
        return safetensors.numpy.save({f"t{i}": np.arange(i, dtype=np.int16) for i in range(9)}, {"format": "np"})
    if name == "x.gguf":
        with TemporaryDirectory() as folder:
            writer = gguf.GGUFWriter(Path(folder) / name, "llama")
            writer.add_token_list(["a", "bc", "def"])
            writer.add_custom_alignment(64)
            for i in range(5):
                writer.add_tensor(f"t{i}", np.zeros((i + 1, 4), np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            return (Path(folder) / name).read_bytes()
    sink = io.BytesIO()
    if name == "x.parquet":
        pq.write_table(pa.table({"a": [1, 2, 3], "b": ["x", None, "y"], "c": [[1], [], [2]]}), sink, row_group_size=2)
    else:
        with zipfile.ZipFile(sink, "w") as archive:
            for i in range(5):
                archive.writestr(f"archive/data/{i}", bytes(i * 20))
    return sink.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_honest_files_have_a_layout(name: str) -> None:
    layout = read_bytes(name, honest(name))
    assert layout is not None
    assert len(layout.starts) >= 5


@given(st.sampled_from(NAMES), st.binary(max_size=3000), st.integers(0, 40))
def test_any_bytes(name: str, content: bytes, kept: int) -> None:
    """Random bytes behind an honest beginning, and in front of an honest end."""
    whole = honest(name)
    read_bytes(name, content)
    read_bytes(name, whole[:kept] + content)
    read_bytes(name, whole[:4] + content + whole[len(whole) - kept :])


@given(st.sampled_from(NAMES), st.data())
def test_honest_files_with_some_bytes_changed(name: str, data: st.DataObject) -> None:
    content = bytearray(honest(name))
    interesting = st.sampled_from([0, 1, 9, 12, 0x1C, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        for value in data.draw(st.lists(interesting, min_size=1, max_size=9)):
            if place < len(content):
                content[place] = value
            place += 1
    read_bytes(name, bytes(content))


@pytest.mark.parametrize("name", NAMES)
def test_honest_files_cut_anywhere(name: str) -> None:
    """Beginnings of a file; a format that ends in what matters has no layout in any of them."""
    whole = honest(name)
    found = [read_bytes(name, whole[:end]) is not None for end in range(len(whole))]
    if name != "x.gguf":  # there the last tensor ends where the file does
        assert not any(found)


@given(st.sampled_from(NAMES), st.data())
def test_honest_files_with_a_part_taken_out_or_doubled(name: str, data: st.DataObject) -> None:
    whole = honest(name)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    read_bytes(name, whole[:start] + whole[end:])
    read_bytes(name, whole[:end] + whole[start:])


@given(st.lists(st.integers(0, 300), max_size=40), st.randoms(use_true_random=False), st.integers(0, 50))
def test_safetensors_of_any_sizes_in_any_order(sizes: list[int], choose: object, gap: int) -> None:
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    entries = [(f'"t{i}":{{"data_offsets":[{start},{end}]}}', start, end) for i, (start, end) in enumerate(pairwise(ends))]
    choose.shuffle(entries)  # type: ignore[attr-defined]
    text = ("{" + ",".join(entry for entry, _, _ in entries) + "}").encode()
    layout = read_bytes("x.safetensors", len(text).to_bytes(8, "little") + text + bytes(ends[-1] + gap))
    assert layout is not None
    base = 8 + len(text)
    assert layout.units == tuple(ByteRange(base + start, base + end) for start, end in pairwise(ends) if start < end)
    for offset in range(layout.header.end, layout.header.end + ends[-1] + gap + 1):
        holding = [unit for unit in layout.units if unit.start <= offset < unit.end]
        assert layout.unit_at(offset) == (holding[0] if holding else None)


REPEATED = {
    "x.safetensors": [b'"data_offsets":[', b'"data_offsets":[1,2]', b'"data_offsets"        ', b"{", b'"', b"[0,"],
    "x.gguf": [struct.pack("<QI", 0, 7) + b"\0", struct.pack("<QIIQ", 0, 9, 9, 1 << 60), struct.pack("<QIQ", 0, 8, 0), bytes(8)],
    "x.parquet": [
        b"\x1c",
        b"\x19\x1c",
        b"\x49\x1c\x19\xfc\xff\xff\xff\x7f",
        b"\x18\x00",
        b"\x15\x00",
        b"\x19\xf5\xff\xff\xff\x7f",
        b"\1",
    ],
    "x.pt": [b"PK\1\2" + bytes(42), b"PK\1\2" + b"\xff" * 42, b"PK\5\6", b"PK\5\6" + bytes(18), b"PK\6\6PK\6\7"],
}


def head_and_tail(name: str, size: int) -> tuple[bytes, bytes]:
    """What makes the reader of a format take everything in between for its header."""
    if name == "x.safetensors":
        return (size - 8).to_bytes(8, "little") + b"{", b""
    if name == "x.gguf":
        return b"GGUF" + struct.pack("<IQQ", 3, 1000, 1 << 60), b""
    if name == "x.parquet":
        return b"PAR1", struct.pack("<I", size - 12) + b"PAR1"
    return b"PK\3\4", struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0, 0xFFFF, size - 26, 4, 0)


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in REPEATED.items() for part in parts])
def test_what_is_held_is_bounded_whatever_repeats(name: str, part: bytes) -> None:
    """A header of 256 KiB that is the same few bytes over and over: no more memory than a few pieces and the units."""
    size = 256 << 10
    head, tail = head_and_tail(name, size)
    body = part * (size // len(part))
    content = head + body[: size - len(head) - len(tail)] + tail
    tracemalloc.start()
    try:
        read_bytes(name, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
