"""Layouts, and which files have one."""

from __future__ import annotations

import subprocess
import sys
from array import array

import pytest

from xetfs.protocol.formats import Layout, LayoutReader, probe
from xetfs.protocol.ranges import ByteRange


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
    assert [layout.last_end(offset) for offset in (0, 19, 20, 39, 41, 99)] == [0, 0, 20, 20, 41, 41]
    assert Layout(ByteRange(0, 7), array("Q"), array("Q")).end_from(3) == 7
    for starts, ends in (([10, 5], [20, 6]), ([10, 15], [20, 25]), ([10], [10]), ([10], [])):
        with pytest.raises(ValueError):
            Layout(ByteRange(0, 10), array("Q", starts), array("Q", ends))


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, xetfs.protocol.formats; print({'numpy', 'json', 'zipfile', 'trio'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
