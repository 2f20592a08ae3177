"""Layouts of files as the libraries write them that people use."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from array import array
from pathlib import Path

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from xetfs.protocol.formats import Layout, LayoutReader, probe
from xetfs.protocol.formats.layout import HEADER_BYTES_MAX
from xetfs.protocol.formats.window import PIECE_BYTES
from xetfs.protocol.ranges import ByteRange


def read(name: str, content: bytes) -> tuple[Layout | None, int]:
    """The layout of a file, and how many bytes of it were asked for."""
    reader = probe(name, len(content))
    assert reader is not None
    asked = 0
    while reader.wants is not None:
        assert len(reader.wants)
        assert reader.wants.end <= len(content)
        asked += len(reader.wants)
        reader.feed(content[reader.wants.start : reader.wants.end])
    return reader.layout, asked


def layout_of(name: str, content: bytes) -> Layout:
    layout, _ = read(name, content)
    assert layout is not None
    return layout


def test_names_of_known_formats() -> None:
    for name in ("model.safetensors", "a/b.c/Model-Q4.GGUF", "x.parquet", "pytorch_model.bin", "x.pt", "x.pth", "x.ckpt"):
        assert isinstance(probe(name, 10**12), LayoutReader)
    for name in ("safetensors", ".safetensors", "dir.safetensors/config", "model.safetensors.index.json", "a.txt", ""):
        assert probe(name, 10**12) is None


def test_wrong_use_is_told() -> None:
    for size in (-1, 1 << 63):
        with pytest.raises(ValueError):
            probe("model.safetensors", size)
    reader = probe("model.safetensors", 100)
    assert reader is not None
    assert reader.wants == ByteRange(0, 8)
    with pytest.raises(ValueError, match="8 are wanted"):
        reader.feed(bytes(9))
    reader.feed(memoryview(bytes(8)))
    assert (reader.wants, reader.layout) == (ByteRange(0, 8), None) or reader.wants is None
    with pytest.raises(ValueError, match="nothing is wanted"):
        reader.feed(b"")


def test_a_layout_is_in_order_and_finds_units_by_offset() -> None:
    layout = Layout(ByteRange(0, 10), array("Q", [10, 30, 40]), array("Q", [20, 40, 41]))
    assert layout.units == (ByteRange(10, 20), ByteRange(30, 40), ByteRange(40, 41))
    found = [layout.unit_at(offset) for offset in (0, 9, 10, 19, 20, 29, 30, 39, 40, 41, 10**18)]
    first, second, third = layout.units
    assert found == [None, None, first, first, None, None, second, second, third, None, None]
    assert [layout.index_at(offset) for offset in (9, 10, 29, 30, 99)] == [-1, 0, 0, 1, 2]
    assert [layout.end_from(offset) for offset in (0, 10, 25, 39, 99)] == [10, 20, 20, 40, 41]
    assert Layout(ByteRange(0, 7), array("Q"), array("Q")).end_from(3) == 7
    for starts, ends in (([10, 5], [20, 6]), ([10, 15], [20, 25]), ([10], [10]), ([10], [])):
        with pytest.raises(ValueError):
            Layout(ByteRange(0, 10), array("Q", starts), array("Q", ends))


# safetensors


def test_safetensors_as_the_library_writes_them() -> None:
    tensors = {f"layer.{i}.weight": np.full((i, 7), i, np.float32) for i in range(1, 40)}
    tensors |= {"empty": np.zeros((0, 3), np.float16), "scalar": np.array(3, np.int64), 'a "quoted"\\ name': np.ones(5, np.uint8)}
    hostile = {"note": '{"data_offsets":[0,1]}, "data_offsets" : [0, 5]', "data_offsets": "[7,8]"}
    content = safetensors.numpy.save(tensors, hostile)
    layout, asked = read("model.safetensors", content)
    assert layout is not None
    header = 8 + int.from_bytes(content[:8], "little")
    assert (layout.header, asked) == (ByteRange(0, header), header)
    told = json.loads(content[8:header])
    expected = sorted(tuple(entry["data_offsets"]) for name, entry in told.items() if name != "__metadata__")
    assert layout.units == tuple(ByteRange(header + start, header + end) for start, end in expected if start < end)
    held = {content[unit.start : unit.end] for unit in layout.units}
    assert held == {tensor.tobytes() for tensor in tensors.values() if tensor.size}


def safetensors_file(text: bytes, data: int = 0) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(data)


def test_a_safetensors_header_of_many_pieces() -> None:
    """Entries that lie across the border of two pieces are found, wherever they are cut."""
    count = 20_000
    for space in (b"", b" ", b"\n  \t"):
        entries = b",".join(
            b'"layers.%d.w":{"dtype":"U8","shape":[%d],"data_offsets"%s:%s[%d%s,%s%d]}'
            % (i, i % 3, space, space, 3 * i, space, space, 3 * i + 3)
            for i in range(count)
        )
        content = safetensors_file(b"{" + entries + b"}   ", 3 * count)
        layout, asked = read("x.safetensors", content)
        assert layout is not None
        assert len(layout.starts) == count
        assert asked == layout.header.end
        assert layout.unit_at(layout.header.end + 3 * 1234 + 2) == layout.units[1234]


def test_a_safetensors_header_padded_by_much() -> None:
    for padding in (1, 127, 128, 1000, 1_000_000):
        content = safetensors_file(b'{"a":{"data_offsets":[0,5]}}'.ljust(30 + padding), 5)
        assert layout_of("x.safetensors", content).units == (ByteRange(len(content) - 5, len(content)),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        safetensors_file(b"{".ljust(300_000)),
        safetensors_file(b""),
        safetensors_file(b"[]"),
        safetensors_file(b'{"a":1'),
        safetensors_file(b'{"a":{"data_offsets":[0,5]}}', 4),
        safetensors_file(b'{"a":{"data_offsets":[5,0]}}', 9),
        safetensors_file(b'{"a":{"data_offsets":[0,5]},"b":{"data_offsets":[4,9]}}', 9),
        safetensors_file(b'{"a":{"data_offsets":[0,9223372036854775807]}}', 9),
        (100).to_bytes(8, "little") + b"{}",
        ((1 << 64) - 1).to_bytes(8, "little") + b"{}",
    ],
)
def test_what_is_no_safetensors_file(content: bytes) -> None:
    layout, asked = read("x.safetensors", content)
    assert layout is None
    assert asked <= len(content)


def test_a_header_that_is_too_long_is_not_read() -> None:
    for name, size_field in (("x.safetensors", (HEADER_BYTES_MAX + 1).to_bytes(8, "little")),):
        reader = probe(name, 1 << 40)
        assert reader is not None
        reader.feed(size_field)
        assert (reader.wants, reader.layout) == (None, None)


# GGUF


def write_gguf(path: Path, tensors: int, order: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE, alignment: int = 0) -> bytes:
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_name("x" * 200_000)
    writer.add_token_list([f"token {i}" for i in range(20_000)])
    writer.add_token_scores([float(i) for i in range(20_000)])
    writer.add_bool("general.some_bools", True)
    writer.add_array("llama.nested", [[1, 2], [3]])
    writer.add_float64("llama.float", 1.5)
    for i in range(tensors):
        kind = (np.float32, np.float16, np.int8)[i % 3]
        writer.add_tensor(f"blk.{i}.weight", np.full((1 + i % 5, 32), i % 100, kind), tensor_endianess=order)
    if tensors:
        blocks = np.zeros((4, 2 * 18), np.uint8)
        writer.add_tensor("quantized", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0, tensor_endianess=order)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("order", [gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG])
@pytest.mark.parametrize("alignment", [0, 256])
def test_gguf_as_the_library_writes_it(tmp_path: Path, order: gguf.GGUFEndian, alignment: int) -> None:
    path = tmp_path / "model.gguf"
    content = write_gguf(path, 2000, order, alignment)
    layout, asked = read(path.name, content)
    assert layout is not None
    told = gguf.GGUFReader(path)
    assert layout.header == ByteRange(0, told.data_offset)
    assert asked <= layout.header.end + PIECE_BYTES - 190_000  # the long string was not asked for
    places = [(tensor.data_offset, tensor.n_bytes) for tensor in told.tensors]
    assert list(layout.starts) == [start for start, _ in places]
    for unit, (start, length) in zip(layout.units, places, strict=True):
        assert start + length <= unit.end < start + length + told.alignment


def test_gguf_of_a_vocabulary_alone(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "vocabulary.gguf", 0)
    layout = layout_of("vocabulary.gguf", content)
    assert (layout.units, layout.header.start) == ((), 0)
    assert layout.header.end == len(content)


def gguf_file(*parts: bytes, version: int = 3, tensors: int = 0, pairs: int = 0, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(order + "IQQ", version, tensors, pairs) + b"".join(parts)


def gguf_array(kind: int, count: int) -> bytes:
    return struct.pack("<IQ", kind, count)


def pair(kind: int, value: bytes, key: bytes = b"k") -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def tensor(name: bytes, start: int, dimensions: int = 1) -> bytes:
    return (
        struct.pack("<Q", len(name))
        + name
        + struct.pack("<I", dimensions)
        + bytes(8 * dimensions)
        + struct.pack("<IQ", 99, start)
    )


def test_gguf_tensors_out_of_order_and_of_unknown_types() -> None:
    content = gguf_file(tensor(b"b", 64), tensor(b"", 0, 0), tensor(b"c", 96, 8), tensor(b"nothing", 64), tensors=4) + bytes(200)
    layout = layout_of("x.gguf", content)
    at = layout.header.end
    assert at % 32 == 0
    assert layout.units == (ByteRange(at, at + 64), ByteRange(at + 64, at + 96), ByteRange(at + 96, len(content)))


def test_gguf_values_of_all_types() -> None:
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    pairs = [pair(kind, bytes(width), b"a key as long as.") for kind, width in sizes.items()]
    pairs += [pair(9, gguf_array(kind, 5) + bytes(5 * width)) for kind, width in sizes.items()]
    pairs += [pair(8, struct.pack("<Q", 3) + b"abc"), pair(9, gguf_array(9, 2) + gguf_array(8, 1) + bytes(8) + gguf_array(0, 0))]
    pairs += [pair(4, struct.pack("<I", 64), b"general.alignment")]
    content = gguf_file(*pairs, tensor(b"t", 64), tensors=1, pairs=len(pairs)) + bytes(200)
    header = len(content) - 200
    assert layout_of("x.gguf", content).starts[0] == -(-header // 64) * 64 + 64


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + gguf_file()[4:],
        gguf_file(version=1),
        gguf_file(version=4),
        gguf_file(tensors=1),
        gguf_file(tensors=1 << 62) + bytes(1000),
        gguf_file(pairs=1 << 62) + bytes(1000),
        gguf_file(pair(13, bytes(8)), pairs=1),
        gguf_file(pair(9, gguf_array(9, 1) * 9 + gguf_array(0, 0)), pairs=1),
        gguf_file(pair(9, gguf_array(10, (1 << 64) - 1)), pairs=1),
        gguf_file(pair(9, gguf_array(8, (1 << 64) - 1)) + bytes(10_000), pairs=1),
        gguf_file(pair(8, struct.pack("<Q", (1 << 64) - 1)), pairs=1),
        gguf_file(pair(4, bytes(4), b"general.alignment"), pairs=1),
        gguf_file(pair(10, struct.pack("<Q", 32), b"general.alignment"), pairs=1),
        gguf_file(tensor(b"t", 0, 9), tensors=1) + bytes(100),
        gguf_file(tensor(b"t", 1000), tensors=1) + bytes(100),
        gguf_file(tensor(b"t", (1 << 64) - 1), tensors=1) + bytes(100),
    ],
)
def test_what_is_no_gguf_file(content: bytes) -> None:
    assert read("x.gguf", content)[0] is None


# Parquet


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


# PyTorch


def write_torch_zip(storages: list[bytes], *, aligned: bool = True, long: bool = False) -> bytes:
    """A checkpoint as torch.save writes it: entries stored as they are, headers padded so that data begin at multiples of 64."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [
            ("data.pkl", b"pickle"),
            *((f"data/{i}", data) for i, data in enumerate(storages)),
            ("version", b"3\n"),
        ]:
            info = zipfile.ZipInfo(f"archive/{name}")
            if aligned:
                padding = -(archive.start_dir + 30 + len(info.filename) + 4) % 64
                info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            with archive.open(info, "w", force_zip64=long) as entry:
                entry.write(data)
    return sink.getvalue()


