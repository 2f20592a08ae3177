import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import lz4.frame
import pytest
from vector_files import FILES, VECTORS, content, xof

from xetfs.errors import CorruptData
from xetfs.protocol.chunking import chunk_ends
from xetfs.protocol.codec import choose_scheme, compress
from xetfs.protocol.footer import XorbInfo, encode_footer, parse_footer
from xetfs.protocol.hashes import XorbHash, chunk_hash, xorb_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import (
    CHUNK_BYTES_MAX,
    CHUNK_WIRE_BYTES_MAX,
    HEADER_BYTES,
    XORB_CHUNKS_MAX,
    Scheme,
    XorbBlock,
    decode_block,
    decode_chunk,
    encode_chunk,
    encode_xorb,
)

NAME = XorbHash(chunk_hash(b"some xorb"))
FLOATS = content("f32-odd")[:65_537]
CHUNKS = [FLOATS, b"a", bytes(100_000), xof("incompressible", 5000), b"ab" * 3001]
OBJECTS = {name: bytes.fromhex(value) for name, value in VECTORS["objects"].items() if name.endswith("_hex")}
COMPRESSED = [scheme for scheme in Scheme if scheme is not Scheme.NONE]


def record(payload: bytes, length: int, scheme: int = Scheme.NONE, *, stored: int | None = None, version: int = 0) -> bytes:
    stored = len(payload) if stored is None else stored
    return bytes([version]) + stored.to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little") + payload


def frame(data: bytes, **options: Any) -> bytes:
    compressed: bytes = lz4.frame.compress(data, **options)
    return compressed


def decode(wire: bytes, count: int = 1) -> XorbBlock:
    return decode_block(NAME, ChunkRange(3, 3 + count), memoryview(wire))


def schemes_of(wire: bytes, ends: tuple[int, ...]) -> Counter[str]:
    return Counter(str(wire[start + 4]) for start in (0, *ends[:-1]))


# Chunks


@pytest.mark.parametrize("scheme", [None, *Scheme])
def test_chunks_come_back_whatever_the_scheme(scheme: Scheme | None) -> None:
    xorb = encode_xorb(CHUNKS, scheme)
    block = decode_block(xorb.xorb, ChunkRange(7, 12), memoryview(xorb.wire))
    assert [bytes(block.chunk(7 + index)) for index in range(5)] == CHUNKS
    assert bytes(block.data) == b"".join(CHUNKS)
    assert block.data.readonly
    assert block.hashes == xorb.hashes == tuple(chunk_hash(chunk) for chunk in CHUNKS)
    assert xorb.xorb == xorb_hash((chunk_hash(chunk), len(chunk)) for chunk in CHUNKS)
    assert xorb.lengths == tuple(len(chunk) for chunk in CHUNKS)
    for index, (start, end) in enumerate(pairwise((0, *xorb.wire_ends))):
        assert decode_chunk(memoryview(xorb.wire)[start:]) == (CHUNKS[index], end - start)


def test_a_block_of_stored_chunks_is_made_of_what_was_fetched() -> None:
    xorb = encode_xorb(CHUNKS, Scheme.NONE)
    fetched = memoryview(bytearray(xorb.wire))
    block = decode_block(xorb.xorb, ChunkRange(0, len(CHUNKS)), fetched)
    assert [bytes(block.chunk(i)) for i in range(len(CHUNKS))] == CHUNKS
    assert block.hashes == xorb.hashes
    assert block.data.obj is fetched.obj
    assert block.data.readonly


def test_a_block_gives_out_only_its_own_chunks() -> None:
    block = decode(encode_chunk(b"one") + encode_chunk(b"two"), 2)
    assert (block.xorb, block.chunks, block.offsets) == (NAME, ChunkRange(3, 5), (0, 3, 6))
    assert bytes(block.chunk(4)) == b"two"
    for index in (0, 2, 5, -1):
        with pytest.raises(ValueError):
            block.chunk(index)


@pytest.mark.parametrize(("offsets", "hashes"), [((0, 1), 2), ((0, 1, 2), 1), ((1, 2, 3), 2), ((0, 1, 2), 2), ((0, 1, 4), 2)])
def test_a_block_must_fit_its_data(offsets: tuple[int, ...], hashes: int) -> None:
    with pytest.raises(ValueError):
        XorbBlock(NAME, ChunkRange(0, 2), memoryview(b"abc"), offsets, (chunk_hash(b""),) * hashes)


