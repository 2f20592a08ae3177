"""Layouts of GGUF files, as the library writes them and as others might."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from formats_reading import layout_of, read

from xetfs.protocol.formats.window import PIECE_BYTES
from xetfs.protocol.ranges import ByteRange


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
