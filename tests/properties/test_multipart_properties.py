from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import ProtocolViolation
from xetfs.protocol.multipart import FRAME_BYTES_MAX, MultipartParser, Piece, parse_boundary, parse_content_range
from xetfs.protocol.ranges import HttpRange

BOUNDARIES = st.from_regex(r"[0-9A-Za-z'()+_,./:=?-]{1,70}", fullmatch=True)
EDGES = st.lists(st.integers(0, 400), min_size=2, max_size=12, unique=True).map(sorted)


def ranges_of(edges: list[int], adjacent: bool) -> list[HttpRange]:
    """Ranges between the edges: all of them, next to each other, or every second one."""
    pairs = list(pairwise(edges))
    return [HttpRange(first, end - 1) for first, end in (pairs if adjacent else pairs[::2])]


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in cuts)})
    return [body[start:end] for start, end in pairwise(edges)]


@given(st.data(), BOUNDARIES, EDGES, st.booleans(), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_ranges_in_any_order_and_any_pieces(
    data: st.DataObject, boundary: str, edges: list[int], adjacent: bool, cuts: list[int]
) -> None:
    delimiter = b"--" + boundary.encode()
    content = data.draw(st.binary(min_size=400, max_size=400) | st.just((b"\r\n" + delimiter + b"--\r\n\r\n") * 100))
    asked = data.draw(st.permutations(ranges_of(edges, adjacent)))
    sent = data.draw(st.permutations(asked if not adjacent or data.draw(st.booleans()) else [HttpRange(edges[0], edges[-1] - 1)]))
    preamble = data.draw(st.sampled_from([b"", b"\r\n", b"preamble\r\n"]))
    body = preamble + b"".join(
        delimiter
        + f"\r\nContent-Range: bytes {part}/{len(content)}\r\n\r\n".encode()
        + content[part.first : part.last + 1]
        + b"\r\n"
        for part in sent
    )
    body += delimiter + b"--" + data.draw(st.binary(max_size=20))

    parser = MultipartParser(boundary, asked)
    filled = [bytearray() for _ in asked]
    for piece in cut(body, cuts):
        for found in parser.feed(piece):
            assert found.offset == len(filled[found.part])
            filled[found.part] += found.data
    parser.finish()
    assert [bytes(buffer) for buffer in filled] == [content[part.first : part.last + 1] for part in asked]


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=20), st.integers(0, 200))
def test_garbage_after_any_beginning(garbage: bytes, cuts: list[int], kept: int) -> None:
    """However an honest body goes on, nothing is passed on that was not asked for; it ends whole or in a ProtocolViolation."""
    parts = [b"--b\r\nContent-Range: bytes 5-9/20\r\n\r\nABCDE", b"--b\r\nContent-Range: bytes 0-2/20\r\n\r\nxyz", b"--b--"]
    honest = b"\r\n".join(parts)
    parser = MultipartParser("b", [HttpRange(0, 2), HttpRange(5, 9)])
    passed_on: list[Piece] = []
    whole = True
    try:
        for piece in cut(honest[:kept] + garbage, cuts):
            passed_on += parser.feed(piece)
        parser.finish()
    except ProtocolViolation:
        whole = False
    filled = [0, 0]
    for piece in passed_on:
        assert piece.offset == filled[piece.part]
        filled[piece.part] += len(piece.data)
    assert filled[0] <= 3
    assert filled[1] <= 5
    assert not whole or filled == [3, 5]
    assert whole or kept < len(honest)


@given(st.integers(30, 200), st.sampled_from([b"x", b"\r\n", b"--c", b"\r\n--c", b"--b\r\nX: y\r\n", b"-"]))
def test_a_frame_has_a_limit_whatever_it_is_made_of(step: int, filler: bytes) -> None:
    parser = MultipartParser("b", [HttpRange(0, 2)])
    for _ in range((FRAME_BYTES_MAX - 1) // (len(filler) * step)):
        assert parser.feed(filler * step) == []
    with pytest.raises(ProtocolViolation):
        parser.feed(filler * (FRAME_BYTES_MAX + step))


@given(st.text(max_size=60))
def test_headers_of_any_text(text: str) -> None:
    for prefix in ("", "bytes ", "multipart/byteranges; boundary="):
        for read in (parse_content_range, parse_boundary):
            try:
                read(prefix + text)
            except ProtocolViolation:
                continue


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.none() | st.integers(0, 2**53))
def test_content_ranges_that_can_be_and_no_others(first: int, last: int, total: int | None) -> None:
    text = f"bytes {first}-{last}/{'*' if total is None else total}"
    if first <= last and last < (2**53 if total is None else total):
        assert parse_content_range(text) == (HttpRange(first, last), total)
    else:
        with pytest.raises(ProtocolViolation):
            parse_content_range(text)
