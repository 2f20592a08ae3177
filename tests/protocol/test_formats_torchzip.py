"""Layouts of PyTorch checkpoints, as torch.save writes them and as others might."""

from __future__ import annotations

import io
import os
import struct
import zipfile

import pytest
from formats_reading import layout_of, read

from xetfs.protocol.formats.window import PIECE_BYTES
from xetfs.protocol.ranges import ByteRange


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
