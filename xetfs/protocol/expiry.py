"""When a signed URL ends, as its query says in the words of those who sign URLs. Pure.

| signer | says it by |
|---|---|
| CloudFront, canned policy; Cloud CDN; S3 and GCS version 2 | `Expires`, unix time |
| CloudFront, custom policy | `Policy`, JSON in a base64 of its own, with `DateLessThan` as unix time |
| S3, GCS, OSS version 4 | `X-Amz-Date` (`X-Goog-`, `X-Oss-`), UTC, and `X-Amz-Expires`, seconds after it |
| Azure (SAS) | `se`, ISO 8601 |

Nothing here is believed: the signature is the server's to check, and a URL may be revoked before it ends.
Source: the documentation of CloudFront, "Use signed URLs", of S3, "Authenticating requests: query parameters", of Cloud Storage,
"Signed URLs", of Azure Storage, "Create a service SAS".
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_VERSION_4 = ("x-amz-", "x-goog-", "x-oss-")
_POLICY_CHARACTERS = str.maketrans("-_~", "+=/")


def signed_url_end(url: str) -> float | None:
    """Unix time at which a signed URL ends, the earliest if it names several; None if it names none that can be read."""
    query = {name.lower(): value for name, value in parse_qsl(url.partition("?")[2])}
    ends = [_unix(query.get("expires")), _of_policy(query.get("policy")), _of_iso(query.get("se"))]
    ends += [_of_version_4(query, prefix) for prefix in _VERSION_4]
    return min((end for end in ends if end is not None), default=None)


def _unix(text: object) -> float | None:
    return float(text) if isinstance(text, str) and _SECONDS.fullmatch(text) else None


def _of_version_4(query: Mapping[str, str], prefix: str) -> float | None:
    begin, lifetime_s = query.get(f"{prefix}date", ""), _unix(query.get(f"{prefix}expires"))
    if lifetime_s is None or not _TIME.fullmatch(begin):
        return None
    try:
        # Not strptime, which imports a module when it is first called: a daemon may have no file descriptor left for that.
        return datetime.fromisoformat(begin).timestamp() + lifetime_s
    except ValueError:
        return None


def _of_policy(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        policy = json.loads(base64.b64decode(text.translate(_POLICY_CHARACTERS), validate=True))
        ends = [statement["Condition"]["DateLessThan"]["AWS:EpochTime"] for statement in policy["Statement"]]
    except (ValueError, binascii.Error, KeyError, TypeError, RecursionError):
        return None
    return min((float(end) for end in ends if type(end) is int and 0 <= end < 10**12), default=None)


def _of_iso(text: str | None) -> float | None:
    try:
        end = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (end if end.tzinfo is not None else end.replace(tzinfo=UTC)).timestamp()
