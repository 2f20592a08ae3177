import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.ranges import ChunkRange, HttpRange
from xetfs.protocol.reconstruction import Reconstruction, SignedUrl, Term, parse_reconstruction

A, B = "aa" * 32, "0b" * 32
URL = "https://cdn.example:8443/xorbs/a?X-Xet-Signed-Range=bytes%3D0-9&Signature=canary"

V2: dict[str, Any] = {
    "offset_into_first_range": 100,
    "terms": [
        {"hash": A, "unpacked_length": 3000, "range": {"start": 2, "end": 4}},
        {"hash": B, "unpacked_length": 70000, "range": {"start": 0, "end": 1}},
        {"hash": A, "unpacked_length": 1500, "range": {"start": 2, "end": 3}},
        {"hash": A, "unpacked_length": 900, "range": {"start": 7, "end": 8}},
    ],
    "xorbs": {
        A: [
            {
                "url": URL,
                "ranges": [
                    {"chunks": {"start": 7, "end": 8}, "bytes": {"start": 5000, "end": 5999}},
                    {"chunks": {"start": 2, "end": 5}, "bytes": {"start": 100, "end": 3999}},
                ],
            }
        ],
        B: [{"url": URL, "ranges": [{"chunks": {"start": 0, "end": 1}, "bytes": {"start": 0, "end": 65543}}]}],
    },
}


def as_v1(answer: dict[str, Any]) -> dict[str, Any]:
    fetch_info = {
        xorb: [
            {"range": part["chunks"], "url": entry["url"], "url_range": part["bytes"]}
            for entry in entries
            for part in entry["ranges"]
        ]
        for xorb, entries in answer["xorbs"].items()
    }
    return {
        "offset_into_first_range": answer["offset_into_first_range"],
        "terms": answer["terms"],
        "fetch_info": fetch_info,
    }


def parse(answer: object, version: Any = 2) -> Reconstruction:
    return parse_reconstruction(json.dumps(answer).encode(), version)


def test_both_versions_give_the_same_value() -> None:
    value = parse(V2)
    assert parse(as_v1(V2), 1) == value
    assert value.offset == 100
    assert value.terms[0] == Term(XorbHash(MerkleHash.from_hex(A)), ChunkRange(2, 4), 3000)
    assert [fetch.chunks for fetch in value.fetches[value.terms[0].xorb]] == [ChunkRange(2, 5), ChunkRange(7, 8)]
    assert value.fetch_of(value.terms[2]).bytes == HttpRange(100, 3999)
    assert value.fetch_of(value.terms[3]).bytes == HttpRange(5000, 5999)


def test_a_term_of_another_reconstruction_has_no_fetch() -> None:
    value = parse(V2)
    with pytest.raises(ValueError):
        value.fetch_of(Term(value.terms[0].xorb, ChunkRange(4, 6), 5000))


def test_a_file_without_bytes_has_no_terms() -> None:
    empty = parse({"offset_into_first_range": 0, "terms": [], "xorbs": {}})
    assert (empty.offset, empty.terms, dict(empty.fetches)) == (0, (), {})


def test_fields_that_are_not_known_are_ignored() -> None:
    answer = copy.deepcopy(V2)
    answer["new"] = {"anything": [1.5, None]}
    answer["terms"][0]["new"] = True
    answer["xorbs"][A][0]["ranges"][0]["new"] = "x"
    assert parse(answer) == parse(V2)


