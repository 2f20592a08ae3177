"""Keeping secrets out of what is printed and logged.

Rooms keep tokens and signed URLs out of their messages. This is for what slips through, tracebacks and the user's own typing
included: whatever looks like a token, an Authorization header or the query of a URL is cut out of every line before it is
written.
"""

from __future__ import annotations

import re
from typing import Final

_SECRETS: Final = (
    (re.compile(r"hf_[A-Za-z0-9]{4,}"), "hf_…"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",]+"), r"\1 …"),
    (re.compile(r"(?i)(https?://)[^\s/@'\"]+@"), r"\1…@"),
    (re.compile(r"(?i)(https?://[^\s?'\"<>]*)\?[^\s'\"<>]*"), r"\1?…"),
    (
        re.compile(
            r"(?i)\b((?:x-amz-|x-xet-)?(?:signature|credential|security-token|access-token|policy|key-pair-id)=)[^\s&'\"]+"
        ),
        r"\1…",
    ),
)


def redact(text: str) -> str:
    """`text` without tokens, credentials and queries of URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
