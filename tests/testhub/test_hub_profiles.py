"""What a hub of the profile `production` is strict about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from xetfs.testhub import Shape, TestHub, open_test_hub
from xetfs.testhub.profiles import production


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[TestHub]:
    profile = production()
    async with open_test_hub(tmp_path / "hub", options=profile.options, shape=profile.shape) as hub:
        yield hub


async def question(hub: TestHub, http: httpx.AsyncClient, chunks: int) -> tuple[str, dict[str, str]]:
    """The hash of a file of so many chunks, and what to send to the CAS about it."""
    _, stored = hub.xet.add_file_from_chunks([b"%d" % number * 10 for number in range(chunks)])
    repo = hub.storage.create_repo("model", f"local/of-{chunks}")
    hub.storage.commit_files(repo, {"f.bin": stored})
    entry = (await http.get(f"{hub.endpoint}/api/models/{repo.name}/tree/main")).json()[0]
    grant = (await http.get(f"{hub.endpoint}/api/models/{repo.name}/xet-read-token/main")).json()
    return entry["xetHash"], {"Authorization": f"Bearer {grant['accessToken']}", "X-Range-Dirty": "bytes=0-0"}


async def test_proofs_are_slow_and_refused_for_large_files(strict: TestHub, http: httpx.AsyncClient) -> None:
    strict.options.proof_chunks_max = 30
    started = trio.current_time()
    for chunks, status in ((30, 200), (31, 403)):
        file, headers = await question(strict, http, chunks)
        answer = await http.get(f"{strict.cas_url}/v2/file-chunk-hashes/{file}", headers=headers)
        assert answer.status_code == status
    asked = strict.requests("cas")
    assert all(record.end is not None and record.end - record.start >= 0.3 for record in asked)
    assert trio.current_time() - started >= 8 * 0.08


async def test_a_reset_hub_is_as_far_away_as_at_first(strict: TestHub) -> None:
    strict.shape = Shape(latency_s=5)
    strict.reset()
    assert strict.shape == production().shape
