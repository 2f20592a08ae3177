import gc
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import MerkleHash
from xetfs.protocol.names import RepoId
from xetfs.protocol.tree import (
    PAGE_ENTRIES_MAX,
    TreeEntry,
    parse_next_link,
    parse_repo_info,
    parse_resolve_headers,
    parse_tree_page,
    parse_xet_token,
)

OID, SHA256, XET, COMMIT = "13" * 20, "5a" * 32, "69c0" * 16, "d9" * 20
DIRECTORY: dict[str, Any] = {"type": "directory", "oid": OID, "size": 0, "path": "sub"}
PLAIN: dict[str, Any] = {"type": "file", "oid": OID, "size": 1200, "path": "README.md"}
XET_FILE: dict[str, Any] = {
    "type": "file",
    "oid": OID,
    "size": 132,
    "path": "sub/w.bin",
    "lfs": {"oid": SHA256, "size": 6_000_000, "pointerSize": 132},
    "xetHash": XET,
    "lastCommit": {"id": COMMIT, "title": "t", "date": "2026-11-21T07:01:41.500Z"},
}


def page(*entries: object) -> bytes:
    return json.dumps(entries).encode()


def read(*entries: object) -> tuple[TreeEntry, ...]:
    """The entries of a page of which nothing is odd."""
    parsed = parse_tree_page(page(*entries))
    assert parsed.odd == ()
    return parsed.entries


def test_a_page_of_a_listing() -> None:
    directory, plain, xet = read(DIRECTORY, PLAIN, XET_FILE)
    assert directory == TreeEntry("sub", "directory", 0, OID)
    assert plain == TreeEntry("README.md", "file", 1200, OID)
    assert xet == TreeEntry(
        "sub/w.bin",
        "file",
        6_000_000,
        OID,
        file_id=MerkleHash.from_hex(XET),  # type: ignore[arg-type]
        sha256=bytes.fromhex(SHA256),
        mtime_s=1795244501,
    )


def test_entries_of_little_are_enough() -> None:
    nothing = {"oid": None, "xetHash": None, "lfs": None, "lastCommit": None}
    assert read({"type": "file", "path": "a", "size": 0, **nothing}) == (TreeEntry("a", "file", 0),)
    assert read({"type": "directory", "path": "d"}) == (TreeEntry("d", "directory", 0),)
    assert read({**PLAIN, "lfs": {"oid": SHA256}})[0].size == 1200
    assert read() == ()


@pytest.mark.parametrize(
    ("date", "mtime_s"),
    [
        ("2026-11-21T08:01:41+01:00", 1795244501),
        ("2026-11-21T07:01:41", 1795244501),
        ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59Z", (2**63 - 1) // 10**9),
    ],
)
def test_times_are_what_a_file_system_can_carry(date: str, mtime_s: int) -> None:
    assert read({**PLAIN, "lastCommit": {"date": date}})[0].mtime_s == mtime_s


@pytest.mark.parametrize("path", ["../../etc/passwd", "/abs", "a\0b", "a\nb", "\ud800", "ü/" + "n" * 300, ".", "a//b"])
def test_whether_a_name_can_be_served_is_not_decided_here(path: str) -> None:
    assert read({**PLAIN, "path": path})[0].path == path


@pytest.mark.parametrize(
    "change",
    [
        {"type": "unknown"},
        {"type": "symlink"},
        {"type": None},
        {"type": ["file"]},
        {"size": -1},
        {"size": True},
        {"size": 1.0},
        {"size": "1200"},
        {"size": None},
        {"size": 2**53 + 1},
        {"size": 2**70},
        {"lfs": "x"},
        {"lfs": {"oid": SHA256, "size": -5}},
        {"lfs": {"oid": SHA256, "size": None}},
    ],
)
def test_an_entry_that_makes_no_sense_is_left_out_and_named(change: dict[str, Any]) -> None:
    parsed = parse_tree_page(page(DIRECTORY, {**PLAIN, **change}, XET_FILE))
    assert [entry.path for entry in parsed.entries] == ["sub", "sub/w.bin"]
    [what] = parsed.odd
    assert "README.md" in what


