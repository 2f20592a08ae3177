"""What the CAS and the transfer host answer, read by the parsers of xetfs itself and checked against the content."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import httpx
import pytest

from xetfs.protocol.hashes import FileId, chunk_hash, xorb_hash
from xetfs.protocol.multipart import parse_boundary
from xetfs.protocol.proof import parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import Reconstruction, parse_reconstruction
from xetfs.protocol.xorb import Scheme, decode_block, encode_chunk
from xetfs.testhub import Run, TestHub
from xetfs.testhub.xetstore import XorbIndex


@dataclass
class Sample:
    """A fragmented file of a repo, its content, and the headers that open the CAS."""

    file: FileId
    content: bytes
    leaves: list[tuple[bytes, int]]
    headers: Mapping[str, str]
    xorb: XorbIndex


@pytest.fixture
async def sample(hub: TestHub, http: httpx.AsyncClient) -> Sample:
    chance = random.Random(3)
    chunks = [chance.randbytes(chance.randrange(8192, 40_000)) for _ in range(120)]
    first = hub.xet.add_xorb(chunks[:70], Scheme.NONE)
    second = hub.xet.add_xorb(chunks[70:], Scheme.BG4_LZ4)
    runs = []
    for _ in range(400):
        xorb, count = chance.choice(((first, 70), (second, 50)))
        start = chance.randrange(count)
        runs.append(Run(xorb, start, min(count, start + chance.randrange(1, 6))))
    picked = [chunk for run in runs for chunk in (chunks[:70] if run.xorb == first else chunks[70:])[run.start : run.end]]
    file, stored = hub.xet.add_file_from_terms(runs)
    hub.storage.commit_files(hub.storage.create_repo("model", "o/r"), {"f.bin": stored})
    token = (await http.get(f"{hub.endpoint}/api/models/o/r/xet-read-token/main")).json()["accessToken"]
    leaves = [(chunk_hash(chunk), len(chunk)) for chunk in picked]
    return Sample(file, b"".join(picked), leaves, {"Authorization": f"Bearer {token}"}, hub.xet.index(first))


async def ask(hub: TestHub, http: httpx.AsyncClient, sample: Sample, span: str | None, version: int = 2) -> httpx.Response:
    headers = {**sample.headers, **({"Range": span} if span else {})}
    return await http.get(f"{hub.cas_url}/v{version}/reconstructions/{sample.file.hex()}", headers=headers)


async def assemble(http: httpx.AsyncClient, found: Reconstruction) -> bytes:
    """All bytes of the terms, fetched range by range."""
    blocks = {}
    for xorb, fetches in found.fetches.items():
        for fetch in fetches:
            answer = await http.get(fetch.url.reveal(), headers={"Range": f"bytes={fetch.bytes}"})
            assert answer.status_code == 206
            assert answer.headers["content-range"].startswith(f"bytes {fetch.bytes}/")
            blocks[xorb, fetch.chunks] = decode_block(xorb, fetch.chunks, memoryview(answer.content))
    parts = []
    for term in found.terms:
        block = next(block for (xorb, chunks), block in blocks.items() if xorb == term.xorb and chunks.covers(term.chunks))
        chunks = [bytes(block.chunk(number)) for number in range(term.chunks.start, term.chunks.end)]
        assert sum(map(len, chunks)) == term.length
        parts += chunks
    return b"".join(parts)


@pytest.mark.parametrize("version", [1, 2])
async def test_any_range_is_made_of_the_chunks_under_it(
    hub: TestHub, http: httpx.AsyncClient, sample: Sample, version: int
) -> None:
    chance = random.Random(version)
    size = len(sample.content)
    spans = [(0, 0), (size - 1, size - 1), (0, size + 10_000)]
    spans += [(at, at + chance.choice((1, 4096, 100_000, 1_000_000)) - 1) for at in (chance.randrange(size) for _ in range(12))]
    for first, last in spans:
        answer = await ask(hub, http, sample, f"bytes={first}-{last}", version)
        found = parse_reconstruction(answer.content, version)
        content = await assemble(http, found)
        wanted = sample.content[first : last + 1]
        assert content[found.offset : found.offset + len(wanted)] == wanted
        assert found.offset < found.terms[0].length
        heads = [length for _, length in sample.leaves]
        assert len(content) - len(wanted) <= 2 * max(heads)  # trimmed to whole chunks at both ends
    whole = parse_reconstruction((await ask(hub, http, sample, None, version)).content, version)
    assert await assemble(http, whole) == sample.content


async def test_ranges_past_the_end_and_hashes_that_are_none(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    assert (await ask(hub, http, sample, f"bytes={len(sample.content)}-")).status_code == 416
    bad = await http.get(f"{hub.cas_url}/v2/reconstructions/xyz", headers=sample.headers)
    assert bad.status_code == 400
    unknown = await http.get(f"{hub.cas_url}/v2/reconstructions/{'0' * 63}1", headers=sample.headers)
    assert unknown.status_code == 404
    head = await http.head(f"{hub.cas_url}/v1/files/{sample.file.hex()}", headers=sample.headers)
    assert int(head.headers["content-length"]) == len(sample.content)


async def test_fetch_ranges_are_merged(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    found = parse_reconstruction((await ask(hub, http, sample, "bytes=0-3000000")).content, 2)
    assert 1 < sum(map(len, found.fetches.values())) < len(found.terms)
    for fetches in found.fetches.values():
        for before, after in pairwise(fetches):
            assert before.chunks.end < after.chunks.start
            assert before.bytes.last + 1 < after.bytes.first


async def test_a_signed_url_allows_exactly_its_ranges(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    body = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    url, ranges = next(
        (entry["url"], entry["ranges"]) for entries in body["xorbs"].values() for entry in entries if len(entry["ranges"]) > 1
    )
    spans = [(item["bytes"]["start"], item["bytes"]["end"]) for item in ranges]
    (first, last), (second, end) = spans[:2]

    async def status(header: str | None, where: str = url, **more: str) -> int:
        headers = {**({"Range": f"bytes={header}"} if header else {}), **more}
        return (await http.get(where, headers=headers)).status_code

    assert await status(f"{first}-{last}") == 206
    assert await status(f"{first}-{last},{second}-{end}") == 206
    for wrong in (None, f"{first}-{last - 1}", f"{first}-{last + 1}", f"{first}-", f"{first}-{end}", "-5"):
        assert await status(wrong) == 403
    assert await status(f"{first}-{last}", Authorization="Bearer x") == 400
    assert await status(f"{first}-{last}", url.replace("bytes%3D", "bytes%3D0-9%2C")) == 403
    assert await status(f"{first}-{last}", url.replace("Expires=", "Expires=9")) == 403
    hub.options.url_lifetime_s = -1
    late = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    entry = next(iter(late["xorbs"].values()))[0]
    span = entry["ranges"][0]["bytes"]
    assert await status(f"{span['start']}-{span['end']}", entry["url"]) == 403


async def test_several_ranges_come_as_parts(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    body = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    name, entry = next((name, entries[0]) for name, entries in body["xorbs"].items() if len(entries[0]["ranges"]) > 1)
    spans = [(item["bytes"]["start"], item["bytes"]["end"]) for item in entry["ranges"]]
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in spans)
    answer = await http.get(entry["url"], headers={"Range": header})
    boundary = parse_boundary(answer.headers["content-type"])
    assert boundary is not None
    path = next(path for path in (hub.storage.directory / "xorbs").rglob(name))
    stored = path.read_bytes()
    parts = answer.content.split(b"--" + boundary.encode())
    assert parts[-1] == b"--\r\n"
    for part, (first, last) in zip(parts[1:-1], spans, strict=True):
        head, _, data = part.partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {first}-{last}/".encode() in head
        assert data.removesuffix(b"\r\n") == stored[first : last + 1]


async def test_what_several_ranges_get_is_a_choice(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    body = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    name, entry = next((name, entries[0]) for name, entries in body["xorbs"].items() if len(entries[0]["ranges"]) > 2)
    spans = [f"{item['bytes']['start']}-{item['bytes']['end']}" for item in entry["ranges"]]
    stored = next((hub.storage.directory / "xorbs").rglob(name)).read_bytes()

    async def get(*asked: str) -> httpx.Response:
        return await http.get(entry["url"], headers={"Range": "bytes=" + ",".join(asked)})

    hub.options.several_ranges = "signed"
    assert [(await get(*asked)).status_code for asked in (spans, spans[:1], spans[:2], spans[::-1])] == [206, 206, 403, 403]
    hub.options.several_ranges = "refused"
    assert [(await get(*asked)).status_code for asked in (spans, spans[:1])] == [403, 206]
    hub.options.several_ranges = "whole"
    answer = await get(*spans)
    assert answer.status_code == 200
    assert stored.startswith(answer.content)
    assert len(answer.content) > entry["ranges"][-1]["bytes"]["end"]
    assert (await get(spans[0])).status_code == 206
    assert (await get(spans[0], "0-1")).status_code == 403


async def test_how_a_range_is_labelled_is_a_choice(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    body = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    entry = next(iter(body["xorbs"].values()))[0]
    span = entry["ranges"][0]["bytes"]
    headers = {"Range": f"bytes={span['start']}-{span['end']}"}
    right = await http.get(entry["url"], headers=headers)
    hub.options.range_answers = "unlabelled"
    answer = await http.get(entry["url"], headers=headers)
    assert (answer.status_code, "content-range" in answer.headers, answer.content) == (206, False, right.content)
    hub.options.range_answers = "ok"
    answer = await http.get(entry["url"], headers=headers)
    assert (answer.status_code, "content-range" in answer.headers, answer.content) == (200, False, right.content)


async def test_several_ranges_may_cost_time(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    body = (await ask(hub, http, sample, "bytes=0-3000000")).json()
    entry = next(entry for entries in body["xorbs"].values() for entry in entries if len(entry["ranges"]) > 2)
    spans = [f"{item['bytes']['start']}-{item['bytes']['end']}" for item in entry["ranges"]]
    hub.options.range_cost_s = 0.01
    for count in (1, len(spans)):
        hub.log.reset()
        await http.get(entry["url"], headers={"Range": "bytes=" + ",".join(spans[:count])})
        [record] = hub.requests("transfer")
        assert record.end is not None
        assert record.end - record.start >= 0.01 * (count - 1)


async def test_an_expired_url_is_answered_as_its_storage_does(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    hub.options.url_lifetime_s = -1
    body = (await ask(hub, http, sample, "bytes=0-9")).json()
    entry = next(iter(body["xorbs"].values()))[0]
    for status, words in ((403, "the signature has expired"), (400, "ExpiredToken")):
        hub.options.expired_status = status  # type: ignore[assignment]
        answer = await http.get(entry["url"], headers={"Range": "bytes=0-9"})
        assert (answer.status_code, words in answer.text) == (status, True)


async def test_a_url_carries_at_most_500_ranges(hub: TestHub, http: httpx.AsyncClient) -> None:
    xorb = hub.xet.add_xorb([number.to_bytes(4, "little") * 10 for number in range(2500)])
    _, stored = hub.xet.add_file_from_terms([Run(xorb, number, number + 1) for number in range(0, 2500, 2)])
    hub.storage.commit_files(hub.storage.create_repo("model", "o/many"), {"f.bin": stored})
    tree = (await http.get(f"{hub.endpoint}/api/models/o/many/tree/main")).json()
    token = (await http.get(f"{hub.endpoint}/api/models/o/many/xet-read-token/main")).json()["accessToken"]
    headers = {"Authorization": f"Bearer {token}"}
    body = (await http.get(f"{hub.cas_url}/v2/reconstructions/{tree[0]['xetHash']}", headers=headers)).json()
    entries = body["xorbs"][xorb.hex()]
    assert [len(entry["ranges"]) for entry in entries] == [500, 500, 250]
    spans = [f"{item['bytes']['start']}-{item['bytes']['end']}" for item in entries[0]["ranges"]]
    answer = await http.get(entries[0]["url"], headers={"Range": "bytes=" + ",".join(spans)})
    assert answer.status_code == 206


async def test_range_proofs_prove(hub: TestHub, http: httpx.AsyncClient, sample: Sample) -> None:
    size = len(sample.content)
    for first, last in ((0, 0), (size // 2, size // 2 + 4095), (size - 1, size - 1)):
        url = f"{hub.cas_url}/v2/file-chunk-hashes/{sample.file.hex()}"
        answer = await http.get(url, headers={**sample.headers, "X-Range-Dirty": f"bytes={first}-{last}"})
        proof = parse_range_proof(answer.content)
        at, windows = 0, [[] for _ in proof.windows]
        for leaf in sample.leaves:
            for window, chunks in zip(proof.windows, windows, strict=True):
                if window.start <= at < window.end:
                    chunks.append(leaf)
            at += leaf[1]
        verify_range(proof, sample.file, size, windows)
        assert any(window.start <= first and last < window.end for window in proof.windows)
    missing = await http.get(f"{hub.cas_url}/v2/file-chunk-hashes/{sample.file.hex()}", headers=sample.headers)
    assert missing.status_code == 400
    hub.options.proof_status = 404
    off = await http.get(url, headers={**sample.headers, "X-Range-Dirty": "bytes=0-1"})
    assert off.status_code == 404


async def test_a_file_of_200_gb_costs_no_more_to_ask_about(hub: TestHub, http: httpx.AsyncClient) -> None:
    xorb = hub.xet.add_xorb([bytes(131072)] * 512)
    file, stored = hub.xet.add_file_from_terms([Run(xorb, 0, 512)] * 3000, sha256="ab" * 32, file=FileId(chunk_hash(b"sparse")))
    assert stored.size == 3000 * 512 * 131072
    hub.storage.commit_files(hub.storage.create_repo("model", "o/sparse"), {"f.bin": stored})
    token = (await http.get(f"{hub.endpoint}/api/models/o/sparse/xet-read-token/main")).json()["accessToken"]
    span = ByteRange(150 * 10**9, 150 * 10**9 + 4096)
    headers = {"Authorization": f"Bearer {token}", "Range": f"bytes={span.to_http()}"}
    answer = await http.get(f"{hub.cas_url}/v2/reconstructions/{file.hex()}", headers=headers)
    found = parse_reconstruction(answer.content, 2)
    assert len(found.terms) == 1
    assert len(found.terms[0].chunks) == 1
    assert found.offset == span.start % 131072


async def test_uploads_are_checked(hub: TestHub, http: httpx.AsyncClient) -> None:
    hub.storage.create_repo("model", "local/new")
    headers = {"Authorization": "Bearer any"}
    token = (await http.get(f"{hub.endpoint}/api/models/local/new/xet-write-token/main", headers=headers)).json()["accessToken"]
    writing = {"Authorization": f"Bearer {token}"}
    chunks = [b"a" * 9000, b"b" * 9000]
    name = xorb_hash([(chunk_hash(chunk), len(chunk)) for chunk in chunks])
    body = b"".join(encode_chunk(chunk) for chunk in chunks)
    url = f"{hub.cas_url}/v1/xorbs/default/{name.hex()}"
    for wrong in (b"", body[:-1], body + b"\0", encode_chunk(chunks[0]), body[::-1]):
        assert (await http.post(url, content=wrong, headers=writing)).status_code == 400
    assert (await http.post(url, content=body, headers=writing)).json() == {"was_inserted": True}
    assert (await http.post(url, content=body, headers=writing)).json() == {"was_inserted": False}
    assert hub.xet.index(name).hashes == tuple(chunk_hash(chunk) for chunk in chunks)
    assert (await http.post(url.replace("xorbs", "xorb-grants"), json={}, headers=writing)).status_code == 404
    assert (await http.post(f"{hub.cas_url}/v1/telemetry", content=b"anything")).status_code == 200


async def test_an_lfs_upload_must_be_what_it_says(hub: TestHub, http: httpx.AsyncClient) -> None:
    hub.storage.create_repo("model", "local/new")
    batch = f"{hub.endpoint}/local/new.git/info/lfs/objects/batch"
    asked = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": "0" * 64, "size": 4}]}
    answer = (await http.post(batch, json=asked, headers={"Authorization": "Bearer any"})).json()
    put = await http.put(answer["objects"][0]["actions"]["upload"]["href"], content=b"data")
    assert put.status_code == 400
    assert list(hub.storage.temporary.iterdir()) == []
    assert (await http.post(batch, json=asked)).status_code == 401