def set_at(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        place: Any = answer
        for step in path[:-1]:
            place = place[step]
        if to is ABSENT:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return change


ABSENT = object()
TERM, FETCH = ("terms", 0), ("xorbs", A, 0, "ranges", 1)

REFUSED = {
    "offset_negative": set_at("offset_into_first_range", to=-1),
    "offset_bool": set_at("offset_into_first_range", to=True),
    "offset_float": set_at("offset_into_first_range", to=1.0),
    "offset_text": set_at("offset_into_first_range", to="1"),
    "offset_absent": set_at("offset_into_first_range", to=ABSENT),
    "offset_past_the_first_term": set_at("offset_into_first_range", to=3000),
    "terms_absent": set_at("terms", to=ABSENT),
    "terms_object": set_at("terms", to={}),
    "term_null": set_at(*TERM, to=None),
    "no_terms_but_an_offset": set_at("terms", to=[]),
    "hash_short": set_at(*TERM, "hash", to=A[2:]),
    "hash_number": set_at(*TERM, "hash", to=7),
    "hash_not_hex": set_at(*TERM, "hash", to="zz" * 32),
    "hash_unknown": set_at(*TERM, "hash", to="cc" * 32),
    "length_less_than_the_chunks": set_at(*TERM, "unpacked_length", to=1),
    "length_more_than_chunks_hold": set_at(*TERM, "unpacked_length", to=2 * 131072 + 1),
    "length_huge": set_at(*TERM, "unpacked_length", to=10**40),
    "chunks_empty": set_at(*TERM, "range", to={"start": 2, "end": 2}),
    "chunks_reversed": set_at(*TERM, "range", to={"start": 4, "end": 2}),
    "chunks_negative": set_at(*TERM, "range", to={"start": -1, "end": 2}),
    "chunks_bool": set_at(*TERM, "range", to={"start": True, "end": 4}),
    "chunks_beyond_a_xorb": set_at(*FETCH, "chunks", to={"start": 2, "end": 8193}),
    "chunks_in_no_fetch": set_at(*TERM, "range", to={"start": 4, "end": 6}),
    "chunks_across_two_fetches": set_at(*FETCH, "chunks", to={"start": 3, "end": 5}),
    "xorbs_absent": set_at("xorbs", to=ABSENT),
    "xorb_absent": set_at("xorbs", A, to=ABSENT),
    "xorb_without_fetches": set_at("xorbs", A, to=[]),
    "xorb_named_twice": set_at("xorbs", A.upper(), to=V2["xorbs"][A]),
    "ranges_overlap_in_chunks": set_at(*FETCH, "chunks", to={"start": 2, "end": 8}),
    "ranges_overlap_in_bytes": set_at(*FETCH, "bytes", to={"start": 100, "end": 5000}),
    "ranges_in_another_order_in_bytes": set_at(*FETCH, "bytes", to={"start": 7000, "end": 7999}),
    "bytes_too_few_for_the_chunks": set_at(*FETCH, "bytes", to={"start": 100, "end": 100 + 26 - 1}),
    "bytes_too_many_for_the_chunks": set_at("xorbs", B, 0, "ranges", 0, "bytes", to={"start": 0, "end": 262152}),
    "bytes_reversed": set_at(*FETCH, "bytes", to={"start": 100, "end": 50}),
    "bytes_before_their_chunks_can_be": set_at(*FETCH, "bytes", to={"start": 17, "end": 2000}),
    "bytes_beyond_a_xorb": set_at("xorbs", A, 0, "ranges", 0, "bytes", to={"start": 2**27, "end": 2**27 + 900}),
    "url_absent": set_at("xorbs", A, 0, "url", to=ABSENT),
    "url_number": set_at("xorbs", A, 0, "url", to=5),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_a_reconstruction_is_refused(change: Callable[[dict[str, Any]], None], version: int) -> None:
    answer = copy.deepcopy(V2)
    change(answer)
    if version == 1 and "xorbs" in answer:
        answer = as_v1_or_same(answer)
    with pytest.raises(ProtocolViolation):
        parse(answer, version)


def as_v1_or_same(answer: dict[str, Any]) -> dict[str, Any]:
    """Version 1 of a broken answer; what cannot even be rewritten is as wrong in version 1 as it stands."""
    try:
        return {**answer, **as_v1(answer)}
    except (KeyError, TypeError):
        return answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>sign in</html>",
        b"\xff\xfe" + "{}".encode("utf-16-le"),
        b'{"terms": []',
        b'{"offset_into_first_range": 0, "terms": [], "xorbs": {}} tail',
        b'{"offset_into_first_range": 0, "offset_into_first_range": 0, "terms": [], "xorbs": {}}',
        b'{"offset_into_first_range": NaN, "terms": [], "xorbs": {}}',
        b'{"offset_into_first_range": ' + b"9" * 5000 + b', "terms": [], "xorbs": {}}',
        b'{"terms": ' + b"[" * 200_000,
        b'{"terms": ' + b'{"a":' * 200_000,
    ],
    ids=["empty", "null", "list", "html", "utf16", "cut", "tail", "duplicate", "nan", "digits", "deep_lists", "deep_objects"],
)
def test_what_is_not_json_of_the_right_kind_is_refused(body: bytes) -> None:
    for version in (1, 2):
        with pytest.raises(ProtocolViolation):
            parse_reconstruction(body, version)


