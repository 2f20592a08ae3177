"""The reason that a server gives in the body of a refusal, made safe for a log line and an error message.

The body comes from anywhere: it is bounded, reduced to printable text, and rid of everything that may be a credential. Object
stores repeat the signature, the key id and the string to sign in their refusals, so what the URL's query holds is cut out, and
any run of letters and digits that is as long as a key.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

WORDS_BYTES_MAX: Final = 4096
"""How much of a body is looked at. The refusals of object stores take some 300 bytes up to their message."""
WORDS_CHARACTERS_MAX: Final = 200
_SECRET_CHARACTERS_MIN: Final = 8

_ELEMENTS = re.compile(r"<(Code|Message|Details)>([^<]{1,500})</\1>")
_MEMBERS = re.compile(r"\"(?:error|message|detail)\"\s*:\s*\"([^\"]{1,500})\"")
_NO_TEXT = re.compile(r"(?is)<(style|script|head)\b.*?(?:</\1>|\Z)|<[^>]*(?:>|\Z)")
_URLS = re.compile(r"https?://\S+")
_KEYS = re.compile(r"(?=[A-Za-z+/=_~%.-]*[0-9])[A-Za-z0-9+/=_~%.-]{24,}")


def server_words(body: bytes, url: str) -> str:
    """The server's reason in its own words, at most WORDS_CHARACTERS_MAX characters on one line; "" if it gives none.

    body: its first WORDS_BYTES_MAX bytes or fewer: the XML of an object store, JSON, HTML or text. url: the one that was refused.
    """
    text = body[:WORDS_BYTES_MAX].decode("utf-8", "replace")
    found = [match[2] for match in _ELEMENTS.finditer(text)] or [match[1] for match in _MEMBERS.finditer(text)]
    text = ": ".join(found) or _NO_TEXT.sub(" ", text)
    query = url.partition("?")[2]
    values = [value for _, value in parse_qsl(query)] + [part.partition("=")[2] for part in query.split("&")]
    for value in values:  # as it was meant and as it was sent
        if len(value) >= _SECRET_CHARACTERS_MIN:
            text = text.replace(value, "…")
    text = _KEYS.sub("…", _URLS.sub("…", text))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= WORDS_CHARACTERS_MAX else text[: WORDS_CHARACTERS_MAX - 1] + "…"
