import gc
import json
import tracemalloc
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


def test_a_page_of_a_listing() -> None:
    directory, plain, xet = parse_tree_page(page(DIRECTORY, PLAIN, XET_FILE))
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
    assert parse_tree_page(page({"type": "file", "path": "a", "size": 0, "xetHash": None, "lfs": None, "lastCommit": None})) == (
        TreeEntry("a", "file", 0),
    )
    assert parse_tree_page(page({**PLAIN, "lfs": {"oid": SHA256}}))[0].size == 1200
    assert parse_tree_page(b"[]") == ()


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
    assert parse_tree_page(page({**PLAIN, "lastCommit": {"date": date}}))[0].mtime_s == mtime_s


@pytest.mark.parametrize("path", ["../../etc/passwd", "/abs", "a\0b", "a\nb", "\ud800", "ü/" + "n" * 300, ".", "a//b"])
def test_whether_a_name_can_be_served_is_not_decided_here(path: str) -> None:
    assert parse_tree_page(page({**PLAIN, "path": path}))[0].path == path


@pytest.mark.parametrize(
    "change",
    [
        {"type": "symlink"},
        {"type": None},
        {"type": ["file"]},
        {"size": -1},
        {"size": True},
        {"size": 1.0},
        {"size": "1200"},
        {"size": None},
        {"size": 2**53 + 1},
        {"oid": "xyz"},
        {"oid": OID.upper().replace("1", "A")},
        {"oid": None},
        {"lfs": "x"},
        {"lfs": {"size": 5}},
        {"lfs": {"oid": SHA256[1:], "size": 5}},
        {"lfs": {"oid": SHA256, "size": -5}},
        {"lfs": {"oid": SHA256, "size": None}},
        {"xetHash": "00"},
        {"xetHash": 7},
        {"xetHash": "zz" * 32},
        {"lastCommit": "yesterday"},
        {"lastCommit": {}},
        {"lastCommit": {"date": "yesterday"}},
        {"lastCommit": {"date": 5}},
    ],
)
def test_a_malformed_entry_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation, match=r"README\.md"):
        parse_tree_page(page(DIRECTORY, {**PLAIN, **change}))


@pytest.mark.parametrize("path", [None, "", 5, "x" * 20_000])
def test_an_entry_needs_a_path(path: object) -> None:
    with pytest.raises(ProtocolViolation):
        parse_tree_page(page({**PLAIN, "path": path}))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b"[1]", b"[[]]", b"[" * 100_000, b"<html>", page(PLAIN)[:-1], page(PLAIN) + b"]",
     b'[{"path":"a","path":"b"}]', page(*[None] * (PAGE_ENTRIES_MAX + 1))],
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
    assert sum(map(len, entries)) == 10_000
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
    "change",
    [{"id": "../../etc"}, {"id": "a/b/c"}, {"id": ...}, {"id": 5}, {"sha": "main"}, {"sha": ...}, {"sha": COMMIT.upper()},
     {"lastModified": ...}, {"lastModified": "today"}, {"lastModified": 5}, {"private": ...}, {"private": 0}, {"gated": True},
     {"gated": 0}, {"gated": "no"}, {"gated": []}, {"disabled": "false"}],
)  # fmt: skip
def test_malformed_repo_info_is_refused(change: dict[str, Any]) -> None:
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
