"""Real answers, as far as others have published them, are read for what they say: see recorded.json for where each is from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from xetfs.errors import RateLimited
from xetfs.net.failures import error_of_status, retry_after_s
from xetfs.protocol.expiry import signed_url_end
from xetfs.protocol.reconstruction import parse_reconstruction
from xetfs.protocol.tree import parse_resolve_headers, parse_tree_page, parse_xet_token

ANSWERS: dict[str, dict[str, Any]] = {
    answer["name"]: answer for answer in json.loads((Path(__file__).parent / "recorded.json").read_text())["answers"]
}
XET_HASH = "137929211bfdbc905b18cae98bbf3711bb26493407f9d929da515dd2e04c4994"
"""Of the file whose redirect was recorded: the header was listed there, and its value stands in the URLs."""


def body_of(name: str) -> bytes:
    return json.dumps(ANSWERS[name]["body"]).encode()


def test_every_answer_says_where_it_is_from() -> None:
    for answer in ANSWERS.values():
        assert answer["kind"] in ("recorded", "recorded, in part", "documented example")
        assert answer["from"].startswith("github.com/")
        assert len(answer["date"]) == len("2026-01-01")


def test_the_redirect_of_a_file_in_xet() -> None:
    info = parse_resolve_headers({**ANSWERS["resolve of a file in Xet, through a mirror"]["headers"], "x-xet-hash": XET_HASH})
    assert info.token_url is not None
    assert info.token_url.endswith("/xet-read-token/79e9040fedb0edce720cf0cc14754264c68bc156")
    assert info.location is not None
    assert signed_url_end(info.location.reveal()) == 1775742674  # 2026-04-09 13:51:14 UTC: signed at 12:51:14, for an hour


def test_the_redirect_to_the_content_network_ends_when_its_url_says() -> None:
    location = ANSWERS["resolve of a file in Xet, on the content network"]["headers"]["location"]
    assert signed_url_end(location) == 1781098782


def test_the_redirect_of_a_file_in_git_is_relative() -> None:
    info = parse_resolve_headers(ANSWERS["resolve of a file in git"]["headers"])
    assert info.location is not None
    assert info.location.reveal().startswith("/api/resolve-cache/")
    assert info.size is None
    assert info.file_id is None


def test_rate_limits_are_waited_for_only_when_used_up() -> None:
    within, past = (httpx.Headers(ANSWERS[f"an API answer {where} its limit"]["headers"]) for where in ("within", "past"))
    assert retry_after_s(within) is None
    error = error_of_status(429, past, "tree page")
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 55


def test_a_masked_hash_is_no_hash_but_the_file_is_listed() -> None:
    entry = {
        "type": "file",
        "oid": "0" * 40,
        "size": 5,
        "path": "model.bin",
        "lfs": {"oid": "1" * 64, "size": 5, "pointerSize": 130},
        "xetHash": ANSWERS["the hash of a file in a gated repo"]["hash"],
    }
    (listed,) = parse_tree_page(json.dumps([entry]).encode()).entries
    assert listed.file_id is None
    assert listed.size == 5


def test_a_token() -> None:
    token = parse_xet_token(body_of("a token for the CAS"), {})
    assert token.cas_url == "https://cas-server.xethub.hf.co"
    assert token.access_token.reveal() == "xet_xxxxxxxxxxx"
    assert token.expires_s == 1848535668


@pytest.mark.parametrize("version", [1, 2])
def test_a_reconstruction(version: Any) -> None:
    plan = parse_reconstruction(body_of(f"a reconstruction, version {version}"), version)
    (term,) = plan.terms
    assert (term.chunks.start, term.chunks.end, term.length) == (0, 4, 263873)


def test_the_url_of_a_reconstruction_ends_when_it_says() -> None:
    ((entry,),) = ANSWERS["a reconstruction, version 2"]["body"]["xorbs"].values()
    assert signed_url_end(entry["url"]) == 1735689600
