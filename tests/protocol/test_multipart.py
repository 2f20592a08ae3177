import pytest

from xetfs.errors import ProtocolViolation
from xetfs.protocol.multipart import FRAME_BYTES_MAX, MultipartParser, parse_boundary, parse_content_range
from xetfs.protocol.ranges import HttpRange

# Every byte of the object is a piece of framing, so that a reader who searches for boundaries is fooled.
OBJECT = b"\r\n--sep\r\n\r\n--sep--" * 60
ASKED = [HttpRange(100, 199), HttpRange(0, 49), HttpRange(200, 200), HttpRange(500, 999)]


def part(first: int, last: int, *, header: str = "Content-Range: bytes {}-{}/{}", data: bytes | None = None) -> bytes:
    line = header.format(first, last, len(OBJECT)).encode()
    content = OBJECT[first : last + 1] if data is None else data
    return b"--sep\r\nContent-Type: application/octet-stream\r\n" + line + b"\r\n\r\n" + content + b"\r\n"


END = b"--sep--\r\n"
WHOLE = part(0, 49) + part(100, 199) + part(200, 200) + part(500, 999) + END


def read(body: bytes, step: int = 1 << 20, asked: list[HttpRange] = ASKED) -> list[bytes]:
    parser = MultipartParser("sep", asked)
    buffers = [bytearray(len(range_)) for range_ in asked]
    written = 0
    for start in range(0, len(body), step):
        for piece in parser.feed(body[start : start + step]):
            buffers[piece.part][piece.offset : piece.offset + len(piece.data)] = piece.data
            written += len(piece.data)
    parser.finish()
    assert written == sum(map(len, asked))
    return [bytes(buffer) for buffer in buffers]


EXPECTED = [OBJECT[range_.first : range_.last + 1] for range_ in ASKED]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        b"\r\n" + WHOLE,
        b"a preamble\r\nof two lines\r\n" + WHOLE,
        WHOLE + b"an epilogue with --sep in it",
        part(500, 999) + part(200, 200) + part(0, 49) + part(100, 199) + END[:-2],
        part(100, 200) + part(500, 999) + part(0, 49) + END,
        part(0, 49, header="CONTENT-RANGE:bytes {}-{}/*") + part(100, 200, header="content-range:  BYTES {}-{}/{}")
        + part(500, 999) + END,
        WHOLE.replace(b"--sep\r\nContent-Type", b"--sep \t \r\nContent-Type"),
    ],
    ids=["plain", "leading_crlf", "preamble", "epilogue", "shuffled", "adjacent_joined", "spelling", "padding"],
)  # fmt: skip
def test_all_parts_arrive_however_the_body_is_cut(body: bytes, step: int) -> None:
    assert read(body, step) == EXPECTED


def test_data_is_passed_on_without_a_copy() -> None:
    body = bytearray(WHOLE)
    parser = MultipartParser("sep", ASKED)
    pieces = parser.feed(memoryview(body))
    assert [piece.data.obj for piece in pieces] == [body] * 4
    assert parser.complete


def test_completeness_is_known_before_the_end() -> None:
    parser = MultipartParser("sep", ASKED)
    parser.feed(WHOLE[: -len(END) - 3])
    assert not parser.complete
    parser.feed(WHOLE[-len(END) - 3 : -len(END)])
    assert parser.complete
    with pytest.raises(ProtocolViolation, match="without its end"):
        parser.finish()


