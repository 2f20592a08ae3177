"""One hub with the staged repo for all tests of this directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Staged, staged, staging


@pytest.fixture(scope="session")
def crash_base() -> Iterator[Path]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    with staging("crash") as base:
        yield base


@pytest.fixture(scope="session")
def crash_hub(crash_base: Path) -> Iterator[Staged]:
    with staged(crash_base) as running:
        yield running


@pytest.fixture
def stage_of(crash_hub: Staged) -> Iterator[Staged]:
    """The hub, with an empty log and no faults, before and after."""
    crash_hub.hub.reset()
    yield crash_hub
    crash_hub.hub.reset()
