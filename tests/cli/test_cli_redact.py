"""No line that is printed or logged holds a token, whatever its form; and what is no secret stays readable."""

from __future__ import annotations

import ast
import base64
import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xetfs
from xetfs.cli.redact import redact

LETTERS = string.ascii_letters + string.digits
PACKAGE = Path(xetfs.__file__).parent


def base64url(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


words = st.text(LETTERS, min_size=8, max_size=60)
jwts = st.builds(
    lambda claims, signature: f"{base64url({'alg': 'RS256'})}.{base64url(claims)}.{signature}",
    st.dictionaries(words, words, max_size=3),
    st.text(LETTERS + "-_", min_size=8, max_size=90),
)
tokens = st.one_of(
    st.text(LETTERS, min_size=34, max_size=34).map("hf_{}".format),
    words.map("hf_{}".format),
    jwts.map("hf_oauth_{}".format),
    jwts.map("hf_jwt_{}".format),
    words.map("hf_jwt_{}".format),
    words.map("api_org_{}".format),
    jwts,
)
sentences = st.sampled_from(
    [
        "{}",
        "token {} used",
        "token={}",
        "the token '{}' is not valid",
        '{{"accessToken": "{}", "exp": 1}}',
        "Authorization: Bearer {}",
        "{{'authorization': b'Bearer {}'}}",
        "Bearer {}, next",
        "Secret({!r})",
        "x-xet-access-token: {}",
        "(b'X-Xet-Access-Token', b'{}')",
        "https://hub.example/x?token={}&y=1",
        "https://user:{}@hub.example/x",
        "cannot open ./{}.",
        "{}\r\nX: y",
    ]
)


@given(sentence=sentences, token=tokens)
def test_no_token_is_left_whole_or_in_part(sentence: str, token: str) -> None:
    shown = redact(sentence.format(token))
    parts = [part for piece in token.split(".") for part in piece.split("_") if len(part) >= 8]
    assert parts
    assert [part for part in parts if part in shown] == []


@given(
    scheme=st.sampled_from(["http", "https", "socks5", "socks5h", "HTTP"]),
    password=st.text(string.ascii_letters + string.digits + "@:!$&()*+,;=%-._~", min_size=8, max_size=30).map("pw{}pw".format),
)
def test_no_password_of_a_proxy_is_left(scheme: str, password: str) -> None:
    shown = redact(f"proxy {scheme}://user:{password}@proxy.example:3128 refused")
    assert password not in shown
    assert shown == f"proxy {scheme}://…@proxy.example:3128 refused"


@given(name=st.sampled_from(["Bearer", "basic", "Digest", "NEGOTIATE"]), secret=st.text(LETTERS + "-._~+/=", min_size=12))
def test_no_authorization_header_is_left(name: str, secret: str) -> None:
    assert secret not in redact(f"Authorization: {name} {secret}")
    assert secret not in redact(f"proxy-authorization: {name} {secret}")


@pytest.mark.parametrize("token", ["cmVmdGtuOjAxOjE3ODk0NTY6YWJjZGVmZ2hpamts", "AKCp8abcdefghijklmnopqrstuvwxyz0123456789"])
def test_tokens_of_artifactory(token: str) -> None:
    assert token[12:] not in redact(f"403: token {token} has no rights")


@pytest.mark.parametrize(
    "text",
    [
        "log in with `hf auth login` or set HF_TOKEN",
        "basic authentication is asked for",
        "the bearer of bad news",
        "expected one word such as hf_…",
        "mounted acme/demo (0123456789ab) at /mnt/demo",
        "path='a?b' size=12 key=hf_x",
        "reconstruction of 0123456789ab: not found (404)",
        "the policy of the proxy",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def _texts(module: Path) -> list[str]:
    """Every text of a module that may be shown: docstrings and patterns aside."""
    tree = ast.parse(module.read_text())
    hidden = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden
    ]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_our_own_words_are_not_mangled(module: Path) -> None:
    """A hint that says how something is written must say it when it is printed."""
    if module.name in ("redact.py",) or "testhub" in module.parts:
        return
    assert [text for text in _texts(module) if " " in text and redact(text) != text] == []