@pytest.mark.parametrize(
    "change",
    [
        {"oid": "xyz"},
        {"oid": OID.upper().replace("1", "A")},
        {"oid": 7},
        {"lastCommit": "yesterday"},
        {"lastCommit": {}},
        {"lastCommit": {"date": "yesterday"}},
        {"lastCommit": {"date": 5}},
    ],
)
def test_what_only_decorates_an_entry_is_ignored_when_it_is_odd(change: dict[str, Any]) -> None:
    parsed = parse_tree_page(page({**PLAIN, **change}))
    assert parsed.entries == (TreeEntry("README.md", "file", 1200, OID if "oid" not in change else ""),)
    [what] = parsed.odd
    assert "README.md" in what


@pytest.mark.parametrize("xet_hash", ["*" * 64, "00", 7, "zz" * 32, {}])
def test_a_file_whose_hash_is_masked_is_there_without_one(xet_hash: object) -> None:
    """The Hub has answered with 64 asterisks. Such a file is read through `/resolve/`, and checked by its SHA-256."""
    parsed = parse_tree_page(page(PLAIN, {**XET_FILE, "xetHash": xet_hash}))
    assert len(parsed.entries) == 2
    assert parsed.entries[1] == TreeEntry("sub/w.bin", "file", 6_000_000, OID, sha256=bytes.fromhex(SHA256), mtime_s=1795244501)
    [what] = parsed.odd
    assert "sub/w.bin" in what


@pytest.mark.parametrize(
    "lfs", [{"size": 5}, {"oid": "*" * 64, "size": 5}, {"oid": SHA256[1:], "size": 5}, {"oid": 1, "size": 5}]
)
def test_the_oid_of_a_pointer_is_not_taken_for_that_of_the_content(lfs: dict[str, Any]) -> None:
    """Without a SHA-256 and a file id nothing tells what the content is; to check it by the pointer's id would refuse it."""
    for masked in ({}, {"xetHash": "*" * 64}):
        [entry] = parse_tree_page(page({**PLAIN, "lfs": lfs, **masked})).entries
        assert entry == TreeEntry("README.md", "file", 5)
    [in_xet] = parse_tree_page(page({**PLAIN, "lfs": lfs, "xetHash": XET})).entries
    assert (in_xet.oid, in_xet.file_id) == (OID, MerkleHash.from_hex(XET))
    [no_lfs] = parse_tree_page(page({**PLAIN, "xetHash": "*" * 64})).entries
    assert no_lfs == TreeEntry("README.md", "file", 1200)


@pytest.mark.parametrize(
    "value", [*({**PLAIN, "path": path} for path in (None, "", 5, "x" * 20_000)), None, 1, [], {}, "README.md"]
)
def test_an_entry_without_a_path_is_left_out(value: object) -> None:
    parsed = parse_tree_page(page(value, DIRECTORY))
    assert [entry.path for entry in parsed.entries] == ["sub"]
    assert len(parsed.odd) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b"[1]", b"[[]]", b"[{}]", b"[" * 100_000, b"<html>", page(PLAIN)[:-1], page(PLAIN) + b"]",
     b'[{"path":"a","path":"b"}]', b'[{"error":"no"}]', page(*[PLAIN] * (PAGE_ENTRIES_MAX + 1))],
)  # fmt: skip
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_tree_page(body)


def test_a_hundred_thousand_entries_take_little_memory() -> None:
    def body(number: int) -> bytes:
        entry = {
            **XET_FILE,
            "lastCommit": None,
            "path": f"train/part-{number:06}.bin",
            "oid": f"{number:040x}",
            "xetHash": f"{number:064x}",
        }
        return page(*[{**entry, "path": f"train/part-{number + i:06}.bin"} for i in range(1000)])

    tracemalloc.start()
    try:
        entries = [parse_tree_page(body(number * 1000)) for number in range(10)]
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert sum(len(parsed.entries) for parsed in entries) == 10_000
    assert held <= 4_450_000  # a tenth of what 100,000 entries take