@pytest.mark.parametrize(
    "body",
    [
        END,
        WHOLE.replace(b"999/", b"998/"),
        WHOLE.replace(b"500-", b"499-"),
        part(0, 49) + part(0, 49) + WHOLE,
        part(0, 49) + part(100, 200) + part(200, 200) + part(500, 999) + END,
        part(0, 199) + part(200, 200) + part(500, 999) + END,
        part(0, 49, data=OBJECT[:51]) + END,
        part(0, 49, data=OBJECT[:49]) + WHOLE,
        part(0, 49, header="X: y") + END,
        part(0, 49, header="Content-Range: bytes {}-{}/{}\r\nContent-Range: bytes 0-49/1") + END,
        part(0, 49, header="Content-Range: bytes {}-{}/{}\r\n folded: x") + END,
        part(0, 49, header="Content-Range: bytes {}-{}/{}\r\nContent-Encoding: gzip") + END,
        part(0, 49, header="Content-Range: bytes {}-{}/10") + END,
        part(0, 49) + part(100, 199, header="Content-Range: bytes {}-{}/5000") + END,
        part(0, 49, header="Content-Range: bytes */{}") + END,
        b"--sep\r\n\r\n" + WHOLE,
        WHOLE.replace(b"--sep\r\nContent-Type", b"--sepa\r\nContent-Type"),
        b"<html>" * 10_000,
        b"--sep\r\n" + b"X: y\r\n" * 10_000,
        b"--sep" + b" " * 100_000,
    ],
    ids=[
        "no_parts", "other_last", "other_first", "part_twice", "overlap", "joined_over_a_hole", "data_too_long", "data_too_short",
        "no_range", "two_ranges", "folded", "gzip", "beyond_total", "two_totals", "unsatisfied", "no_headers", "longer_boundary",
        "html", "endless_headers", "endless_padding",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_was_not_asked_for_is_refused(body: bytes, step: int) -> None:
    with pytest.raises(ProtocolViolation):
        read(body, step)


def test_every_shorter_body_is_refused() -> None:
    for end in range(len(WHOLE) - 2):
        with pytest.raises(ProtocolViolation):
            read(WHOLE[:end], 100)


def test_a_refused_body_stays_refused() -> None:
    parser = MultipartParser("sep", ASKED)
    with pytest.raises(ProtocolViolation):
        parser.feed(b"--sepx\r\n")
    with pytest.raises(ProtocolViolation):
        parser.feed(WHOLE)
    with pytest.raises(ProtocolViolation):
        parser.finish()


def test_garbage_is_given_up_after_a_bounded_amount() -> None:
    parser = MultipartParser("sep", ASKED)
    for _ in range(FRAME_BYTES_MAX - 1):
        assert parser.feed(b"x") == []
    with pytest.raises(ProtocolViolation):
        parser.feed(b"x")


@pytest.mark.parametrize("asked", [[], [HttpRange(0, 5), HttpRange(5, 9)]], ids=["none", "overlap"])
def test_ranges_that_cannot_be_asked_for_are_our_own_mistake(asked: list[HttpRange]) -> None:
    with pytest.raises(ValueError):
        MultipartParser("sep", asked)


@pytest.mark.parametrize("boundary", ["", "a" * 71, "a\r\nb", "ü", "a ", 'a"b'])
def test_boundaries_that_cannot_be_are_refused(boundary: str) -> None:
    with pytest.raises(ProtocolViolation):
        MultipartParser(boundary, ASKED)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/byteranges; boundary=abc", "abc"),
        ('multipart/byteranges; boundary="a b;c"', "a b;c"),
        ('Multipart/ByteRanges ; charset="x;boundary=no" ; BOUNDARY = abc', "abc"),
        ("application/octet-stream", None),
        ("text/plain; boundary=abc", None),
        ("", None),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type: str, boundary: str | None) -> None:
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", ["multipart/byteranges", "multipart/byteranges; charset=x", "multipart/mixed; boundary=a"]
)
def test_multipart_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_boundary(content_type)


def test_content_ranges() -> None:
    assert parse_content_range("bytes 0-9/10") == (HttpRange(0, 9), 10)
    assert parse_content_range(" Bytes 5-5/* ") == (HttpRange(5, 5), None)


@pytest.mark.parametrize(
    "text",
    ["", "bytes", "bytes 0-9", "bytes */10", "bytes 9-0/10", "bytes 0-10/10", "bytes -1-5/10", "items 0-9/10", "bytes 0-9/10, 5",
     "bytes ٠-٩/10", "bytes 0-9999999999999999/*", "bytes 0-1/99999999999999999999", "bytes 0x0-9/10"],
)  # fmt: skip
def test_content_ranges_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_content_range(text)
