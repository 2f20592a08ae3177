"""Signed URLs and tokens for the CAS: what they allow is written in them, and an HMAC of this hub's key vouches for it.

Nothing is kept per URL or token, so millions may be given out and all survive a restart of the hub. A URL of the transfer host
carries the ranges it allows, as the real ones do, and the time when it ends.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from xetfs.testhub.messages import Problem, Request, parse_ranges
from xetfs.testhub.options import HubOptions

RANGES_PER_URL_MAX: Final = 500
"""As the real CAS: a URL of 500 ranges takes some 8 KiB."""
Scope = Literal["read", "write"]


def expired_url(status: int) -> Problem:
    """What a transfer host says of a URL past its time: S3 and CloudFront answer 403, Cloud Storage 400."""
    return Problem(status, "ExpiredToken: Invalid argument." if status == 400 else "AccessDenied: the signature has expired")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token for the CAS allows, and where."""

    repo: int
    scope: Scope
    expires_s: int


class Signer:
    """Signs and checks with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def sign_url(self, base: str, path: str, expires_s: int, *, ranges: Sequence[tuple[int, int]] = (), query: str = "") -> str:
        """A URL for `path` that works until expires_s (unix time), for exactly these byte ranges (inclusive) if any are given.

        query: further arguments, already quoted, which the signature covers too.
        """
        parts = [query] if query else []
        if ranges:
            parts.append("X-Xet-Signed-Range=" + quote("bytes=" + ",".join(f"{first}-{last}" for first, last in ranges), safe=""))
        parts.append(f"Expires={expires_s}")
        signed = f"{path}?{'&'.join(parts)}"
        return f"{base}{signed}&Signature={self._sign(signed)}&Key-Pair-Id=testhub"

    def check_url(self, request: Request, options: HubOptions) -> None:
        """Refuse a request whose URL this hub did not sign, whose time is over, or whose Range is not among those signed.

        Raises Problem: 400 with an Authorization header (object stores take no two credentials), else 403, or what `options` say.
        """
        if "authorization" in request.headers:
            raise Problem(400, "InvalidArgument: only one authentication mechanism is allowed")
        signed, found, rest = request.target.partition("&Signature=")
        if not found or not hmac.compare_digest(self._sign(signed), rest.partition("&")[0]):
            raise Problem(403, "SignatureDoesNotMatch: this URL was not signed by this hub")
        if int(request.argument("Expires", "0")) < time.time():
            raise expired_url(options.expired_status)
        allowed = request.argument("X-Xet-Signed-Range")
        if allowed:
            asked = parse_ranges(request.headers.get("range", ""))
            if not asked or not set(asked) <= set(parse_ranges(allowed) or ()):
                raise Problem(403, "AccessDenied: the range is not among those signed")
            if len(asked) > 1 and options.several_ranges == "refused":
                raise Problem(403, "Invalid Range Specified")
            if len(asked) > 1 and options.several_ranges == "signed" and request.headers["range"] != allowed:
                raise Problem(403, "AccessDenied: the ranges are not those signed")

    def make_token(self, grant: Grant) -> str:
        text = json.dumps([grant.repo, grant.scope, grant.expires_s])
        return f"xet_{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}.{self._sign(text)}"

    def check_token(self, request: Request, scope: Scope) -> Grant:
        """The grant that a request to the CAS bears. Raises Problem: 401 when there is none that holds, 403 when it may not
        write."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        payload, _, signature = token.removeprefix("xet_").partition(".")
        try:
            text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
        except ValueError:
            text = ""
        if scheme.lower() != "bearer" or not hmac.compare_digest(self._sign(text), signature):
            raise Problem(401, "Unauthorized: a valid access token is required")
        grant = Grant(*json.loads(text))
        if grant.expires_s <= time.time():
            raise Problem(401, "Unauthorized: the access token has expired")
        if scope == "write" and grant.scope != "write":
            raise Problem(403, "Forbidden: the access token does not allow writing")
        return grant
