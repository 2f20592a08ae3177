"""Layouts of Parquet files, as the library writes them and as others might."""

from __future__ import annotations

import io
import os
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats_reading import layout_of, read

from xetfs.protocol.ranges import ByteRange


def write_parquet(rows: int, **options: object) -> bytes:
    table = pa.table(
        {
            "id": pa.array(range(rows)),
            "text": pa.array([f"row {i % 50}" for i in range(rows)]),
            "flags": pa.array([[True, False]] * rows),
            "point": pa.array([{"x": i / 3, "y": None} for i in range(rows)]),
            "image": pa.array([os.urandom(50) for _ in range(rows)]),
        },
        metadata={"huggingface": "x" * 100_000},
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"row_group_size": 100},
        {"row_group_size": 1000, "compression": "none", "use_dictionary": False, "version": "1.0"},
        {"row_group_size": 7, "write_page_index": True, "data_page_version": "2.0", "write_statistics": False},
    ],
)
def test_parquet_as_the_library_writes_it(options: dict[str, object]) -> None:
    content = write_parquet(1000, **options)
    layout, asked = read("train.parquet", content)
    assert layout is not None
    told = pq.read_metadata(io.BytesIO(content))
    assert layout.header == ByteRange(len(content) - 8 - told.serialized_size, len(content))
    assert asked <= len(layout.header)
    groups = [told.row_group(i) for i in range(told.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    expected = []
    for chunk in chunks:
        start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        expected.append(ByteRange(start, start + chunk.total_compressed_size))
    assert layout.units == tuple(expected)
    assert len(expected) == 6 * told.num_row_groups


def test_parquet_without_rows() -> None:
    layout = layout_of("x.parquet", write_parquet(0))
    assert 1 <= len(layout.starts) <= 6  # pages without values, or none at all
    assert layout.units[-1].end <= layout.header.start


def parquet_file(metadata: bytes, data: int = 100) -> bytes:
    return b"PAR1" + bytes(data) + metadata + struct.pack("<I", len(metadata)) + b"PAR1"


def compact(value: int) -> bytes:
    folded, out = (value << 1) ^ (value >> 63), bytearray()
    while folded > 127:
        out.append(folded & 127 | 128)
        folded >>= 7
    return bytes([*out, folded])


def column(start: int, length: int, *, path: bool = False, metadata: bool = True) -> bytes:
    fields = b"\x76" + compact(length) + b"\x26" + compact(start) + b"\x00"
    return (b"\x18\x01x" if path else b"") + (b"\x3c" if not path else b"\x2c") * metadata + fields * metadata + b"\x00"


def row_groups(*columns: bytes) -> bytes:
    """FileMetaData of one row group with these columns."""
    return b"\x49\x1c\x19" + bytes([len(columns) << 4 | 12]) + b"".join(columns) + b"\x00\x00"


def test_parquet_columns_that_are_elsewhere_or_encrypted_are_left_out() -> None:
    columns = [column(10, 20), column(30, 5, path=True), column(0, 0, metadata=False), column(40, 2), column(60, 0)]
    layout = layout_of("x.parquet", parquet_file(row_groups(*columns)))
    assert layout.units == (ByteRange(10, 30), ByteRange(40, 42))


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"\x15",
        b"\x15" + b"\xff" * 12,
        b"\x1c" * 100,
        b"\x19\xf9\xff\xff\xff\xff\x0f" + b"\x19" * 100,
        b"\x19\xfc\xff\xff\xff\xff\x0f" + bytes(50),
        b"\x19\xf1\xff\xff\xff\xff\x0f\x00",
        b"\x18\xff\xff\xff\xff\x0f\x00",
        b"\x1b\x00\x00",
        b"\x1f\x00",
        row_groups(column(90, 20)),
        row_groups(column(-1, 20)),
        row_groups(column(10, -5)),
        row_groups(column(10, 20), column(29, 5)),
        row_groups(column(10, 20))[:-1],
        row_groups(column(10, 20))[:-2],
        row_groups(column(10, 1 << 62)),
    ],
)
def test_what_is_no_parquet_metadata(metadata: bytes) -> None:
    assert read("x.parquet", parquet_file(metadata))[0] is None


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", parquet_file(b"\0")[:-1] + b"E", parquet_file(b"\0")[8:-8] + b"\xff\0\0\0PAR1"]
)
def test_what_is_no_parquet_file(content: bytes) -> None:
    assert read("x.parquet", content)[0] is None
