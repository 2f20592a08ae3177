"""From a byte range of a file to the answer of the CAS: terms trimmed to whole chunks, and the signed ranges under them.

Pure: tables in, plain values out. Terms at both ends are trimmed by the chunk boundaries of their xorbs; the fetch ranges of a
xorb are merged where its terms touch or overlap, so that each term lies within one of them.
Source: Xet spec, "Reconstruction".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xetfs.protocol.hashes import XorbHash
from xetfs.testhub.signing import RANGES_PER_URL_MAX
from xetfs.testhub.xetstore import FileRecord, XorbIndex

SignRanges = Callable[[XorbHash, Sequence[tuple[int, int]]], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """offset: bytes of the first term before the range. terms: (xorb, first chunk, end chunk, length).
    fetches: by xorb, (first chunk, end chunk, first byte, last byte)."""

    offset: int
    terms: Sequence[tuple[XorbHash, int, int, int]]
    fetches: Mapping[XorbHash, Sequence[tuple[int, int, int, int]]]


def plan_answer(record: FileRecord, index: Callable[[XorbHash], XorbIndex], start: int, end: int) -> Answer:
    """What [start, end) of the file is made of; 0 <= start < end <= size."""
    first = int(np.searchsorted(record.ends, start, "right"))
    last = int(np.searchsorted(record.ends, end, "left"))
    lengths = record.lengths[first : last + 1].tolist()
    terms = [
        (record.xorbs[xorb], begin, stop, length)
        for (xorb, begin, stop), length in zip(record.terms[first : last + 1].tolist(), lengths, strict=True)
    ]
    term_end = int(record.ends[last])
    term_start = int(record.ends[first]) - lengths[0]
    # The tail first: trimming the head moves the start of what may be the same term.
    terms[-1] = _without_tail(terms[-1], index(terms[-1][0]), term_end - end)
    terms[0], offset = _without_head(terms[0], index(terms[0][0]), start - term_start)
    return Answer(offset, terms, _merge_fetches(terms, index))


def _without_tail(term: tuple[XorbHash, int, int, int], index: XorbIndex, surplus: int) -> tuple[XorbHash, int, int, int]:
    xorb, begin, stop, _ = term
    end = int(np.searchsorted(index.data, int(index.data[stop]) - surplus, "left"))
    return xorb, begin, end, int(index.data[end] - index.data[begin])


def _without_head(
    term: tuple[XorbHash, int, int, int], index: XorbIndex, surplus: int
) -> tuple[tuple[XorbHash, int, int, int], int]:
    xorb, begin, stop, _ = term
    wanted = int(index.data[begin]) + surplus
    start = int(np.searchsorted(index.data, wanted, "right")) - 1
    return (xorb, start, stop, int(index.data[stop] - index.data[start])), wanted - int(index.data[start])


def _merge_fetches(
    terms: Sequence[tuple[XorbHash, int, int, int]], index: Callable[[XorbHash], XorbIndex]
) -> dict[XorbHash, list[tuple[int, int, int, int]]]:
    chunks: dict[XorbHash, set[tuple[int, int]]] = {}
    for xorb, begin, stop, _ in terms:
        chunks.setdefault(xorb, set()).add((begin, stop))
    fetches: dict[XorbHash, list[tuple[int, int, int, int]]] = {}
    for xorb, ranges in chunks.items():
        merged: list[tuple[int, int]] = []
        for begin, stop in sorted(ranges):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
            else:
                merged.append((begin, stop))
        wire = index(xorb).wire
        fetches[xorb] = [(begin, stop, int(wire[begin]), int(wire[stop]) - 1) for begin, stop in merged]
    return fetches


def to_json(answer: Answer, version: int, sign: SignRanges) -> dict[str, Any]:
    """The answer as the CAS words it in version 1 or 2."""
    names = {xorb: xorb.hex() for xorb in answer.fetches}
    body: dict[str, Any] = {
        "offset_into_first_range": answer.offset,
        "terms": [
            {"hash": names[xorb], "unpacked_length": length, "range": {"start": begin, "end": stop}}
            for xorb, begin, stop, length in answer.terms
        ],
    }
    if version == 1:
        body["fetch_info"] = {
            names[xorb]: [
                {
                    "range": {"start": begin, "end": stop},
                    "url": sign(xorb, [(first, last)]),
                    "url_range": {"start": first, "end": last},
                }
                for begin, stop, first, last in ranges
            ]
            for xorb, ranges in answer.fetches.items()
        }
    else:
        body["xorbs"] = {
            names[xorb]: [
                {
                    "url": sign(xorb, [(first, last) for _, _, first, last in group]),
                    "ranges": [
                        {"chunks": {"start": begin, "end": stop}, "bytes": {"start": first, "end": last}}
                        for begin, stop, first, last in group
                    ],
                }
                for group in (ranges[at : at + RANGES_PER_URL_MAX] for at in range(0, len(ranges), RANGES_PER_URL_MAX))
            ]
            for xorb, ranges in answer.fetches.items()
        }
    return body
