"""What a file range is made of: terms in file order, and where the xorb chunks under them can be fetched.

A term is a run of chunks of one xorb. Terms may repeat, overlap and go backwards in a xorb. Fetch ranges are merged over terms,
so several terms share one; a term never spans two. All this is checked here, once: whoever holds a `Reconstruction` may look up
the fetch of a term without a further check. Lengths are still only claims, until the chunks are decoded.

Source: Xet spec, "Reconstruction" (both versions of the answer); xet-core cas_types/mod.rs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal

from xetfs.errors import ProtocolViolation
from xetfs.protocol.expiry import signed_url_end
from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.json_values import as_int, as_list, as_object, load_json, shown
from xetfs.protocol.ranges import ChunkRange, HttpRange
from xetfs.protocol.urls import split_url
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, CHUNK_WIRE_BYTES_MAX, XORB_BYTES_MAX, XORB_CHUNKS_MAX

TERMS_MAX: Final = 2**16
"""Terms of one answer. Data that repeats has one chunk per term: this many cover half a GiB, and a window is far
smaller."""
FETCHES_MAX: Final = 2**16
"""Fetch ranges of one answer: each serves at least one term."""

_HEADER_BYTES = 8
_XORB_WIRE_BYTES_MAX = XORB_BYTES_MAX + _HEADER_BYTES * XORB_CHUNKS_MAX  # data that does not compress, with its chunk headers
_WHAT = "reconstruction"


class SignedUrl:
    """A URL whose query is a credential: shown without it in str(), format(), repr() and tracebacks; `reveal()` gives all of it.

    Not a str: too much (join, %, json, logging of exceptions) would take the text of one without asking.
    """

    __slots__ = ("_url", "host", "port", "ranges", "scheme", "shown")

    def __init__(self, url: object, ranges: tuple[HttpRange, ...] = ()) -> None:
        """ranges: all that the URL was signed for, in the order of the answer; () if that is not known.

        Raises ProtocolViolation unless `url` is an absolute http(s) URL with a host, without user name and fragment.
        """
        parts = split_url(url, f"{_WHAT}: url")
        self._url = str(url)
        self.ranges = ranges
        self.scheme = parts.scheme
        self.host = parts.host
        self.port = parts.port
        self.shown = parts.shown

    def reveal(self) -> str:
        return self._url

    @property
    def ends_s(self) -> float | None:
        """Unix time at which the URL ends by its own account, or None if it does not say (protocol/expiry.py)."""
        return signed_url_end(self._url)

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"SignedUrl({self.shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a signed URL is not to be stored")


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks of one xorb that makes up `length` (decoded) bytes of the file."""

    xorb: XorbHash
    chunks: ChunkRange
    length: int


@dataclass(frozen=True, slots=True)
class FetchInfo:
    """Chunks of a xorb, and the bytes of the stored object that hold exactly these."""

    chunks: ChunkRange
    url: SignedUrl
    bytes: HttpRange


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """offset: file bytes at the beginning of the first term that precede the range asked for; less than its length.
    terms: in file order; the last may reach beyond the range. None for an empty file.
    fetches: of every xorb, in order of chunks and of bytes, without overlap; each term lies inside exactly one.
    """

    offset: int
    terms: tuple[Term, ...]
    fetches: Mapping[XorbHash, tuple[FetchInfo, ...]]

    def fetch_of(self, term: Term) -> FetchInfo:
        """The one fetch whose chunks include those of the term, which must be of this reconstruction."""
        fetch = _covering(self.fetches[term.xorb], term.chunks)
        if fetch is None:
            raise ValueError(f"not a term of this reconstruction: {term}")
        return fetch


def parse_reconstruction(body: bytes, version: Literal[1, 2]) -> Reconstruction:
    """Read the answer of `/v1/reconstructions` or `/v2/reconstructions`; both give the same value.

    Raises ProtocolViolation for everything that the module's docstring or `Reconstruction` rules out.
    """
    answer = as_object(load_json(body, _WHAT), _WHAT)
    hashes: dict[str, XorbHash] = {}
    terms = _parse_terms(answer.get("terms"), hashes)
    fetches = _parse_v2(answer.get("xorbs"), hashes) if version == 2 else _parse_v1(answer.get("fetch_info"), hashes)
    for term in terms:
        if _covering(fetches.get(term.xorb, ()), term.chunks) is None:
            raise ProtocolViolation(f"{_WHAT}: chunks {term.chunks} of xorb {term.xorb.hex()[:12]} are in no fetch range")
    offset = as_int(answer.get("offset_into_first_range"), f"{_WHAT}: offset")
    if offset and (not terms or offset >= terms[0].length):
        raise ProtocolViolation(f"{_WHAT}: the offset {offset} is not inside the first term")
    return Reconstruction(offset, terms, MappingProxyType(fetches))


def _parse_terms(value: object, hashes: dict[str, XorbHash]) -> tuple[Term, ...]:
    terms = []
    for entry in as_list(value, f"{_WHAT}: terms", count_max=TERMS_MAX):
        term = as_object(entry, f"{_WHAT}: term")
        chunks = _chunk_range(term.get("range"))
        length = term.get("unpacked_length")
        if type(length) is not int or not len(chunks) <= length <= len(chunks) * CHUNK_BYTES_MAX:
            raise ProtocolViolation(f"{_WHAT}: {len(chunks)} chunks cannot be {shown(length)} bytes long")
        terms.append(Term(_xorb_hash(term.get("hash"), hashes), chunks, length))
    return tuple(terms)


