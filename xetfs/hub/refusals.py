"""What an answer of the Hub that is no success means.

The `X-Error-Code` header counts before the status: a hidden repo answers an anonymous request with 401, a gated one with 401 or
403. A private repo and a missing one look the same on purpose, so the hint names both.
Source: huggingface_hub, utils/_http.py (hf_raise_for_status).
"""

from __future__ import annotations

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

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"


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
    match answer.status:
        case 401 if anonymous:
            # Without a code this is how the Hub speaks of a repo that an anonymous visitor may not know of.
            return _repo_not_found(repo, anonymous=True)
        case 401:
            return AuthRequired(f"{what}: the Hub refused the token", hint=f"it may be wrong or expired; {_LOGIN}")
        case 403 if "disabled" in answer.headers.get("x-error-message", "").lower():
            return AccessDenied(f"{what}: access to {repo} is disabled by the Hub")
        case 403:
            return AccessDenied(
                f"{what}: the token does not reach this far (403)", hint="use a token with read access to this repo"
            )
    return error_of_status(answer.status, answer.headers, what)


def _repo_not_found(repo: RepoId, *, anonymous: bool) -> XetfsError:
    hint = f"check the name; if it is private, {_LOGIN}" if anonymous else "check the name, and whether this token may see it"
    return RepoNotFound(f"no repo {repo} to be seen", hint=hint)


def _gated(repo: RepoId, endpoint: str, *, anonymous: bool) -> XetfsError:
    page = f"{endpoint}{repo.content_path}"
    if anonymous:
        return AuthRequired(f"{repo} is gated", hint=f"accept its terms on {page}, then {_LOGIN}")
    return AccessDenied(f"{repo} is gated, and this token has no access yet", hint=f"accept its terms on {page}")
