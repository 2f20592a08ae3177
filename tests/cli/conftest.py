from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command

from xetfs.fs import mountpoint as outside


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "model"
    path.mkdir()
    yield path
    while outside.mount_at(path):
        outside.unmount(path, lazily=True)
    os.rmdir(path)
