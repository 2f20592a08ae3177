"""A fixture for tests whose servers come and go: import it in the conftest of their directory."""

from __future__ import annotations

import pytest

from xetfs.cas import fetching
from xetfs.cas.client import CasClient


@pytest.fixture(autouse=True)
def nothing_known_of_servers() -> None:
    """What is remembered of a server, for the life of a process, belongs to its port, and ports come again."""
    forget_servers()


def forget_servers() -> None:
    """As a new process begins."""
    for known in (
        CasClient._v1_only,
        CasClient._answering,
        CasClient._proving,
        CasClient._proofless,
        fetching._single_range_origins,
    ):
        known.clear()