@pytest.mark.parametrize("length", [0, CHUNK_BYTES_MAX + 1])
def test_chunks_that_cannot_be_are_not_encoded(length: int) -> None:
    with pytest.raises(ValueError):
        encode_chunk(bytes(length))


@pytest.mark.parametrize("scheme", COMPRESSED)
def test_what_does_not_get_shorter_is_stored(scheme: Scheme) -> None:
    data = xof("noise", 3000)
    assert encode_chunk(data, scheme) == record(data, 3000)


def test_the_frame_is_like_the_references() -> None:
    for length, size_code in ((65_536, 0x40), (65_537, 0x50)):
        payload = encode_chunk(bytes(length), Scheme.LZ4)[HEADER_BYTES:]
        assert payload[:6] == bytes([0x04, 0x22, 0x4D, 0x18, 0x60, size_code])
        assert payload[-4:] == bytes(4)


@pytest.mark.parametrize(
    "options", [{"block_linked": True}, {"content_checksum": True, "block_checksum": True}, {"block_size": 7}]
)
@pytest.mark.parametrize("store_size", [False, True])
def test_frames_of_other_writers_are_read(options: dict[str, Any], store_size: bool) -> None:
    payload = frame(FLOATS, store_size=store_size, **options)
    assert decode_chunk(memoryview(record(payload, len(FLOATS), Scheme.LZ4))) == (FLOATS, HEADER_BYTES + len(payload))


