"""Dates in HTTP headers."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

_IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", re.ASCII)


def http_date_s(text: str) -> int | None:
    """Unix time of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, or None for anything else.

    Source: RFC 9110 §5.6.7, of whose three forms the two obsolete ones are not read.
    """
    if not _IMF_FIXDATE.fullmatch(text):
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):  # such as the 99th of a month
        return None
