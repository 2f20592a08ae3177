from __future__ import annotations

import pytest
import trio
from loopback import Names

from xetfs.cas.client import CasClient
from xetfs.net import reachability, retry
from xetfs.reader import windows, xet_source


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts have tests of their own, on a clock that does not wait."""
    monkeypatch.setattr(retry, "PAUSE_FIRST_S", 0.02)
    monkeypatch.setattr(reachability, "SUSPECT_PAUSE_S", 0.02)
    monkeypatch.setattr(reachability, "PROBE_PAUSE_S", 0.05)
    monkeypatch.setattr(windows, "FAILURE_KEPT_S", 0.0)


@pytest.fixture(autouse=True)
def _nothing_planned_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked side by side, or before anybody waits for it, fails in any order, and then it is chance how many requests
    are made."""

    async def prepare(client: CasClient) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(xet_source, "RESERVE_BYTES", 0)
    monkeypatch.setattr(CasClient, "prepare", prepare)


@pytest.fixture
async def names() -> Names:
    """All names that are known: one, which leads into a private network."""
    service = Names()
    service.known["inside.example"] = ["10.0.0.7"]
    trio.socket.set_custom_hostname_resolver(service)
    return service
