"""How the payload of one chunk is compressed.

Three schemes end in one LZ4 frame; two of them first reorder the bytes so that like stands beside like. BG4 puts the bytes at
positions 0, 4, 8, … first, then those at 1, 5, 9, …: the exponents of 32-bit floats, and of pairs of 16-bit ones, come together.
The bit slices are the eight bit planes one after another.

Decoding is bounded by the length that the caller expects, whatever the payload says, and lets other threads run during LZ4 and
numpy work. numpy is imported when the first reordered chunk is met: it takes longer to load than everything else here.

Source: Xet spec, "Xorb", Chunk Compression Schemes; xet-core, compression_scheme.rs and bg4_prediction.rs. Bit slices exist only
in zig-xet: the reference client rejects them, and no writer here chooses them by itself.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import lz4.frame

from xetfs.errors import CorruptData

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

EXPANSION_MAX: Final = 255
"""No LZ4 payload decodes to more than this times its length: one byte lengthens a match by 255 at the most."""

_BG4_DIVERGENCE_MIN = 0.02
_POPCOUNT = bytes(byte.bit_count() for byte in range(256))  # for bytes.translate


class Scheme(IntEnum):
    """What a chunk header calls the ways to compress."""

    NONE = 0
    LZ4 = 1
    BG4_LZ4 = 2
    BITSLICE_LZ4 = 3


def compress(data: bytes, scheme: Scheme) -> bytes:
    """The payload for `data`, which may turn out longer than the data is."""
    if scheme is Scheme.NONE:
        return data
    if scheme is Scheme.BG4_LZ4:
        data = b"".join(data[lane::4] for lane in range(4))
    elif scheme is Scheme.BITSLICE_LZ4:
        data = _slice_bits(data)
    block_size = lz4.frame.BLOCKSIZE_MAX64KB if len(data) <= 64 * 1024 else lz4.frame.BLOCKSIZE_MAX256KB
    # One block without sizes and checksums, as the reference writes it: chunk headers tell the size, hashes guard the content.
    frame: bytes = lz4.frame.compress(data, block_size=block_size, block_linked=False, content_checksum=False, store_size=False)
    return frame


class Decompressor:
    """Decodes payloads one after another. For one thread at a time, and of no further use once it has raised."""

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context = lz4.frame.create_decompression_context()

    def decode(self, scheme: Scheme, payload: memoryview, out: memoryview) -> None:
        """Fill `out` from the payload. Raises CorruptData unless the payload holds exactly as many bytes and nothing else."""
        if scheme is Scheme.NONE:
            if len(payload) != len(out):
                raise CorruptData(f"a stored chunk of {len(payload)} bytes claims to have {len(out)}")
            out[:] = payload
            return
        data = self._decode_frame(payload, len(out))
        if scheme is Scheme.LZ4:
            out[:] = data
        elif scheme is Scheme.BG4_LZ4:
            _join_lanes(data, out)
        else:
            _join_bits(data, out)

    def _decode_frame(self, payload: memoryview, length: int) -> bytes:
        # Asking for one byte more than there should be tells a longer frame from one that ends where it should.
        data: bytes
        try:
            data, consumed, ended = lz4.frame.decompress_chunk(self._context, payload, max_length=length + 1)
        except RuntimeError as error:
            raise CorruptData(f"a chunk is not an LZ4 frame: {error}") from error
        if len(data) != length or not ended or consumed != len(payload):
            raise CorruptData(f"a chunk of {length} bytes decodes to {len(data)}, or its LZ4 frame does not end where it does")
        return data


def choose_scheme(data: bytes) -> Scheme:
    """What the reference would choose: BG4 if the number of bits set in a byte depends on its place among four, else LZ4.

    Compares, for each lane, the distribution of bit counts with that of all lanes together (Kullback-Leibler). A lane that lacks
    one of the nine counts is left out; the reference does so by way of a not-a-number that its maximum ignores.
    """
    lanes = [data[lane::4].translate(_POPCOUNT) for lane in range(4)]
    counts = [[lane.count(bits) for bits in range(9)] for lane in lanes]
    totals = [sum(column) for column in zip(*counts, strict=True)]
    for lane, count in zip(lanes, counts, strict=True):
        if all(count):
            divergence = sum(n / len(lane) * math.log(n / len(lane) * len(data) / m) for n, m in zip(count, totals, strict=True))
            if divergence > _BG4_DIVERGENCE_MIN:
                return Scheme.BG4_LZ4
    return Scheme.LZ4


def _join_lanes(lanes: bytes, out: memoryview) -> None:
    import numpy as np

    source, target = np.frombuffer(lanes, np.uint8), np.frombuffer(out, np.uint8)
    start = 0
    for lane in range(4):
        end = start + (len(lanes) + 3 - lane) // 4
        target[lane::4] = source[start:end]
        start = end


def _slice_bits(data: bytes) -> bytes:
    import numpy as np

    return np.packbits(_bits(data).reshape(-1, 8).T, bitorder="little").tobytes()


def _join_bits(planes: bytes, out: memoryview) -> None:
    import numpy as np

    out[:] = np.packbits(_bits(planes).reshape(8, -1).T, bitorder="little").tobytes()


def _bits(data: bytes) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
