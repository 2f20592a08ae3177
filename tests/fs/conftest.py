from __future__ import annotations

import pytest
from fake_view import FakeRepoView

from xetfs.fs.operations import Operations
from xetfs.telemetry import Counters


@pytest.fixture
def view() -> FakeRepoView:
    return FakeRepoView({"config.json": b"{}", "empty": b"", "deep/er/data.bin": bytes(range(256)) * 16, "näme ☃": b"snow"})


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def operations(view: FakeRepoView, counters: Counters) -> Operations:
    return Operations(view, deadline_s=30, counters=counters)  # type: ignore[arg-type]
