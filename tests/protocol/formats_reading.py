"""Reading the layout of a file that is in memory."""

from __future__ import annotations

from xetfs.protocol.formats import Layout, probe


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
