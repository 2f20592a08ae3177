"""What an answer of the Hub that is no success means.

The `X-Error-Code` header counts before the status: a hidden repo answers an anonymous request with 401, a gated one with 401 or
403. A private repo and a missing one look the same on purpose, so the hint names both. Where neither says what to do, the
server's own words may: it knows of a country that is blocked, a quota, or a rule of the organization.
Source: huggingface_hub, utils/_http.py (hf_raise_for_status: X-Error-Code, X-Error-Message, `error` and `errors` of the body).
"""

from __future__ import annotations

import json
import re
from typing import Final

from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    RepoNotFound,
    RevisionNotFound,
    XetfsError,
)
from xetfs.net.client import Answer
from xetfs.net.download import Download
from xetfs.net.failures import error_of_status
from xetfs.protocol.names import RepoId

REASON_CHARACTERS_MAX: Final = 200
"""Longest part of a server's message that is shown: one line of a terminal or two."""
BODY_BYTES_MAX: Final = 64 * 1024
"""Longest body of a refusal that is searched for a message."""

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"
_SECRET = re.compile(r"\b(?:hf_|xet_|eyJ)[\w.\-]{4,}|(?i:\b(?:bearer|basic)\s+\S+)")
_QUERY = re.compile(r"(https?://[^\s?'\"<>]*)\?[^\s'\"<>]*", re.IGNORECASE)


def error_of_refusal(answer: Answer | Download, repo: RepoId, what: str, *, endpoint: str, anonymous: bool) -> XetfsError:
    """The error for an answer outside 2xx. anonymous: no token went along with the request."""
    match answer.headers.get("x-error-code", ""):
        case "RepoNotFound":
            return _repo_not_found(repo, anonymous=anonymous)
        case "RevisionNotFound":
            return RevisionNotFound(
                f"{what}: no such revision", hint=f"see {endpoint}{repo.content_path}/tree/main for branches and tags"
            )
        case "EntryNotFound" | "RemoteEntryNotFound":
            return EntryNotFound(f"{what}: not found")
        case "GatedRepo":
            return _gated(repo, endpoint, anonymous=anonymous)
    reason = reason_of(answer)
    words = f": {reason}" if reason else ""
    match answer.status:
        case 401 if anonymous:
            # Without a code this is how the Hub speaks of a repo that an anonymous visitor may not know of.
            return _repo_not_found(repo, anonymous=True)
        case 401:
            return AuthRequired(f"{what}: the Hub refused the token{words}", hint=f"it may be wrong or expired; {_LOGIN}")
        case 403:
            hint = _LOGIN if anonymous else "use a token with read access to this repo"
            return AccessDenied(f"{what}: access denied (403){words}", hint="" if "disabled" in reason.lower() else hint)
        case 451:
            return AccessDenied(f"{what}: not available for legal reasons (451){words}")
    error = error_of_status(answer.status, answer.headers, what)
    error.message += words
    return error


def reason_of(answer: Answer | Download) -> str:
    """The server's own words on a refusal, fit for one line of a log; "" if there are none.

    Control characters, tokens and queries of URLs are taken out, and what is left is bounded.
    """
    text = answer.headers.get("x-error-message", "")
    if not text and isinstance(answer, Answer) and len(answer.body) <= BODY_BYTES_MAX:
        text = _message_in(answer.body)
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:BODY_BYTES_MAX]).split())
    line = _QUERY.sub(r"\1?…", _SECRET.sub("…", line))
    return line if len(line) <= REASON_CHARACTERS_MAX else f"{line[: REASON_CHARACTERS_MAX - 1]}…"


def _message_in(body: bytes) -> str:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    candidates = [found.get("error"), found.get("message"), found.get("errors")]
    texts = [_text_of(candidate) for candidate in candidates]
    return next((text for text in texts if text), "")


def _text_of(value: object) -> str:
    """A message, one within an object, or the first of a list."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("message")
    return value if isinstance(value, str) else ""


def _repo_not_found(repo: RepoId, *, anonymous: bool) -> XetfsError:
    hint = f"check the name; if it is private, {_LOGIN}" if anonymous else "check the name, and whether this token may see it"
    return RepoNotFound(f"{repo} was not found, or is not visible to you", hint=hint)


def _gated(repo: RepoId, endpoint: str, *, anonymous: bool) -> XetfsError:
    page = f"{endpoint}{repo.content_path}"
    if anonymous:
        return AuthRequired(f"{repo} is gated", hint=f"accept its terms on {page}, then {_LOGIN}")
    return AccessDenied(f"{repo} is gated, and this token has no access yet", hint=f"accept its terms on {page}")
