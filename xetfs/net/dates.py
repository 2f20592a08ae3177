"""The time by a server's own clock: ours may be wrong by hours."""

from __future__ import annotations

import time
from collections.abc import Mapping

from xetfs.protocol.dates import http_date_s


def server_time_s(headers: Mapping[str, str]) -> float:
    """Unix time when an answer was given, by its server's clock (`Date`, `Age`); by ours if it does not say."""
    made_s = http_date_s(headers.get("date", ""))
    if made_s is None:
        return time.time()
    age = headers.get("age", "0")
    return made_s + (int(age) if age.isdecimal() and len(age) < 10 else 0)