@pytest.mark.parametrize("aligned", [True, False])
def test_a_torch_zip(aligned: bool) -> None:
    storages = [os.urandom(size) for size in (1000, 0, 70_000, 64, 1)]
    content = write_torch_zip(storages, aligned=aligned)
    layout = layout_of("pytorch_model.bin", content)
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert layout.header == ByteRange(archive.start_dir, len(content))
    assert list(layout.starts) == [entry.header_offset for entry in archive.infolist()]
    assert layout.units[-1].end == archive.start_dir
    for unit, storage in zip(layout.units[1:-1], storages, strict=True):
        assert content[unit.start : unit.end].endswith(storage)


def long_form(content: bytes) -> bytes:
    """The same zip file with the numbers of its directory in the form for files of more than 4 GiB."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = [(entry, entry.filename.encode()) for entry in archive.infolist()]
    directory = b"".join(
        struct.pack("<4s16x2I3H8xI", b"PK\1\2", 2**32 - 1, 2**32 - 1, len(name), 36, 0, 2**32 - 1)
        + name
        + struct.pack("<HHIHHQQQ", 7, 4, 0, 1, 24, entry.file_size, entry.compress_size, entry.header_offset)
        for entry, name in entries
    )
    start, count = archive.start_dir, len(archive.infolist())
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    short = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return content[:start] + directory + end + locator + short


def test_a_torch_zip_in_the_long_form() -> None:
    content = write_torch_zip([os.urandom(500) for _ in range(2000)])
    expected = layout_of("x.pt", content)
    content = long_form(content)
    assert len(zipfile.ZipFile(io.BytesIO(content)).infolist()) == 2002
    layout, asked = read("x.pt", content)
    assert layout is not None
    assert layout.units == expected.units
    assert asked < len(layout.header) + 2 * PIECE_BYTES


def test_a_torch_zip_of_many_entries() -> None:
    content = write_torch_zip([b"x"] * 70_000, aligned=False)
    assert len(layout_of("x.pth", content).starts) == 70_002


def test_what_is_no_torch_zip() -> None:
    whole = write_torch_zip([bytes(1000)] * 3)
    end = len(whole) - 22
    for content in (
        b"",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(1000),  # as torch.save wrote before 1.6
        b"PK\3\4" + bytes(100),
        whole[:-1],
        whole[:end] + whole[end:].replace(b"PK\5\6", b"PK\5\5"),
        whole[: end + 10] + b"\xff\0" + whole[end + 12 :],  # more entries than there are
        whole[: end + 12] + b"\xff\xff\xff\0" + whole[end + 16 :],  # a longer directory
        whole[: end + 16] + b"\0\0\0\0" + whole[end + 20 :],  # another place
        long_form(whole)[:-42] + b"PK\6\7" + b"\xff" * 16 + whole[end:],
    ):
        assert read("x.pt", content)[0] is None


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, xetfs.protocol.formats; print({'numpy', 'json', 'zipfile', 'trio'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
