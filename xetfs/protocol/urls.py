"""URLs that a server hands out, taken apart by one set of rules before anything connects to them.

Two readers of one URL may see different hosts in it (a backslash, a tab, a user name before an `@`). Such URLs are refused here,
so that the host which a policy looks at is the host that is connected to. Which hosts are allowed is decided by cas/ and hub/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from xetfs.errors import ProtocolViolation

URL_CHARACTERS_MAX: Final = 64 * 1024
"""Longest URL taken. A signed URL names its ranges: 500 of them make 8 KiB."""

_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|[0-9a-f:.]+", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class UrlParts:
    """Where a URL leads. host is in lower case and without brackets; shown is the URL without its query, fit for a log."""

    scheme: str
    host: str
    port: int
    shown: str


def split_url(url: object, what: str) -> UrlParts:
    """Check an absolute http or https URL: a host, no user name, no fragment, printable ASCII only. Raises ProtocolViolation.

    Messages show no part of the query, and nothing at all of what cannot be taken apart.
    """
    if type(url) is not str or len(url) > URL_CHARACTERS_MAX or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise ProtocolViolation(f"{what}: not a URL")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise ProtocolViolation(f"{what}: not a URL") from error
    if parts.scheme not in _DEFAULT_PORTS:
        found = f", got {parts.scheme!r:.20}" if parts.scheme else ""
        raise ProtocolViolation(f"{what}: expected an http or https URL{found}")
    if not host or not _HOST.fullmatch(host) or port == 0:
        raise ProtocolViolation(f"{what}: a URL without a proper host")
    if "@" in parts.netloc or "#" in url:
        raise ProtocolViolation(f"{what}: a URL with a user name or a fragment, on {host:.80}")
    return UrlParts(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], f"{parts.scheme}://{parts.netloc}{parts.path}")
