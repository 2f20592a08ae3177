"""Other people's programs on a mount. Their own libraries wrote the files, and the real client uploaded them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("software_runs")

import software_data  # noqa: E402
from mount_hub import HubProcess  # noqa: E402
from mount_user import Mount, is_mounted  # noqa: E402
from software_runs import REPO, Software  # noqa: E402
from stage import staging  # noqa: E402

TEST_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.fixture(scope="session")
def software() -> Iterator[Software]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    with staging("software") as base:
        plain = base / "plain"
        software_data.make(plain)
        hub = HubProcess(base / "hub")
        try:
            hub.upload(REPO, plain)
            yield Software(base, plain, hub)
        finally:
            hub.stop()


@pytest.fixture
def mount(software: Software) -> Iterator[Mount]:
    """A mount with an empty cache. Its log must hold no warnings or errors at the end."""
    with software.mounted() as mount:
        yield mount
        if is_mounted(mount.path):
            mount.umount()
        assert mount.unexpected() == []


@pytest.fixture(scope="module")
def steady(software: Software) -> Iterator[Path]:
    """A mount shared by the tests of a module."""
    with software.mounted() as mount:
        yield mount.path
        mount.umount()
        assert mount.unexpected() == []