def test_every_shorter_body_is_refused() -> None:
    body = json.dumps(V2).encode()
    for end in range(len(body)):
        with pytest.raises(ProtocolViolation):
            parse_reconstruction(body[:end], 2)


def test_many_terms_share_their_hashes() -> None:
    terms = [
        {"hash": (A, B)[i % 2], "unpacked_length": 131072, "range": {"start": i % 4096, "end": i % 4096 + 1}}
        for i in range(20_000)
    ]
    fetch = [{"url": URL, "ranges": [{"chunks": {"start": 0, "end": 4096}, "bytes": {"start": 0, "end": 999_999}}]}]
    value = parse({"offset_into_first_range": 0, "terms": terms, "xorbs": {A: fetch, B: fetch}})
    assert len(value.terms) == 20_000
    assert len({id(term.xorb) for term in value.terms}) == 2


def test_a_signed_url_shows_no_query() -> None:
    url = SignedUrl(URL)
    value = parse(V2)
    for shown in (str(url), repr(url), f"{url}", f"{url!r:>400}", repr(value), str(value.terms), repr({url: [url]})):
        assert "canary" not in shown
        assert "Signature" not in shown
    assert str(url) == "https://cdn.example:8443/xorbs/a"
    assert (url.scheme, url.host, url.port) == ("https", "cdn.example", 8443)
    assert url.reveal() == URL
    assert not isinstance(url, str)
    with pytest.raises(TypeError):
        pickle.dumps(url)


def test_signed_urls_are_compared_by_all_of_them() -> None:
    assert len({SignedUrl(URL), SignedUrl(URL), SignedUrl(URL + "x")}) == 2
    assert SignedUrl(URL) != URL


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative?a",
        "//cdn.example/a",
        "file:///etc/passwd",
        "ftp://cdn.example/a",
        "http:///a",
        "http://?a",
        "https://user@cdn.example/a",
        "https://user:canary@cdn.example/a",
        "https://cdn.example@evil.example/a",
        "https://cdn.example/a#fragment",
        "https://cdn.example/a#",
        "https://cdn.example\\@evil.example/a",
        "https://cdn.example/a b",
        "https://cdn.example/a\r\nX: y",
        "https://cdn.example/ü",
        "https://cdn.example:port/",
        "https://cdn.example:99999/",
        "https://cdn.example:0/",
        "https://[::1/",
        "https://cdn,example/",
        "https://cdn.example/" + "a" * 70_000,
        b"https://cdn.example/",
        None,
    ],
)
def test_urls_that_lead_astray_are_refused(url: object) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        SignedUrl(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x?y=1", "https://[::1]:8080/x", "HTTPS://CDN.Example/x?a=%2F"])
def test_urls_of_every_proper_form_are_taken(url: str) -> None:
    assert SignedUrl(url).reveal() == url
    assert SignedUrl(url).host in ("127.0.0.1", "::1", "cdn.example")
