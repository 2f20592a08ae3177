"""Each way of failing fails as it says, where and as often as the rule says; the log and the shape count what they should."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from xetfs.testhub import Fault, Shape, TestHub, rate_limited

BODY = bytes(range(256)) * 2000


@pytest.fixture
async def url(hub: TestHub, http: httpx.AsyncClient) -> str:
    """A signed URL of 512,000 bytes on the transfer host."""
    path = hub.storage.temporary / "upload"
    path.write_bytes(BODY)
    stored = hub.storage.add_lfs("ab" * 32, len(BODY), path)
    hub.storage.commit_files(hub.storage.create_repo("model", "o/r"), {"f.bin": stored, "plain.txt": b"text"})
    answer = await http.get(f"{hub.endpoint}/o/r/resolve/main/f.bin")
    hub.log.reset()
    return answer.headers["location"]


async def test_without_faults(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    assert (await http.get(url)).content == BODY
    part = await http.get(url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.headers["content-range"], part.content) == (206, "bytes 1000-1999/512000", BODY[1000:2000])
    assert (await http.get(url, headers={"Range": "bytes=-5"})).content == BODY[-5:]
    assert (await http.get(url, headers={"Range": "bytes=511999-999999"})).content == BODY[-1:]
    assert (await http.get(url, headers={"Range": "bytes=512000-"})).status_code == 416
    head = await http.head(url)
    assert (head.headers["content-length"], head.content) == ("512000", b"")


async def test_rules_pick_requests(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    rule = hub.faults.add(Fault("answer", origin="transfer", path="^/lfs/", method="GET", skip=1, count=2, status=503))
    assert [(await http.get(url)).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert rule.fired == 2
    hub.faults.add(Fault("answer", path="nowhere"))
    hub.faults.add(Fault("answer", origin="cas"))
    hub.faults.add(Fault("answer", method="PUT"))
    assert (await http.get(url)).status_code == 200
    hub.faults.clear()
    hub.faults.add(Fault("answer", probability=0.5))
    statuses = [(await http.get(url)).status_code for _ in range(40)]
    assert 5 < statuses.count(500) < 35
    with pytest.raises(ValueError, match="no such fault"):
        Fault("explode")  # type: ignore[arg-type]


async def test_replaced_answers(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    hub.faults.add(Fault("answer", status=502, headers={"X-Why": "test"}, body="gateway", count=1))
    answer = await http.get(url)
    assert (answer.status_code, answer.headers["x-why"], answer.text) == (502, "test", "gateway")
    hub.faults.add(rate_limited(7, count=1))
    answer = await http.get(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    hub.faults.add(Fault("expire", count=1))
    assert (await http.get(url)).status_code == 403
    hub.faults.add(Fault("expire", status=400, count=1))
    answer = await http.get(url)
    assert (answer.status_code, "ExpiredToken" in answer.text) == (400, True)
    hub.faults.add(Fault("redirect", location="http://127.0.0.1:1/", count=1))
    answer = await http.get(url)
    assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:1/")


async def test_altered_bodies(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    hub.faults.add(Fault("flip", offset=300_000, count=1))
    flipped = (await http.get(url)).content
    assert [at for at in range(len(BODY)) if flipped[at] != BODY[at]] == [300_000]
    hub.faults.add(Fault("flip", count=1))
    flipped = (await http.get(url)).content
    assert sum(a != b for a, b in zip(flipped, BODY, strict=True)) == 1
    hub.faults.add(Fault("truncate", after_bytes=100_000, count=1))
    assert (await http.get(url)).content == BODY[:100_000]
    hub.faults.add(Fault("content_range", body="bytes 5-6/7", count=1))
    assert (await http.get(url, headers={"Range": "bytes=0-9"})).headers["content-range"] == "bytes 5-6/7"
    hub.faults.add(Fault("content_range", count=1))
    answer = await http.get(url, headers={"Range": "bytes=0-9"})
    assert ("content-range" in answer.headers, answer.content) == (False, BODY[:10])
    hub.faults.add(Fault("lengthen", after_bytes=9000, count=1))
    answer = await http.get(url, headers={"Range": "bytes=0-9"})
    assert (answer.headers["content-length"], answer.content) == ("9010", BODY[:10] + bytes(9000))
    hub.faults.add(Fault("content_length", offset=-4, count=1))
    answer = await http.get(url, headers={"Range": "bytes=0-9"})
    assert (answer.headers["content-length"], answer.content) == ("6", BODY[:6])
    hub.faults.add(Fault("content_length", offset=4, count=1))
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(url, headers={"Range": "bytes=0-9"})
    hub.faults.add(Fault("ignore_range", count=1))
    answer = await http.get(url, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, BODY)
    hub.faults.add(Fault("gzip", count=1))
    async with http.stream("GET", url) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == BODY
    assert (await http.get(url)).content == BODY


async def test_a_fault_that_fails_itself_hurts_only_its_connection(
    hub: TestHub, http: httpx.AsyncClient, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.add(Fault("rewrite", members={"no.such.member": 1}, count=1))
    with pytest.raises(httpx.TransportError):
        await http.get(f"{hub.endpoint}/api/models/o/r")
    assert "a connection failed" in caplog.text
    assert (await http.get(url)).status_code == 200


async def test_the_bridge_can_be_spoiled_too(hub: TestHub, http: httpx.AsyncClient) -> None:
    chunks = [bytes([number]) * 60_000 for number in range(40)]
    _, stored = hub.xet.add_file_from_chunks(chunks)
    hub.storage.commit_files(hub.storage.create_repo("model", "o/x"), {"f.bin": stored})
    where = f"{hub.endpoint}/o/x/resolve/main/f.bin"
    whole = b"".join(chunks)
    assert (await http.get(where, follow_redirects=True)).content == whole
    part = await http.get(where, headers={"Range": "bytes=59999-120000"}, follow_redirects=True)
    assert part.content == whole[59_999:120_001]
    hub.faults.add(Fault("truncate", origin="transfer", after_bytes=70_000, count=1))
    assert (await http.get(where, follow_redirects=True)).content == whole[:70_000]


async def test_the_real_client_survives_an_expired_url(hub: TestHub, run_client) -> None:
    _, stored = hub.xet.add_file_from_chunks([os.urandom(50_000) for _ in range(30)])
    hub.storage.commit_files(hub.storage.create_repo("model", "o/x"), {"f.bin": stored})
    hub.faults.add(Fault("expire", path="^/xorbs/", count=1))
    script = f"""
