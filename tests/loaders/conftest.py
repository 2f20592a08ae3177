"""What loading models and tables, or parts of them, moves: by the log of a hub that has some as people have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import loader_data
import numpy as np
import pytest
from loader_runs import REPO, Loaders
from mount_hub import HubProcess
from stage import staging

from xetfs.testhub import HubOptions, TestHub

TEST_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.fixture(scope="session")
def loaders() -> Iterator[Loaders]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    with staging("loaders") as base:
        folder = base / "models"
        loader_data.make(folder)
        hub = TestHub(base / "hub", HubOptions(), seed=0)
        try:
            chance = np.random.default_rng(7)
            paths = [path for path in folder.rglob("*") if path.is_file()]
            files = {str(path.relative_to(folder)): hub.xet.add_file_from_chunks(list(_cut(path, chance)))[1] for path in paths}
            hub.storage.commit_files(hub.storage.create_repo("model", REPO), files)
        finally:
            hub.storage.close()
        running = HubProcess(base / "hub")
        try:
            yield Loaders(base, folder, running)
        finally:
            running.stop()


def _cut(path: Path, chance: np.random.Generator) -> Iterator[bytes]:
    """A file in chunks of about the lengths that content-defined chunking makes."""
    with path.open("rb") as file:
        while chunk := file.read(int(chance.integers(*loader_data.CUT_BYTES))):
            yield chunk
