"""Hugging Face's CAS server with every file in it, a hub that names them and a hub that names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import witness_repo
from mount_hub import HubProcess
from stage import staging
from tally import pytest_terminal_summary, tally
from witness_programs import CasServer, Oracle
from witness_repo import Witness

__all__ = ["pytest_terminal_summary", "tally"]
TEST_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    oracle.close()


@pytest.fixture(scope="session")
def witness() -> Iterator[Witness]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    with staging("witness") as base:
        folder, held = base / "source", base / "held"
        witness_repo.make_files(folder)
        server = CasServer(held, base / "server.log")
        try:
            witness_repo.fill(base / "hub", folder, server)
        finally:
            server.stop()
        hub = HubProcess(base / "hub")
        try:
            yield Witness(base, hub, folder, held)
        finally:
            hub.stop()