import hashlib
content = pathlib.Path(hf_hub_download("o/x", "f.bin")).read_bytes()
assert hashlib.sha256(content).hexdigest() == "{stored.sha256}"
"""
    await run_client(script)
    assert [request.status for request in hub.requests("transfer")] == [403, 206]
    assert len([request for request in hub.requests("cas") if "/v2/reconstructions/" in request.path]) == 2


async def test_rewritten_json(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    tree = f"{hub.endpoint}/api/models/o/r/tree/main"
    hub.faults.add(Fault("rewrite", path="/tree/", rewrite=lambda entries: entries[:1], count=1))
    assert len((await http.get(tree)).json()) == 1
    hub.faults.add(Fault("rewrite", path="/tree/", members={"0.path": "../../etc/passwd", "1.lfs": None}, count=1))
    entries = (await http.get(tree)).json()
    assert entries[0]["path"] == "../../etc/passwd"
    assert len((await http.get(tree)).json()) == 2


async def receive_into(received: bytearray, http: httpx.AsyncClient, url: str) -> None:
    async with http.stream("GET", url) as answer:
        async for data in answer.aiter_raw():
            received += data


@pytest.mark.parametrize("action", ["close", "reset"])
async def test_endings(hub: TestHub, http: httpx.AsyncClient, url: str, action: str) -> None:
    hub.faults.add(Fault(action, count=1))
    with pytest.raises(httpx.TransportError):
        await http.get(url)
    for after_bytes in (0, 1000, 200_000):
        hub.faults.add(Fault(action, after_bytes=after_bytes, count=1))
        hub.log.reset()
        received = bytearray()
        with pytest.raises(httpx.TransportError):
            await receive_into(received, http, url)
        assert received == BODY[:after_bytes] if action == "close" else len(received) <= after_bytes
        assert hub.requests()[0].bytes_sent == after_bytes
    assert (await http.get(url)).content == BODY


@pytest.mark.parametrize("after_bytes", [None, 0, 1000])
async def test_stalls(hub: TestHub, http: httpx.AsyncClient, url: str, after_bytes: int | None) -> None:
    hub.faults.add(Fault("stall", after_bytes=after_bytes, count=1))
    with pytest.raises(httpx.ReadTimeout):
        await http.get(url, timeout=0.2)
    assert hub.requests()[0].bytes_sent == (after_bytes or 0)
    hub.faults.add(Fault("stall", after_bytes=after_bytes, seconds=0.05, count=1))
    assert (await http.get(url)).content == BODY


async def test_drip(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    hub.faults.add(Fault("drip", seconds=0.001, after_bytes=511_900))
    assert (await http.get(url)).content == BODY
    assert hub.requests()[0].end is not None
    assert hub.requests()[0].end - hub.requests()[0].start >= 0.1
    hub.faults.clear()
    hub.faults.add(Fault("drip"))
    with trio.move_on_after(0.3):
        await http.get(url)
    assert hub.requests()[1].bytes_sent == 1


async def test_refused_connections(hub: TestHub, url: str) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 200
        hub.servers["transfer"].refuse()
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await http.get(url)
        hub.servers["transfer"].listen()
        assert (await http.get(url)).status_code == 200


async def test_the_log_counts_bodies_and_keeps_no_secrets(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    await http.get(url, headers={"Range": "bytes=10-19"})
    await http.head(url)
    await http.get(f"{hub.endpoint}/api/models/o/r?blobs=true", headers={"Authorization": "Bearer hf_canary"})
    part, head, info = hub.requests()
    assert (part.origin, part.method, part.status, part.bytes_sent, part.range) == ("transfer", "GET", 206, 10, "bytes=10-19")
    assert (head.method, head.bytes_sent, head.authorized) == ("HEAD", 0, False)
    assert (info.origin, info.path, info.query, info.authorized) == ("hub", "/api/models/o/r", "blobs=true", True)
    assert "hf_canary" not in repr(hub.requests())
    assert "Signature" not in repr(hub.requests())
    assert part.connection == head.connection
    assert hub.log.totals()["transfer"] == {"requests": 2, "bytes_sent": 10}
    hub.reset()
    assert hub.requests() == []


async def test_shapes_delay_and_slow_down(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    hub.shape = Shape(latency_s=0.05)
    await http.get(url)
    hub.shape = Shape(connection_bytes_s=5_000_000)
    assert (await http.get(url)).content == BODY
    hub.shape = Shape(total_bytes_s=5_000_000)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(http.get, url)
    spans = [(request.start, request.end or 0) for request in hub.requests()]
    late, slow, *both = [end - start for start, end in spans]
    assert len(both) == 2
    assert late >= 0.05
    assert slow >= 0.09
    # Of both together: on a busy machine one may begin when the other is half done.
    assert max(end for _, end in spans[2:]) - min(start for start, _ in spans[2:]) >= 0.19
    hub.reset()
    assert hub.shape == Shape()


async def test_the_control_endpoint_does_all_this_from_outside(hub: TestHub, http: httpx.AsyncClient, url: str) -> None:
    control = f"{hub.endpoint}/_testhub"
    assert (await http.get(f"{control}/")).json() == {
        "endpoint": hub.endpoint,
        "cas": hub.cas_url,
        "transfer": hub.transfer_url,
    }
    await http.post(f"{control}/faults", json={"action": "answer", "status": 418, "origin": "transfer", "count": 1})
    assert (await http.get(url)).status_code == 418
    assert [fault["fired"] for fault in (await http.get(f"{control}/faults")).json()] == [1]
    await http.delete(f"{control}/faults")
    assert hub.faults.rules == []
    seen = (await http.get(f"{control}/requests")).json()
    assert [request["status"] for request in seen["requests"]] == [418]
    assert seen["totals"]["transfer"]["requests"] == 1
    await http.delete(f"{control}/requests")
    assert hub.requests() == []
    await http.put(f"{control}/shape", json={"latency_s": 0.001})
    assert hub.shape == Shape(latency_s=0.001)
    await http.put(f"{control}/options", json={"v2_status": 404, "page_size": 7})
    assert (hub.options.v2_status, hub.options.page_size) == (404, 7)
    await http.post(f"{control}/tokens", json={"token": "hf_eve", "user": "eve", "role": "read"})
    headers = {"Authorization": "Bearer hf_eve"}
    assert (await http.get(f"{hub.endpoint}/api/whoami-v2", headers=headers)).json()["name"] == "eve"
    await http.post(f"{control}/repos", json={"name": "o/r", "gated": "auto", "alias": "r", "grant": "eve"})
    assert (await http.get(f"{hub.endpoint}/api/models/r", headers=headers)).status_code == 307
    assert (await http.get(f"{hub.endpoint}/o/r/resolve/main/f.bin")).status_code == 401
    assert (await http.get(f"{hub.endpoint}/o/r/resolve/main/f.bin", headers=headers)).status_code == 302
    for path, wrong in (
        ("faults", {"action": "explode"}),
        ("options", {"nothing": 1}),
        ("options", {"page_size": 9, "several_ranges": "some"}),
        ("repos", {"name": "no/no"}),
    ):
        method = "PUT" if path == "options" else "POST"
        assert (await http.request(method, f"{control}/{path}", json=wrong)).status_code == 400
    assert (await http.get(f"{control}/options")).json()["page_size"] == 7


async def test_a_hub_of_its_own_process(tmp_path: Path) -> None:
    chosen = {"several_ranges": "signed", "range_answers": "ok", "expired_status": 400}
    options = ["--json-ready", "--options", json.dumps(chosen)]
    command = [sys.executable, "-m", "xetfs.testhub", str(tmp_path / "hub"), *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(20):
        urls = json.loads(await process.stdout.receive_some())
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{urls['endpoint']}/_testhub/")).json() == urls
            assert chosen.items() <= (await http.get(f"{urls['endpoint']}/_testhub/options")).json().items()
            await http.post(f"{urls['endpoint']}/_testhub/refuse", json={"origin": "cas", "seconds": 30})
            while True:
                try:
                    await http.get(urls["cas"])
                except httpx.ConnectError:
                    break
                except httpx.TransportError:
                    continue  # was connected when the listener closed
        os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() == 0