def _parse_v2(value: object, hashes: dict[str, XorbHash]) -> dict[XorbHash, tuple[FetchInfo, ...]]:
    fetches: dict[XorbHash, tuple[FetchInfo, ...]] = {}
    for name, entries in as_object(value, f"{_WHAT}: xorbs").items():
        found: list[FetchInfo] = []
        for entry in as_list(entries, f"{_WHAT}: fetches", count_max=FETCHES_MAX):
            signed = as_object(entry, f"{_WHAT}: fetch")
            ranges = as_list(signed.get("ranges"), f"{_WHAT}: ranges", count_max=FETCHES_MAX)
            pairs = [as_object(part, f"{_WHAT}: range") for part in ranges]
            parts = [_check_fetch(pair.get("chunks"), pair.get("bytes")) for pair in pairs]
            url = SignedUrl(signed.get("url"), tuple(span for _, span in parts))
            found.extend(FetchInfo(chunks, url, span) for chunks, span in parts)
        _enter(fetches, _xorb_hash(name, hashes), found)
    return fetches


def _parse_v1(value: object, hashes: dict[str, XorbHash]) -> dict[XorbHash, tuple[FetchInfo, ...]]:
    fetches: dict[XorbHash, tuple[FetchInfo, ...]] = {}
    urls: dict[object, SignedUrl] = {}  # one URL may come with each of many ranges
    for name, entries in as_object(value, f"{_WHAT}: fetch_info").items():
        found = []
        for entry in as_list(entries, f"{_WHAT}: fetches", count_max=FETCHES_MAX):
            fetch = as_object(entry, f"{_WHAT}: fetch")
            text = fetch.get("url")
            url = urls.get(text) if isinstance(text, str) else None
            if url is None:
                url = urls[text] = SignedUrl(text)
            chunks, span = _check_fetch(fetch.get("range"), fetch.get("url_range"))
            found.append(FetchInfo(chunks, url, span))
        _enter(fetches, _xorb_hash(name, hashes), found)
    return fetches


def _check_fetch(chunk_range: object, byte_range: object) -> tuple[ChunkRange, HttpRange]:
    """Chunks and bytes of a fetch, these held against what its chunks can take: a header and 1 to CHUNK_WIRE_BYTES_MAX bytes
    each."""
    chunks = _chunk_range(chunk_range)
    pair = as_object(byte_range, f"{_WHAT}: bytes")
    first = as_int(pair.get("start"), f"{_WHAT}: bytes: start", most=_XORB_WIRE_BYTES_MAX)
    last = as_int(pair.get("end"), f"{_WHAT}: bytes: end", least=first, most=_XORB_WIRE_BYTES_MAX - 1)
    least, most = _HEADER_BYTES + 1, _HEADER_BYTES + CHUNK_WIRE_BYTES_MAX
    if not least * chunks.start <= first <= most * chunks.start or not least * len(chunks) <= last + 1 - first <= most * len(
        chunks
    ):
        raise ProtocolViolation(f"{_WHAT}: bytes {first}-{last} of a xorb cannot be its {chunks}")
    return chunks, HttpRange(first, last)


def _enter(fetches: dict[XorbHash, tuple[FetchInfo, ...]], xorb: XorbHash, found: list[FetchInfo]) -> None:
    """Note the fetches of a xorb, sorted by chunks. Two may not overlap, and bytes must follow in the order of chunks."""
    if xorb in fetches:  # under another spelling of its hash
        raise ProtocolViolation(f"{_WHAT}: the xorb {xorb.hex()[:12]} occurs twice")
    found.sort(key=_first_chunk)
    for before, after in pairwise(found):
        if before.chunks.end > after.chunks.start or before.bytes.last >= after.bytes.first:
            raise ProtocolViolation(f"{_WHAT}: the fetch ranges {before.chunks} and {after.chunks} of one xorb overlap")
    fetches[xorb] = tuple(found)


def _covering(fetches: tuple[FetchInfo, ...], chunks: ChunkRange) -> FetchInfo | None:
    """The fetch that includes `chunks`, of fetches that are sorted and do not overlap."""
    place = bisect_right(fetches, chunks.start, key=_first_chunk)
    if place and fetches[place - 1].chunks.end >= chunks.end:
        return fetches[place - 1]
    return None


def _first_chunk(fetch: FetchInfo) -> int:
    return fetch.chunks.start


def _chunk_range(value: object) -> ChunkRange:
    pair = as_object(value, f"{_WHAT}: chunk range")
    start, end = pair.get("start"), pair.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= XORB_CHUNKS_MAX:
        raise ProtocolViolation(f"{_WHAT}: not chunks of a xorb: {shown(start)} to {shown(end)}")
    return ChunkRange(start, end)


def _xorb_hash(text: object, hashes: dict[str, XorbHash]) -> XorbHash:
    """The hash in `text`, one object for all that name the same xorb: terms are many, xorbs few."""
    if type(text) is not str:
        raise ProtocolViolation(f"{_WHAT}: expected a hash, got {shown(text)}")
    found = hashes.get(text)
    if found is None:
        found = hashes[text] = XorbHash(MerkleHash.from_hex(text))
    return found
