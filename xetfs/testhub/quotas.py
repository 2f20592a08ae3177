"""How many requests the Hub still answers, by class, in fixed windows; told in the headers of every answer.

Source: hub documentation, "Rate limits"; huggingface_hub, utils/_http.py, which reads `RateLimit: "api";r=4999;t=300`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import trio

from xetfs.testhub.messages import Request, Response, json_response
from xetfs.testhub.options import HubOptions


@dataclass(slots=True)
class _Window:
    until_s: float
    count: int = 0


class Quotas:
    """One caller for all: who asks makes no difference. Times are trio's."""

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self._windows: dict[str, _Window] = {}

    def refusal(self, request: Request) -> Response | None:
        """Count a request; the answer in place of its own if there were too many."""
        name = _class_of(request)
        limit = self._options.quotas.get(name)
        if limit is None:
            return None
        now = trio.current_time()
        window = self._windows.get(name)
        if window is None or window.until_s <= now:
            window = self._windows[name] = _Window(now + self._options.quota_window_s)
        window.count += 1
        if window.count <= limit:
            return None
        return self.tell(request, json_response({"error": "Too many requests"}, 429))

    def tell(self, request: Request, response: Response) -> Response:
        """The answer, with what is left."""
        name = _class_of(request)
        window = self._windows.get(name)
        if window is not None:
            limit = self._options.quotas.get(name, 0)
            left_s = math.ceil(max(0.0, window.until_s - trio.current_time()))
            response.set_header("RateLimit", f'"{name}";r={max(0, limit - window.count)};t={left_s}')
            response.set_header("RateLimit-Policy", f'"fixed window";"{name}";q={limit};w={self._options.quota_window_s:g}')
        return response


def _class_of(request: Request) -> str:
    """`resolvers` for content, `api` for all else under /api."""
    if "resolve" in request.segments or request.segments[1:2] == ("resolve-cache",):
        return "resolvers"
    return "api" if request.segments[:1] == ("api",) else "pages"
