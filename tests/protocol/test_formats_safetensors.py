"""Layouts of safetensors files, as the library writes them and as others might."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from formats_reading import layout_of, read

from xetfs.protocol.formats import probe
from xetfs.protocol.formats.layout import HEADER_BYTES_MAX
from xetfs.protocol.ranges import ByteRange


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
