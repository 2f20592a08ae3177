"""Stores on a temporary directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xetfs.settings import StoreSettings
from xetfs.store.disk import DiskStore
from xetfs.telemetry import Counters


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def open_store(tmp_path: Path, counters: Counters) -> Iterator[Callable[..., DiskStore]]:
    """Opens stores on tmp_path/cache, with these changes to the settings; they are closed in the end."""
    opened: list[DiskStore] = []

    def open_one(**changes: object) -> DiskStore:
        clock = changes.pop("clock", None)
        settings = StoreSettings(**{"cache_dir": tmp_path / "cache", "cache_free_share": 0.0, **changes})
        opened.append(DiskStore(settings, counters, **({"clock": clock} if clock else {})))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
