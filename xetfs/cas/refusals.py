"""Why a transfer host refuses a signed URL: is it past its end, or is there another reason that a new URL does not remove?

An expired URL costs a new reconstruction, and then the read goes on. Taking every 403 for that hides what the server says, and
asks for plan after plan where a key is wrong or an address not allowed. So a refusal is read before it is believed:

1. The body says that the URL expired (S3: 403 "Request has expired"; GCS: 400 `ExpiredToken`): it did.
2. The end that the URL names lies behind us, by the clock of the server (`Date`), or ours where it shows none: it did.
3. Any other 403 may still be expiry, of a key say: one fresh URL is worth it. If that is refused too, the server refuses URLs,
   which is remembered for REFUSAL_LIFETIME_S: until then a 403 of it is the answer.
4. Any other status says what is wrong with the request; a fresh URL would not change it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; the documentation of CloudFront, "Troubleshoot signed
URLs" (one status and nearly the same words for many reasons); for Cloud Storage
https://docs.extendtech.net/extendfiles/understanding-google-cloud-storage-signed-urls, which quotes its answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from xetfs.cas.facts import Fact, ServerFacts
from xetfs.errors import AccessDenied, ProtocolViolation, SignedUrlExpired, XetfsError
from xetfs.net.dates import server_time_s
from xetfs.net.download import Download
from xetfs.net.origins import Origin
from xetfs.net.words import WORDS_BYTES_MAX, server_words
from xetfs.protocol.reconstruction import SignedUrl

REFUSAL_LIFETIME_S: Final = 60.0
"""How long a server that refused a fresh URL is taken to refuse the next ones. Short, as keys and rules are mended by hand."""
EXPIRY_MARGIN_S: Final = 5.0
"""A URL is past its end this much sooner: clocks of servers differ, and `Date` counts whole seconds."""

_EXPIRED = re.compile(r"expired", re.IGNORECASE)


async def refusal_of(download: Download, url: SignedUrl, facts: ServerFacts) -> XetfsError:
    """The error that an answer of a transfer host outside 2xx stands for, with the first words of its body."""
    origin = Origin(url.scheme, url.host, url.port)
    body = b""
    with suppress(XetfsError):  # which would hide the refusal
        body = await download.read_start(WORDS_BYTES_MAX)
    words = server_words(body, url.reveal())
    said = f"{download.what}: refused ({download.status}{f': {words}' if words else ''})"
    if download.status in (400, 403) and (_EXPIRED.search(words) or _is_past_end(url, download.headers)):
        return SignedUrlExpired(said, server=str(origin))
    if download.status != 403:
        return ProtocolViolation(said, refused=download.status >= 400)
    if facts.holds(origin, Fact.REFUSES_URLS):
        return refused_for_good(said)
    return SignedUrlExpired(said, certain=False, server=str(origin))


def refused_for_good(said: str) -> AccessDenied:
    """A fresh URL was refused, and did not expire."""
    return AccessDenied(said, hint="the storage behind this repo refuses fresh URLs: a proxy, an address or the server's keys")


def _is_past_end(url: SignedUrl, headers: Mapping[str, str]) -> bool:
    end_s = url.ends_s
    return end_s is not None and server_time_s(headers) >= end_s - EXPIRY_MARGIN_S
