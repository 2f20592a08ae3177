import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import MerkleHash
from xetfs.protocol.names import RepoId
from xetfs.protocol.reconstruction import Reconstruction, SignedUrl, parse_reconstruction
from xetfs.protocol.tree import parse_next_link, parse_repo_info, parse_tree_page, parse_xet_token

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Well-formed answers of version 2: some xorbs, their fetch ranges in any order, terms anywhere inside these."""
    xorbs: dict[str, Any] = {}
    places: list[tuple[str, int, int]] = []
    for number in range(draw(st.integers(1, 3))):
        name = f"{number + 1:064x}"
        ranges, chunk, byte = [], 0, 0
        for skipped, count in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5)):
            chunk, byte = chunk + skipped, byte + 500 * skipped
            ranges.append(
                {"chunks": {"start": chunk, "end": chunk + count}, "bytes": {"start": byte, "end": byte + 500 * count - 1}}
            )
            places.append((name, chunk, chunk + count))
            chunk, byte = chunk + count, byte + 500 * count
        shuffled = draw(st.permutations(ranges))
        split = draw(st.integers(0, len(ranges)))
        xorbs[name] = [
            {"url": f"https://cdn.example/{name}?part={part}", "ranges": some}
            for part, some in enumerate((shuffled[:split], shuffled[split:]))
        ]
    terms = []
    for name, first, last in draw(st.lists(st.sampled_from(places), max_size=10)):
        start = draw(st.integers(first, last - 1))
        end = draw(st.integers(start + 1, last))
        length = draw(st.integers(end - start, (end - start) * 131072))
        terms.append({"hash": name, "unpacked_length": length, "range": {"start": start, "end": end}})
    offset = draw(st.integers(0, terms[0]["unpacked_length"] - 1)) if terms else 0
    return {"offset_into_first_range": offset, "terms": terms, "xorbs": xorbs}


def as_v1(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "offset_into_first_range": answer["offset_into_first_range"],
        "terms": answer["terms"],
        "fetch_info": {
            xorb: [
                {"range": part["chunks"], "url": entry["url"], "url_range": part["bytes"]}
                for entry in entries
                for part in entry["ranges"]
            ]
            for xorb, entries in answer["xorbs"].items()
        },
    }


def encode(answer: object) -> bytes:
    return json.dumps(answer).encode()


def check(value: Reconstruction) -> None:
    """What the type promises, of any value that was let through."""
    assert value.offset == 0 or value.offset < value.terms[0].length
    for term in value.terms:
        covering = [fetch for fetch in value.fetches[term.xorb] if fetch.chunks.covers(term.chunks)]
        assert covering == [value.fetch_of(term)]
        assert len(term.chunks) <= term.length <= len(term.chunks) * 131072
    for fetches in value.fetches.values():
        assert list(fetches) == sorted(fetches, key=lambda fetch: fetch.chunks)
        assert all(len(fetch.bytes) >= 9 * len(fetch.chunks) for fetch in fetches)


@given(answers())
def test_every_well_formed_answer_is_read_alike_in_both_versions(answer: dict[str, Any]) -> None:
    value = parse_reconstruction(encode(answer), 2)
    check(value)
    assert parse_reconstruction(encode(as_v1(answer)), 1) == value
    assert [(term.xorb.hex(), term.chunks.start, term.chunks.end, term.length) for term in value.terms] == [
        (term["hash"], term["range"]["start"], term["range"]["end"], term["unpacked_length"]) for term in answer["terms"]
    ]
    urls = {
        (xorb, part["chunks"]["start"]): entry["url"]
        for xorb, entries in answer["xorbs"].items()
        for entry in entries
        for part in entry["ranges"]
    }
    for xorb, fetches in value.fetches.items():
        assert [fetch.url.reveal() for fetch in fetches] == [urls[xorb.hex(), fetch.chunks.start] for fetch in fetches]


@given(answers(), st.data())
def test_a_changed_answer_keeps_its_promises_or_is_refused(answer: dict[str, Any], data: st.DataObject) -> None:
    place: Any = answer
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 5)) == 0:
            break
        place = place[key]
    place[key] = data.draw(st.integers(-1, 600_000) | JSON)
    try:
        value = parse_reconstruction(encode(answer), 2)
    except ProtocolViolation:
        return
    check(value)


@given(st.binary(max_size=300) | JSON.map(encode))
def test_garbage_is_a_protocol_violation_everywhere(body: bytes) -> None:
    for version in (1, 2):
        with pytest.raises(ProtocolViolation):
            parse_reconstruction(body, version)  # type: ignore[arg-type]
    with pytest.raises(ProtocolViolation):
        parse_repo_info(body, RepoId("model", "acme/demo"))
    with pytest.raises(ProtocolViolation):
        parse_xet_token(body, {})
    try:
        assert parse_tree_page(body).entries == ()
    except ProtocolViolation:
        return


@given(st.text(max_size=200) | st.from_regex(r"(<[^>]*>(; *[a-z]+=\"?[a-z ]*\"?)*,? *)*", fullmatch=True))
def test_any_link_header_is_read_or_refused(header: str) -> None:
    try:
        link = parse_next_link(header)
    except ProtocolViolation:
        return
    assert link is None or f"<{link}>" in header


@given(st.text(max_size=60).map("https://cdn.example/{}".format) | st.text(max_size=60))
def test_any_url_is_taken_with_a_host_or_refused(text: str) -> None:
    try:
        url = SignedUrl(text)
    except ProtocolViolation:
        return
    assert url.scheme in ("http", "https")
    assert url.host
    assert "?" not in str(url)
    assert url.reveal() == text


@given(st.binary(min_size=32, max_size=32))
def test_hashes_in_answers_are_in_wire_form(raw: bytes) -> None:
    name = MerkleHash.from_raw(raw)
    page = [{"type": "file", "path": "a", "size": 1, "xetHash": name.hex()}]
    assert parse_tree_page(encode(page)).entries[0].file_id == name
