"""What a server says in a refusal, made fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.net.words import WORDS_CHARACTERS_MAX, server_words

KEY = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
URL = f"https://data.example/x?Policy=eyJhIjoxfQ__&Signature={KEY}%2B&Key-Pair-Id=K2JCJMDEHXQW5F"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ""),
        ("Invalid Range Specified", "Invalid Range Specified"),
        ("<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>", "AccessDenied: Access denied"),
        ("<Error><Code>AuthorizationQueryParametersError</Code></Error>", "AuthorizationQueryParametersError"),
        ('{"error": "no", "statusCode": 403}', "no"),
        (
            "<html><head><title>x</title></head><style>p {}</style><body><h1>Sorry,</h1>log in\n\tfirst</body>",
            "Sorry, log in first",
        ),
        ("bad key K2JCJMDEHXQW5F", "bad key …"),
        (f"at http://data.example/x?Signature={KEY}", "at …"),
        (f"sent {KEY}+ or {KEY}%2B", "sent … or …"),
        ("token hf_abcdefghijklmnopqrstuvwxyz0123", "token …"),
        ("\x1b[31mred\x00", "[31mred"),
        ("<unfinished " + "x" * 10, ""),
    ],
)
def test_words(body: str, words: str) -> None:
    assert server_words(body.encode(), URL) == words


@given(st.binary(max_size=300), st.integers(0, 300), st.booleans())
def test_any_body_is_one_short_line_without_the_secrets(body: bytes, at: int, cut: bool) -> None:
    words = server_words((body[:at] + KEY.encode() + b"%2B" + body[at:]) * (60 if cut else 1), URL)
    assert KEY not in words
    assert len(words) <= WORDS_CHARACTERS_MAX
    assert "\n" not in words
