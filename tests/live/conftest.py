"""Reads of public repos on the real Hub, for whoever has a network: XETFS_LIVE=1 scripts/test tests/live

Left out otherwise, and always in CI. Each test holds xetfs to what it promises, and prints what the service did, so that a minute
tells whether the service is as docs/compatibility.md has it. XETFS_LIVE_ENDPOINT names another Hub.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from flat_settings import flat_settings, open_engine
from tally import pytest_terminal_summary, tally

from xetfs.repo import Engine

__all__ = ["pytest_terminal_summary", "tally"]

ENDPOINT = os.environ.get("XETFS_LIVE_ENDPOINT", "https://huggingface.co")
WANTED = os.environ.get("XETFS_LIVE") == "1" and not os.environ.get("CI")
TEST_S = 120


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(TEST_S))
    if not WANTED:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture
def endpoint() -> str:
    return ENDPOINT


@pytest.fixture
async def engine(tmp_path: Path, endpoint: str) -> AsyncIterator[Engine]:
    """An engine without a token and with an empty cache."""
    async with open_engine(flat_settings(endpoint=endpoint, cache_dir=tmp_path / "cache")) as engine:
        yield engine


@pytest.fixture
async def http(endpoint: str) -> AsyncIterator[httpx.AsyncClient]:
    """For questions that xetfs would not ask."""
    async with httpx.AsyncClient(timeout=60, base_url=endpoint) as client:
        yield client
