"""The three origins over TLS: every answer as without, long ones and spoiled ones included."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import httpx
import pytest
from loopback import make_authority

from xetfs.testhub import Fault, Shape, open_test_hub

CONTENT = random.Random(2).randbytes(3_000_000)


async def test_all_three_origins_speak_https(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))
    async with (
        open_test_hub(tmp_path / "hub", tls=authority.server) as hub,
        httpx.AsyncClient(verify=trusting, timeout=30, trust_env=False) as http,
    ):
        _, stored = hub.xet.add_file_from_chunks([CONTENT[at : at + 60_000] for at in range(0, len(CONTENT), 60_000)])
        hub.storage.commit_files(hub.storage.create_repo("model", "local/demo"), {"f.bin": stored, "plain.txt": b"text"})
        assert all(url.startswith("https://") for url in (hub.endpoint, hub.cas_url, hub.transfer_url))
        grant = (await http.get(f"{hub.endpoint}/api/models/local/demo/xet-read-token/main")).json()
        assert grant["casUrl"] == hub.cas_url
        entry = (await http.get(f"{hub.endpoint}/api/models/local/demo/tree/main")).json()[0]
        headers = {"Authorization": f"Bearer {grant['accessToken']}"}
        plan = (await http.get(f"{hub.cas_url}/v1/reconstructions/{entry['xetHash']}", headers=headers)).json()
        (fetch,) = [info for infos in plan["fetch_info"].values() for info in infos]
        span = {"Range": f"bytes={fetch['url_range']['start']}-{fetch['url_range']['end']}"}
        data = await http.get(fetch["url"], headers=span)
        assert data.status_code == 206
        assert len(data.content) == fetch["url_range"]["end"] - fetch["url_range"]["start"] + 1
        hub.shape = Shape(connection_bytes_s=50_000_000)
        assert (await http.get(fetch["url"], headers=span)).content == data.content
        assert (await http.get(f"{hub.endpoint}/local/demo/resolve/main/f.bin", follow_redirects=True)).content == CONTENT
        hub.faults.add(Fault("close", origin="transfer", after_bytes=100_000))
        with pytest.raises(httpx.TransportError):
            await http.get(fetch["url"], headers=span)


async def test_a_client_that_trusts_nobody_harms_nobody(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))
    async with open_test_hub(tmp_path / "hub", tls=authority.server) as hub:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as stranger:
            with pytest.raises(httpx.ConnectError):
                await stranger.get(hub.endpoint)
            with pytest.raises(httpx.TransportError):
                await stranger.get(hub.endpoint.replace("https:", "http:"))
        async with httpx.AsyncClient(verify=trusting, timeout=30, trust_env=False) as http:
            assert (await http.get(hub.endpoint)).status_code == 200
