"""Translation of foreign errors: what httpx raises, and what a status means where the caller knows no better."""

from __future__ import annotations

import re
import time
from typing import Final

import httpx

from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    ProtocolViolation,
    ProxyRefused,
    RangeNotSatisfiable,
    RateLimited,
    TimedOut,
    Unavailable,
    XetfsError,
)
from xetfs.net.proxies import ProxyAuthRequired, ProxyDenied
from xetfs.protocol.dates import http_date_s

PROXY_PASSWORD_HINT: Final = "in the proxy variable, write user:password@ before the host; only Basic is supported"
RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Those that may go away by themselves. Other 5xx above 504 count like 500; 501 means that there is no such endpoint."""

_RATE_LIMIT_REMAINING = re.compile(r";\s*r=(\d{1,9})\b", re.ASCII)
_RATE_LIMIT_RESET = re.compile(r";\s*t=(\d{1,9})\b", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


def is_retried_status(status: int) -> bool:
    return status in RETRIED_STATUSES or status > 504


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds that an answer asks to wait: the reset of an exhausted `RateLimit`, else `Retry-After`, else None.

    A Retry-After that is a date is held against the answer's own Date, as this machine's clock may be wrong.
    Source: huggingface_hub, utils/_http.py (RateLimit: "api";r=0;t=17); RFC 9110 §10.2.3.
    """
    limits = headers.get("ratelimit", "")[:1000]
    remaining, reset = _RATE_LIMIT_REMAINING.search(limits), _RATE_LIMIT_RESET.search(limits)
    if remaining and reset and int(remaining[1]) == 0:
        return float(reset[1])
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    until_s, now_s = http_date_s(text), http_date_s(headers.get("date", "").strip())
    return None if until_s is None or now_s is None else float(max(0, until_s - now_s))


def error_of_status(status: int, headers: httpx.Headers, what: str) -> XetfsError:
    """The error that a status outside 2xx stands for, by HTTP's own meaning."""
    match status:
        case 401:
            return AuthRequired(f"{what}: credentials missing or refused (401)")
        case 403:
            return AccessDenied(f"{what}: access denied (403)")
        case 407:
            return ProxyRefused(f"{what}: the proxy on the way asks for a user name and password (407)", hint=PROXY_PASSWORD_HINT)
        case 404 | 410:
            return EntryNotFound(f"{what}: not found ({status})")
        case 416:
            return RangeNotSatisfiable(f"{what}: the range begins past the end (416)")
        case 429:
            wait = retry_after_s(headers)
            return RateLimited(f"{what}: too many requests (429)", hint=_wait_hint(wait), retry_after_s=wait)
        case _ if is_retried_status(status):
            return Unavailable(f"{what}: the server failed ({status})", retry_after_s=retry_after_s(headers))
        case _:
            return ProtocolViolation(f"{what}: unexpected answer ({status})", refused=status >= 400)


def _wait_hint(wait_s: float | None) -> str:
    """For how long and until when, in local time: who reads a log wants to know when to come back."""
    if wait_s is None:
        return ""
    return f"the server asks to wait {wait_s:.0f} s, until {time.strftime('%H:%M:%S', time.localtime(time.time() + wait_s))}"


def error_of_exception(error: Exception, what: str) -> XetfsError:
    """The error that an exception of httpx stands for. Its text is used only where it can hold neither token nor URL."""
    match error:
        case httpx.ConnectTimeout():
            return TimedOut(f"{what}: no connection in time: {error!s:.200}", hint="check network, proxy and endpoint")
        case httpx.ConnectError():
            hint = (
                "check the certificates (SSL_CERT_FILE)" if "CERTIFICATE" in str(error) else "check network, proxy and endpoint"
            )
            return Unavailable(f"{what}: cannot connect: {error!s:.200}", hint=hint)
        case ProxyAuthRequired():
            return ProxyRefused(f"{what}: {error!s:.200}", hint=PROXY_PASSWORD_HINT)
        case ProxyDenied():
            hint = "check the proxy's rules; what is to be asked without it goes into no_proxy"
            return ProxyRefused(f"{what}: {error!s:.200}", hint=hint)
        case httpx.ProxyError():
            return Unavailable(f"{what}: {error!s:.200}", hint="check the proxy")
        case httpx.TimeoutException():
            return TimedOut(f"{what}: the server fell silent")
        case httpx.RemoteProtocolError() if "disconnected" not in str(error) and "closed" not in str(error):
            return ProtocolViolation(f"{what}: the answer is not HTTP")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return Unavailable(f"{what}: the connection broke off")
        case _:
            return ProtocolViolation(f"{what}: cannot be asked ({type(error).__name__})")