@pytest.mark.parametrize(
    ("header", "url"),
    [
        (None, None),
        ("", None),
        ('<https://hub/api?cursor=a,b;c&x="1">; rel="next"', 'https://hub/api?cursor=a,b;c&x="1"'),
        ("</p?1>; rel=prev, </p?3> ; title=\"a, <b>; rel=last\"; REL = Next", "/p?3"),
        ('</p?1>; rel="first next"', "/p?1"),
        ('</p?1>; rel="nextish", </p?2>', None),
    ],
)  # fmt: skip
def test_the_next_page(header: str | None, url: str | None) -> None:
    assert parse_next_link(header) == url


@pytest.mark.parametrize(
    "header", ["next", "</p; rel=next", '</p>; rel="next', "<" * 1000, "</p> x" * 20_000, '</a>;rel=prev, "']
)
def test_a_link_header_that_cannot_be_read_does_not_end_a_listing(header: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_next_link(header)


INFO: dict[str, Any] = {
    "id": "acme/demo",
    "sha": COMMIT,
    "lastModified": "2026-11-21T07:01:41.000Z",
    "private": False,
    "gated": False,
    "disabled": False,
    "siblings": [{"rfilename": "a"}],
}
ASKED = RepoId("dataset", "demo")


def info(**change: object) -> bytes:
    return json.dumps({key: value for key, value in {**INFO, **change}.items() if value is not ...}).encode()


def test_the_canonical_name_and_commit_of_a_repo() -> None:
    value = parse_repo_info(info(), ASKED)
    assert value.repo == RepoId("dataset", "acme/demo")
    assert (value.commit, value.modified_s) == (COMMIT, 1795244501)
    assert (value.private, value.gated, value.disabled) == (False, False, False)
    open_ = parse_repo_info(info(gated="auto", private=True, disabled=True), ASKED)
    assert (open_.private, open_.gated, open_.disabled) == (True, True, True)
    assert parse_repo_info(info(gated="manual"), ASKED).gated
    assert not parse_repo_info(info(gated=..., disabled=...), ASKED).gated


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lastModified": ...}, {"modified_s": None}),
        ({"lastModified": None}, {"modified_s": None}),
        ({"lastModified": "today"}, {"modified_s": None}),
        ({"lastModified": 5}, {"modified_s": None}),
        ({"private": ...}, {"private": True}),
        ({"private": None}, {"private": True}),
        ({"private": 0}, {"private": True}),
        ({"gated": True}, {"gated": True}),
        ({"gated": None}, {"gated": False}),
        ({"gated": "yes"}, {"gated": True}),
        ({"gated": []}, {"gated": False}),
        ({"disabled": "false"}, {"disabled": False}),
        ({"id": ...}, {"repo": ASKED}),
        ({"id": None}, {"repo": ASKED}),
    ],
)
def test_what_a_self_hosted_hub_leaves_out_costs_what_it_would_tell(change: dict[str, Any], told: dict[str, Any]) -> None:
    """A repo of which nothing is said counts as one that may be hidden from others."""
    assert parse_repo_info(info(**change), ASKED) == replace(parse_repo_info(info(), ASKED), **told)


@pytest.mark.parametrize(
    "change",
    [{"id": "../../etc"}, {"id": "a/b/c"}, {"id": 5}, {"id": ""}, {"sha": "main"}, {"sha": ...}, {"sha": None},
     {"sha": COMMIT.upper()}],
)  # fmt: skip
def test_repo_info_without_a_commit_or_with_a_false_name_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        parse_repo_info(info(**change), ASKED)


TOKEN = {"casUrl": "https://cas.example/", "accessToken": "xet_canary", "exp": 1795248102}
TOKEN_HEADERS = {
    "x-xet-cas-url": "https://cas.example",
    "x-xet-access-token": "xet_canary",
    "x-xet-token-expiration": "1795248102",
}


def test_a_token_comes_in_the_body_or_in_headers() -> None:
    value = parse_xet_token(json.dumps(TOKEN).encode(), {})
    assert value == parse_xet_token(b"", TOKEN_HEADERS)
    assert (value.cas_url, value.access_token.reveal(), value.expires_s) == ("https://cas.example", "xet_canary", 1795248102)
    assert "canary" not in repr(value)


