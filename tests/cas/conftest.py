from __future__ import annotations

import pytest

from xetfs.cas import fetching
from xetfs.cas.client import CasClient


@pytest.fixture(autouse=True)
def _nothing_known_of_servers() -> None:
    """What is remembered of a server belongs to its port, and ports come again."""
    for known in (
        CasClient._v1_only,
        CasClient._answering,
        CasClient._proving,
        CasClient._proofless,
        fetching._single_range_origins,
    ):
        known.clear()
