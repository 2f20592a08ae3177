"""Where the units of a file lie: tensors in safetensors, GGUF and PyTorch zip files, column chunks in Parquet.

A program that touches a tensor mostly reads all of it, and one that reads a header mostly reads nothing else. What a file says of
itself lets the prefetcher load the one whole and stop at the end of the other. It is a hint and no more: no byte is given out
because of it, so a file that lies costs at most what it makes load, and one that is not understood is read like any other.

A LayoutReader does no I/O. It says which bytes it needs next, is given them, and ends in a Layout or gives up:

    reader = probe("model.safetensors", size)
    while reader is not None and reader.wants is not None:
        reader.feed(read(reader.wants))

The bytes it asks for are those that every program reads first, in pieces, so that no step is long. All that a file claims is
bounded: how much is read, how many units there are, how deep things nest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xetfs.protocol.formats.gguf import read_gguf
from xetfs.protocol.formats.layout import Layout, LayoutReader, Steps
from xetfs.protocol.formats.parquet import read_parquet
from xetfs.protocol.formats.safetensors import read_safetensors
from xetfs.protocol.formats.torchzip import read_torch_zip

__all__ = ["Layout", "LayoutReader", "Steps", "is_known", "probe"]

_FORMATS: Final[dict[str, Callable[[int], Steps]]] = {
    "safetensors": read_safetensors,
    "gguf": read_gguf,
    "parquet": read_parquet,
    "pt": read_torch_zip,
    "pth": read_torch_zip,
    "bin": read_torch_zip,
    "ckpt": read_torch_zip,
}


def probe(name: str, size: int) -> LayoutReader | None:
    """A reader for the layout of a file of `size` bytes with this name or path; None if the name is not that of a known format.

    Raises ValueError if the size cannot be.
    """
    if not 0 <= size < 1 << 63:
        raise ValueError(f"not the size of a file: {size}")
    read = _format_of(name)
    return LayoutReader(read(size)) if read is not None else None


def is_known(name: str) -> bool:
    """Whether a file with this name or path surely is of a known format. `.bin` alone may be anything, so PyTorch's own name for
    weights must stand before it."""
    name = name.rpartition("/")[2].lower()
    return _format_of(name) is not None and (not name.endswith(".bin") or name.startswith("pytorch_model"))


def _format_of(name: str) -> Callable[[int], Steps] | None:
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return _FORMATS.get(suffix.lower()) if dot and stem else None
