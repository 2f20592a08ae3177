"""How the bytes of one chunk are stored: as they are, or as an LZ4 frame of the bytes or of a regrouping of them.

BG4 puts bytes 0, 4, 8, … first, then 1, 5, 9, …: the exponents of float32 numbers come to lie side by side and compress.
FullBitslice
does the same with the eight bit planes. Both work on any length.
The frames that writers make: independent blocks, no checksums, no content size. What is read must be one frame that ends, and
whose
content is exactly as long as the header says; nothing is ever decoded beyond that.

Source: Xet spec, "Xorb", compression schemes; xet-core xorb_object/compression_scheme.rs, byte_grouping; zig-xet (FullBitslice).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import lz4.frame

from xetfs.errors import CorruptData

if TYPE_CHECKING:
    import numpy

Buffer = bytes | bytearray | memoryview

_SMALL_BLOCK_BYTES = 65_536


class Scheme(IntEnum):
    """The scheme byte of a chunk header."""

    NONE = 0
    LZ4 = 1
    BG4_LZ4 = 2
    BITSLICE_LZ4 = 3


@cache
def _numpy() -> Any:
    """numpy takes 0.1 s to import, and only regrouped chunks need it."""
    import numpy

    return numpy


def compress(data: Buffer, scheme: Scheme) -> bytes:
    """The stored form of `data` under `scheme`."""
    match scheme:
        case Scheme.NONE:
            return bytes(data)
        case Scheme.LZ4:
            regrouped: Buffer = data
        case Scheme.BG4_LZ4:
            regrouped = group_bytes(data)
        case Scheme.BITSLICE_LZ4:
            regrouped = slice_bits(data)
    block_size = lz4.frame.BLOCKSIZE_MAX64KB if len(data) <= _SMALL_BLOCK_BYTES else lz4.frame.BLOCKSIZE_MAX256KB
    frame: bytes = lz4.frame.compress(
        regrouped, block_size=block_size, block_linked=False, content_checksum=False, block_checksum=False, store_size=False
    )
    return frame


def decompress_into(stored: memoryview, scheme: Scheme, out: memoryview) -> None:
    """Decode `stored` into `out`, which is as long as the decoded data must be. Raises CorruptData if it is not that long."""
    if scheme is Scheme.NONE:
        if len(stored) != len(out):
            raise CorruptData(f"a chunk stored as it is has {len(stored)} bytes for {len(out)}")
        out[:] = stored
        return
    data = _decode_frame(stored, len(out))
    if scheme is Scheme.LZ4:
        out[:] = data
    elif scheme is Scheme.BG4_LZ4:
        _ungroup_bytes_into(data, out)
    else:
        out[:] = unslice_bits(data)


def _decode_frame(stored: memoryview, length: int) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    try:
        data: bytes = decoder.decompress(stored, max_length=length + 1)
        if len(data) == length and not decoder.eof:
            data += decoder.decompress(b"", max_length=1)  # the end mark may still be unread
    except (RuntimeError, EOFError, ValueError, MemoryError) as exc:
        raise CorruptData(f"not an LZ4 frame: {exc!s:.80}") from None
    if len(data) != length or not decoder.eof or decoder.unused_data:
        raise CorruptData(f"an LZ4 frame does not hold exactly the {length} bytes that its chunk is said to have")
    return data


def group_bytes(data: Buffer) -> bytes:
    """BG4: every fourth byte from 0 on, then from 1, 2 and 3 on."""
    return b"".join(bytes(data[lane::4]) for lane in range(4))


def ungroup_bytes(data: Buffer) -> bytes:
    """The inverse of group_bytes."""
    out = bytearray(len(data))
    _ungroup_bytes_into(data, memoryview(out))
    return bytes(out)


def _ungroup_bytes_into(data: Buffer, out: memoryview) -> None:
    # Column by column through numpy: twice as fast as slices of a bytearray, and other threads run meanwhile.
    np = _numpy()
    source: numpy.ndarray[Any, Any] = np.frombuffer(data, dtype=np.uint8)
    target: numpy.ndarray[Any, Any] = np.frombuffer(out, dtype=np.uint8)
    at = 0
    for lane in range(4):
        column = target[lane::4]
        column[:] = source[at : at + len(column)]
        at += len(column)


def slice_bits(data: Buffer) -> bytes:
    """FullBitslice: bit 0 of every byte, then bit 1 of every byte, and so on, packed with the least significant bit first."""
    np = _numpy()
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little").reshape(-1, 8)
    packed: bytes = np.packbits(bits.T.reshape(-1), bitorder="little").tobytes()
    return packed


def unslice_bits(data: Buffer) -> bytes:
    """The inverse of slice_bits."""
    np = _numpy()
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little").reshape(8, -1)
    packed: bytes = np.packbits(bits.T.reshape(-1), bitorder="little").tobytes()
    return packed


def choose_scheme(data: Buffer) -> Scheme:
    """LZ4 or BG4_LZ4, whichever suits `data`: by how much the four byte lanes differ from the whole in how many bits are set.

    Source: xet-core byte_grouping/compression_scheme choice (popcount histograms, Kullback-Leibler divergence above 0.02).
    """
    np = _numpy()
    data_array = np.frombuffer(data, dtype=np.uint8)
    ones = (
        np.bitwise_count(data_array) if hasattr(np, "bitwise_count") else np.unpackbits(data_array.reshape(-1, 1), axis=1).sum(1)
    )
    whole = np.bincount(ones, minlength=9).astype(float)
    worst = 0.0
    for lane in range(4):
        part = np.bincount(ones[lane::4], minlength=9).astype(float)
        if not part.all() or not whole.all():
            continue  # the reference's sum is not a number then, and its maximum passes over that
        p, q = part / part.sum(), whole / whole.sum()
        worst = max(worst, float((p * np.log(p / q)).sum()))
    return Scheme.BG4_LZ4 if worst > 0.02 else Scheme.LZ4
