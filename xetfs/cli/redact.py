"""Keeping secrets out of what is printed and logged.

Rooms keep tokens and signed URLs out of their messages. This is for what slips through, tracebacks, the user's own typing and the
words of a server included: whatever looks like a token, an Authorization header, a password or the query of a URL is cut out of
every line before it is written. A name that only looks like a token, such as `hf_models`, is cut as well: that costs a word.
"""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = r"[A-Za-z0-9_.~+/=-]"
"""What tokens, Base64 and percent-free URLs are made of (RFC 6750, "b68token")."""

_SECRETS: Final = (
    # User and password of any URL, up to the last @ of its authority: a password may hold one that nobody has encoded.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/'\"<>]*@"), r"\1…@"),
    (re.compile(r"(?i)(https?://[^\s?'\"<>]*)\?[^\s'\"<>]*"), r"\1?…"),
    # Of the Hub: user, OAuth and job tokens, and those of organizations of old.
    (re.compile(r"\b(hf|api_org)_[A-Za-z0-9_.-]{3,}[A-Za-z0-9_-]"), r"\1_…"),
    # JSON Web Tokens, such as the CAS's: Base64 of what begins with {".
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,4}"), "eyJ…"),
    # Artifactory, in front of many Hubs: reference tokens (Base64 of "reftkn:") and API keys.
    (re.compile(r"\b(cmVmdGtu|AKCp)[A-Za-z0-9+/=]{16,}"), r"\1…"),
    # Credentials after their scheme, which is kept. Elsewhere only words that look like some: "basic settings" are none.
    (re.compile(r"(?i)\b(authorization['\"]?\s*[:=]\s*b?['\"]?(?:[a-z]+\s+)?)[^\s'\",]+"), r"\1…"),
    (re.compile(rf"\b((?i:bearer|basic|digest|negotiate))\s+(?={_WORD}*[0-9A-Z+/=]){_WORD}{{8,}}"), r"\1 …"),
    (
        re.compile(
            r"(?i)\b((?:x-amz-|x-xet-|x-goog-)?"
            r"(?:signature|credential|security-token|access-?_?token|policy|key-pair-id|password|secret)['\"]?\s?[=:]\s?['\"]?)"
            r"[^\s&'\",;]+"
        ),
        r"\1…",
    ),
)


def redact(text: str) -> str:
    """`text` without tokens, credentials and queries of URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
