"""Hugging Face's CAS server with every file in it, a hub that names them, mounts, and a count of what was held against what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import witness_repo
from mount_hub import HubProcess
from stage import staging
from witness_programs import CasServer, Oracle

TEST_S = 600


@dataclass
class Tally:
    """What this run has compared; printed at its end."""

    lines: list[str] = field(default_factory=list)


TALLY = pytest.StashKey[Tally]()


@dataclass(frozen=True)
class Witness:
    """The hub that names the files, the folder they were made in, and where their CAS server keeps them."""

    base: Path
    hub: HubProcess
    folder: Path
    held: Path

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[TALLY].lines
    if lines:
        terminalreporter.section("witnesses")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> list[str]:
    return request.config.stash[TALLY].lines


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