@pytest.mark.parametrize("case", VECTORS["bg4"], ids=lambda case: str(len(case["input_hex"]) // 2))
def test_grouping_vectors(case: dict[str, str]) -> None:
    check_reordering(Scheme.BG4_LZ4, bytes.fromhex(case["input_hex"]), bytes.fromhex(case["grouped_hex"]))


@pytest.mark.parametrize("case", VECTORS["bitslice"], ids=lambda case: str(len(case["in_hex"]) // 2))
def test_bit_slice_vectors(case: dict[str, str]) -> None:
    check_reordering(Scheme.BITSLICE_LZ4, bytes.fromhex(case["in_hex"]), bytes.fromhex(case["sliced_hex"]))


def check_reordering(scheme: Scheme, data: bytes, reordered: bytes) -> None:
    assert lz4.frame.decompress(compress(data, scheme)) == reordered
    if data:
        assert bytes(decode(record(frame(reordered), len(data), scheme)).data) == data


@pytest.mark.parametrize("file", [file for file in FILES if file["n_terms"] == 1], ids=lambda file: file["name"])
def test_xorbs_are_those_of_the_reference(file: dict[str, Any]) -> None:
    data = content(file["name"])
    xorb = encode_xorb(data[start:end] for start, end in pairwise([0, *chunk_ends(data)]))
    assert schemes_of(xorb.wire, xorb.wire_ends) == {scheme: count for scheme, count in file["schemes"].items() if count}
    assert {xorb.xorb.hex(): len(xorb.hashes)} == {name: found["chunks"] for name, found in file["xorbs"].items()}
    if set(file["schemes"]) == {"0"}:  # how short LZ4 gets is up to each implementation
        assert len(xorb.wire) == next(iter(file["xorbs"].values()))["body"]


def test_the_scheme_is_chosen_by_the_content() -> None:
    assert choose_scheme(FLOATS) is Scheme.BG4_LZ4
    assert choose_scheme(b"the quick brown fox, " * 500) is Scheme.LZ4
    assert choose_scheme(bytes(5000)) is choose_scheme(b"a") is Scheme.LZ4


def test_one_choice_holds_for_32_chunks() -> None:
    text, floats = b"the quick brown fox, " * 50, FLOATS[:8192]
    assert encode_chunk(floats)[4] == Scheme.BG4_LZ4
    xorb = encode_xorb([text, *[floats] * 33])
    chosen = [xorb.wire[start + 4] for start in (0, *xorb.wire_ends[:-1])]
    assert chosen == [xorb.wire[4]] + [encode_chunk(floats, Scheme.LZ4)[4]] * 31 + [Scheme.BG4_LZ4] * 2


@pytest.mark.parametrize("chunks", [[], [b"a"] * (XORB_CHUNKS_MAX + 1), [bytes(CHUNK_BYTES_MAX)] * 513])
def test_a_xorb_has_its_limits(chunks: list[bytes]) -> None:
    with pytest.raises(ValueError):
        encode_xorb(chunks, Scheme.LZ4)


def test_numpy_is_loaded_only_for_reordered_chunks() -> None:
    program = """
import sys
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import Scheme, decode_block, encode_chunk
wire = encode_chunk(b"a") + encode_chunk(bytes(9000), Scheme.LZ4)
decode_block(None, ChunkRange(0, 2), memoryview(wire))
assert "numpy" not in sys.modules
decode_block(None, ChunkRange(0, 1), memoryview(encode_chunk(bytes(9000), Scheme.BG4_LZ4)))
assert "numpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Damage

WHOLE = frame(FLOATS)
SIZE = len(FLOATS)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        pytest.param(record(b"abc", 3, version=1), "version", id="version"),
        pytest.param(record(b"abc", 3, 4), "unknown way", id="scheme"),
        pytest.param(record(b"abc", 3, 99), "unknown way", id="scheme-auto"),
        pytest.param(record(b"", 0), "0 bytes", id="empty"),
        pytest.param(record(b"", 5, Scheme.LZ4), "0 on the wire", id="no-payload"),
        pytest.param(record(frame(b""), 0, Scheme.LZ4), "0 bytes", id="empty-frame"),
        pytest.param(record(b"abc", 4), "cannot hold", id="stored-longer"),
        pytest.param(record(b"abc", 2), "cannot hold", id="stored-shorter"),
        pytest.param(record(bytes(CHUNK_BYTES_MAX + 1), CHUNK_BYTES_MAX + 1), "131073 bytes", id="too-long"),
        pytest.param(record(bytes(CHUNK_WIRE_BYTES_MAX + 1), SIZE, Scheme.LZ4), "262145 on the wire", id="too-long-on-the-wire"),
        pytest.param(record(b"abc", 3, stored=4), "cannot hold|cut short", id="past-the-end"),
        pytest.param(record(WHOLE[:-1], SIZE, Scheme.LZ4, stored=len(WHOLE)), "cut short", id="past-the-end-by-one"),
        pytest.param(record(b"abcdefgh", 255 * 8 + 1, Scheme.LZ4), "cannot hold", id="expands-too-much"),
        pytest.param(record(WHOLE, SIZE - 1, Scheme.LZ4), "decodes to", id="longer-than-told"),
        pytest.param(record(WHOLE, SIZE + 1, Scheme.LZ4), "decodes to", id="shorter-than-told"),
        pytest.param(record(WHOLE[:-4], SIZE, Scheme.LZ4), "does not end", id="no-end-mark"),
        pytest.param(record(WHOLE[: len(WHOLE) // 2], SIZE, Scheme.LZ4), "decodes to", id="half-a-frame"),
        pytest.param(record(WHOLE + b"x", SIZE, Scheme.LZ4), "does not end", id="junk-after"),
        pytest.param(record(frame(b"ab" * 50) * 2, 200, Scheme.LZ4), "decodes to", id="two-frames"),
        pytest.param(record(bytes.fromhex("502a4d1803000000") + b"abc" + WHOLE, SIZE, Scheme.LZ4), "decodes to", id="skippable"),
        pytest.param(record(lz4.frame.compress(FLOATS)[7:], SIZE, Scheme.LZ4), "not an LZ4 frame", id="no-frame"),
        pytest.param(record(b"\0" * 40, 40, Scheme.BG4_LZ4), "not an LZ4 frame", id="zeros"),
        pytest.param(record(WHOLE, SIZE + 1, Scheme.BG4_LZ4), "decodes to", id="grouped"),
        pytest.param(record(WHOLE, SIZE + 1, Scheme.BITSLICE_LZ4), "decodes to", id="sliced"),
        pytest.param(OBJECTS["xorb_one_byte_with_v1_footer_hex"][9:], "footer", id="footer"),
        pytest.param(b"XETBLO\x01" + bytes(9), "version", id="not-quite-a-footer"),
        pytest.param(b"", "cut short", id="nothing"),
        pytest.param(record(b"", 1)[:7], "cut short", id="half-a-header"),
    ],
)
def test_damage_is_refused(wire: bytes, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        decode_chunk(memoryview(wire))
    with pytest.raises(CorruptData, match=message):
        decode(wire)
    good = encode_chunk(b"good")
    with pytest.raises(CorruptData, match="chunk 4"):  # the message says which
        decode(good + wire, 2)


def test_a_range_holds_its_chunks_and_nothing_else() -> None:
    wire = encode_chunk(b"one") + encode_chunk(b"two")
    decode(wire, 2)
    for other, count in ((wire, 1), (wire, 3), (wire + b"\0", 2), (wire[:-1], 2), (wire[1:], 2)):
        with pytest.raises(CorruptData):
            decode(other, count)
    with pytest.raises(CorruptData, match="footer"):
        decode(OBJECTS["xorb_one_byte_with_v1_footer_hex"], 2)


def test_no_memory_is_taken_for_what_headers_only_claim() -> None:
    """A megabyte of headers claims gigabytes: it must fail before anything is allocated, wherever the lie begins."""
    lie = record(b"", CHUNK_BYTES_MAX, Scheme.LZ4, stored=1)
    with pytest.raises(CorruptData, match="cannot hold"):
        decode((lie + b"x") * 100_000, 100_000)
    with pytest.raises(CorruptData, match="chunk 4"):
        decode(encode_chunk(b"x"), 10**12)


# Footers


@pytest.mark.parametrize(
    ("name", "data"),
    [("xorb_one_byte_with_v1_footer_hex", xof("one", 1)), ("xorb_100_zero_bytes_with_v1_footer_hex", bytes(100))],
)
def test_stored_xorbs_of_the_reference(name: str, data: bytes) -> None:
    stored = OBJECTS[name]
    info = parse_footer(stored)
    assert info is not None
    records = stored[: info.wire_ends[-1]]
    assert bytes(decode(records).data) == data
    assert info == XorbInfo(xorb_hash([(chunk_hash(data), len(data))]), (chunk_hash(data),), (len(records),), (len(data),))
    assert records + encode_footer(info) == stored


def test_footers_of_format_0_lack_the_decoded_ends() -> None:
    new = OBJECTS["xorb_one_byte_with_v1_footer_hex"]
    one, old = parse_footer(new), parse_footer(new[:9] + OBJECTS["footer_v0_same_xorb_hex"])
    assert one is not None
    assert old == XorbInfo(one.xorb, one.hashes, one.wire_ends, None)
    with pytest.raises(ValueError):
        encode_footer(old)


def stored_xorb() -> tuple[bytes, bytes]:
    """Records and footer of a xorb of several chunks."""
    xorb = encode_xorb(CHUNKS)
    ends = tuple(sum(xorb.lengths[: count + 1]) for count in range(len(CHUNKS)))
    info = XorbInfo(xorb.xorb, xorb.hashes, xorb.wire_ends, ends)
    footer = encode_footer(info)
    assert parse_footer(memoryview(xorb.wire + footer)) == info
    return xorb.wire, footer


def test_what_has_no_footer() -> None:
    records, footer = stored_xorb()
    for stored in (b"", b"abc", records, bytes(100), footer[:-1], footer[-4:], records + footer + b"\0"):
        assert parse_footer(stored) is None


@pytest.mark.parametrize("at", [7, 40, 47, 48, -28, -24, -20, 212, 219, 220, 227, 243, 247])
def test_footers_that_contradict_themselves_are_refused(at: int) -> None:
    records, footer = stored_xorb()
    damaged = bytearray(footer)
    damaged[at if at >= 0 else len(footer) - 4 + at] ^= 0x80
    with pytest.raises(CorruptData):
        parse_footer(records + damaged)


def test_footers_must_fit_the_object() -> None:
    records, footer = stored_xorb()
    for other in (records[1:], b"x" + records, b""):
        with pytest.raises(CorruptData):
            parse_footer(other + footer)


def test_reserved_bytes_of_a_footer_may_be_anything() -> None:
    records, footer = stored_xorb()
    assert parse_footer(records + footer[:-20] + bytes(range(16)) + footer[-4:]) == parse_footer(records + footer)


@pytest.mark.parametrize(
    ("wire_ends", "data_ends"), [((), ()), ((9,), (1, 2)), ((8,), (1,)), ((9, 9), (1, 2)), ((9, 20), (1, 1))]
)
def test_ends_that_no_chunks_have_are_refused(wire_ends: tuple[int, ...], data_ends: tuple[int, ...]) -> None:
    with pytest.raises(CorruptData):
        XorbInfo(NAME, (chunk_hash(b""),) * len(wire_ends), wire_ends, data_ends)