@pytest.mark.parametrize(
    ("headers", "issued_s"),
    [
        ({}, None),
        ({"date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 784111777),
        ({"date": "Sun, 06 Nov 1994 08:49:37 GMT", "age": "60"}, 784111837),
        ({"date": "Sun, 06 Nov 1994 08:49:37 GMT", "age": "-1"}, 784111777),
        ({"date": "Sun, 06 Nov 1994 08:49:37 GMT", "age": "9" * 99}, 784111777),
        ({"date": "Sunday, 06-Nov-94 08:49:37 GMT"}, None),
        ({"date": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
        ({"date": "784111777"}, None),
        ({"date": "x" * 100_000}, None),
    ],
)
def test_a_token_tells_the_servers_time_if_the_answer_does(headers: dict[str, str], issued_s: int | None) -> None:
    assert parse_xet_token(json.dumps(TOKEN).encode(), headers).issued_s == issued_s


@pytest.mark.parametrize(
    "change",
    [{"casUrl": None}, {"casUrl": "file:///x"}, {"casUrl": "https://u:canary@cas.example"}, {"casUrl": "https://cas.example/?a"},
     {"accessToken": None}, {"accessToken": ""}, {"accessToken": "canary\r\nX: y"}, {"accessToken": ["canary"]},
     {"exp": None}, {"exp": "1795248102"}, {"exp": -1}, {"exp": True}, {"exp": 1.5}],
)  # fmt: skip
def test_a_malformed_token_is_refused_without_showing_it(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_xet_token(json.dumps({**TOKEN, **change}).encode(), {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["x-xet-cas-url", "x-xet-token-expiration"])
def test_token_headers_come_all_or_none(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_xet_token(b"", {key: value for key, value in TOKEN_HEADERS.items() if key != name})
    with pytest.raises(ProtocolViolation):
        parse_xet_token(b"", {})


def test_the_headers_of_a_xet_file() -> None:
    value = parse_resolve_headers(
        {
            "x-repo-commit": COMMIT,
            "x-linked-size": "3000000",
            "x-linked-etag": f'"{SHA256}"',
            "etag": '"other"',
            "content-length": "77",
            "x-xet-hash": XET,
            "link": f'<https://hub/api/models/acme/demo/xet-read-token/{COMMIT}>; rel="xet-auth", <https://cas/x>; rel="other"',
            "location": "https://cdn.example/x?Signature=canary",
        }
    )
    assert (value.commit, value.size, value.etag, value.sha256) == (COMMIT, 3_000_000, SHA256, bytes.fromhex(SHA256))
    assert value.file_id == MerkleHash.from_hex(XET)
    assert value.token_url == f"https://hub/api/models/acme/demo/xet-read-token/{COMMIT}"
    assert value.location is not None
    assert value.location.reveal() == "https://cdn.example/x?Signature=canary"
    assert "canary" not in repr(value)


def test_the_headers_of_a_plain_file() -> None:
    value = parse_resolve_headers({"x-repo-commit": COMMIT, "etag": f'W/"{OID}"', "content-length": "1200"})
    assert (value.size, value.etag, value.file_id, value.sha256, value.location) == (1200, OID, None, None, None)


def test_a_length_that_is_not_of_the_file_is_not_taken() -> None:
    assert parse_resolve_headers({"content-length": "77", "location": "/x"}).size is None
    assert parse_resolve_headers({"content-length": "77", "content-encoding": "gzip"}).size is None


def test_the_older_header_for_the_token_url() -> None:
    assert parse_resolve_headers({"x-xet-hash": XET, "x-xet-refresh-route": "/api/t"}).token_url == "/api/t"
    assert parse_resolve_headers({"x-xet-refresh-route": "/api/t"}).token_url is None


@pytest.mark.parametrize(
    "headers",
    [{"x-repo-commit": "main"}, {"x-linked-size": "-1"}, {"x-linked-size": "1e3"}, {"x-linked-size": "9" * 30},
     {"x-xet-hash": "00"}, {"x-linked-size": ""}, {"link": "garbage"}],
)  # fmt: skip
def test_malformed_resolve_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolation):
        parse_resolve_headers(headers)
