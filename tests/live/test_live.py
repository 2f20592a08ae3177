"""What the real service does, held against what xetfs takes it to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import trio

from xetfs.errors import AccessDenied, AuthRequired, RepoNotFound
from xetfs.protocol.hashes import MerkleHash
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import parse_reconstruction
from xetfs.repo import Engine, Node, RepoView

MODEL: Final = "openai-community/gpt2"
"""A safetensors file of 548 MB, so of several xorbs."""
MODEL_FILE: Final = "model.safetensors"
RENAMED: Final = "gpt2"
SMALL: Final = "hf-internal-testing/tiny-random-gpt2"
DATASET: Final = "datasets/rajpurkar/squad"
GATED: Final = "meta-llama/Llama-2-7b-hf"
WIDE: Final = ("datasets/allenai/c4", "en")
"""A folder of more than one page."""
OLD: Final = ("google-bert/bert-base-uncased", "facebook/bart-large-cnn", "sentence-transformers/all-MiniLM-L6-v2")
"""Repos from before Xet, some files of which may still be in LFS."""
NOT_THERE: Final = "openai-community/there-is-no-such-repo-here"


async def find(view: RepoView, path: str) -> Node:
    node = view.root
    for name in path.split("/"):
        node = await view.lookup(node, name)
    return node


async def read(view: RepoView, path: str, start: int, end: int) -> bytes:
    reader = view.open_file(await find(view, path))
    try:
        return bytes(await reader.read(ByteRange(start, end)))
    finally:
        reader.close()


@dataclass(frozen=True)
class Plan:
    """What the CAS says of the first bytes of MODEL_FILE."""

    cas_url: str
    file: str
    headers: dict[str, str]
    body: dict[str, Any]

    def ranges(self) -> tuple[str, list[tuple[int, int]]]:
        """The URL with the most ranges, and these."""
        entries = [entry for entries in self.body["xorbs"].values() for entry in entries]
        entry = max(entries, key=lambda entry: len(entry["ranges"]))
        return entry["url"], [(item["bytes"]["start"], item["bytes"]["end"]) for item in entry["ranges"]]


@pytest.fixture
async def plan(http: httpx.AsyncClient) -> Plan:
    entries = (await http.get(f"/api/models/{MODEL}/tree/main")).raise_for_status().json()
    file = next(entry["xetHash"] for entry in entries if entry["path"] == MODEL_FILE)
    grant = (await http.get(f"/api/models/{MODEL}/xet-read-token/main")).raise_for_status().json()
    headers = {"Authorization": f"Bearer {grant['accessToken']}", "Range": "bytes=0-99999999"}
    answer = await http.get(f"{grant['casUrl']}/v2/reconstructions/{file}", headers=headers)
    return Plan(grant["casUrl"], file, headers, answer.raise_for_status().json())


def host(url: str) -> str:
    return httpx.URL(url).host


async def test_any_place_of_a_large_model(engine: Engine, http: httpx.AsyncClient, tally: list[str]) -> None:
    view = await engine.open_repo(RepoRef.parse(MODEL))
    size = (await find(view, MODEL_FILE)).size
    started = trio.current_time()
    for place in (0, size // 3, size - 5000):
        content = await read(view, MODEL_FILE, place, place + 5000)
        whole = await http.get(
            f"/{MODEL}/resolve/main/{MODEL_FILE}", headers={"Range": f"bytes={place}-{place + 4999}"}, follow_redirects=True
        )
        assert whole.status_code == 206
        assert content == whole.content
    level = view.describe(await find(view, MODEL_FILE)).level
    tally.append(f"three places of {MODEL_FILE}: right, level {level}, {trio.current_time() - started:.1f} s")


async def test_a_whole_file_by_its_sha256(engine: Engine, http: httpx.AsyncClient, tally: list[str]) -> None:
    view = await engine.open_repo(RepoRef.parse(SMALL))
    entries = (await http.get(f"/api/models/{SMALL}/tree/main")).raise_for_status().json()
    entry = min((entry for entry in entries if "lfs" in entry), key=lambda entry: entry["size"])
    content = await read(view, entry["path"], 0, entry["size"])
    assert hashlib.sha256(content).hexdigest() == entry["lfs"]["oid"]
    level = view.describe(await find(view, entry["path"])).level
    tally.append(f"{SMALL}/{entry['path']}: {len(content)} bytes right by SHA-256, level {level}")


async def test_a_file_in_git(engine: Engine, http: httpx.AsyncClient, tally: list[str]) -> None:
    view = await engine.open_repo(RepoRef.parse(MODEL))
    entries = (await http.get(f"/api/models/{MODEL}/tree/main")).raise_for_status().json()
    entry = next(entry for entry in entries if entry["path"] == "config.json")
    content = await read(view, "config.json", 0, entry["size"])
    assert hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry["oid"]
    tally.append("config.json: right by its git id")


async def test_files_that_are_only_in_lfs(engine: Engine, http: httpx.AsyncClient, tally: list[str]) -> None:
    """They are rare by now: what there is, is read; how much there is, is printed."""
    found: list[tuple[str, dict[str, Any]]] = []
    for repo in OLD:
        entries = (await http.get(f"/api/models/{repo}/tree/main")).raise_for_status().json()
        found += [(repo, entry) for entry in entries if "lfs" in entry and not entry.get("xetHash")]
    tally.append(f"{len(found)} files of {len(OLD)} old repos are in LFS and not in Xet")
    for repo, entry in found[:1]:
        view = await engine.open_repo(RepoRef.parse(repo))
        assert len(await read(view, entry["path"], 1000, 2000)) == 1000


async def test_the_parquet_files_of_a_dataset(engine: Engine, tally: list[str]) -> None:
    view = await engine.open_repo(RepoRef.parse(f"{DATASET}@refs/convert/parquet"))
    directory = view.root
    while not (files := [node for node in await view.children(directory) if node.name.endswith(".parquet")]):
        directory = next(node for node in await view.children(directory) if node.is_directory)
    node = files[0]
    assert await read(view, node.path, 0, 4) == await read(view, node.path, node.size - 4, node.size) == b"PAR1"
    tally.append(f"{DATASET}@refs/convert/parquet: {node.path} of {node.size} bytes is Parquet")


async def test_a_gated_repo_without_a_token(engine: Engine, tally: list[str]) -> None:
    async def mount_and_read() -> None:
        await read(await engine.open_repo(RepoRef.parse(GATED)), "config.json", 0, 10)

    with pytest.raises((AuthRequired, AccessDenied)) as caught:
        await mount_and_read()
    tally.append(f"gated: {type(caught.value).__name__}: {caught.value}")


async def test_a_repo_that_is_not_there(engine: Engine, tally: list[str]) -> None:
    with pytest.raises((RepoNotFound, AuthRequired)) as caught:
        await engine.open_repo(RepoRef.parse(NOT_THERE))
    tally.append(f"not there: {type(caught.value).__name__}: {caught.value}")


async def test_a_renamed_repo(engine: Engine, tally: list[str]) -> None:
    old, new = [await engine.open_repo(RepoRef.parse(name)) for name in (RENAMED, MODEL)]
    assert await read(old, "config.json", 0, 100) == await read(new, "config.json", 0, 100)
    tally.append(f"{RENAMED} is read under its old name")


async def test_a_folder_of_several_pages(engine: Engine, http: httpx.AsyncClient, tally: list[str]) -> None:
    repo, folder = WIDE
    view = await engine.open_repo(RepoRef.parse(repo))
    names = {node.name for node in await view.children(await find(view, folder))}
    assert len(names) > 1000
    page = await http.get(f"/api/{repo}/tree/main/{folder}")
    limit = {name: value for name, value in page.headers.items() if name.startswith("ratelimit")}
    tally.append(
        f"{repo}/{folder}: {len(names)} entries; a page has {len(page.json())}, Link {page.links.get('next') is not None}"
    )
    tally.append(f"rate limit headers: {limit or 'none'}")


async def test_the_proof_question(plan: Plan, http: httpx.AsyncClient, tally: list[str]) -> None:
    headers = {**plan.headers, "X-Range-Dirty": "bytes=0-99999"}
    del headers["Range"]
    started = trio.current_time()
    answer = await http.get(f"{plan.cas_url}/v2/file-chunk-hashes/{plan.file}", headers=headers)
    took = trio.current_time() - started
    coding = answer.headers.get("content-encoding", "as it is")
    tally.append(f"proof question: {answer.status_code} after {took:.2f} s, {len(answer.content)} bytes, {coding}")
    if answer.is_success:
        assert answer.json()["windows"]
    else:
        tally.append(f"  it says: {answer.text[:200]!r}")


async def test_a_plan_reads_as_we_read_plans(plan: Plan, tally: list[str]) -> None:
    parsed = parse_reconstruction(json.dumps(plan.body).encode(), 2)
    assert MerkleHash.from_hex(plan.file)
    hosts = sorted({host(entry["url"]) for entries in plan.body["xorbs"].values() for entry in entries})
    names = sorted(httpx.URL(plan.ranges()[0]).params.keys())
    tally.append(f"plan of 100 MB: {len(parsed.terms)} terms, {len(plan.body['xorbs'])} xorbs, from {', '.join(hosts)}")
    tally.append(f"  CAS {host(plan.cas_url)}; the URL's arguments: {', '.join(names)}")


async def test_one_range_several_ranges_and_a_foreign_one(plan: Plan, http: httpx.AsyncClient, tally: list[str]) -> None:
    url, ranges = plan.ranges()
    (first, last), *_ = ranges
    one = await http.get(url, headers={"Range": f"bytes={first}-{last}"})
    assert one.status_code in (200, 206)
    assert len(one.content) == last - first + 1
    tally.append(f"one range: {one.status_code}, Content-Range {one.headers.get('content-range')}")
    several = await http.get(url, headers={"Range": "bytes=" + ",".join(f"{a}-{b}" for a, b in ranges)})
    kind = several.headers.get("content-type", "").partition(";")[0]
    tally.append(f"all {len(ranges)} ranges of the URL: {several.status_code} {kind}, {len(several.content)} bytes")
    foreign = await http.get(url, headers={"Range": f"bytes={first}-{last + 1}"})
    tally.append(f"a range that was not signed: {foreign.status_code} {foreign.text[:120]!r}")
    part = await http.get(url, headers={"Range": f"bytes={first}-{(first + last) // 2}"})
    tally.append(f"half of a signed range: {part.status_code}, {len(part.content)} bytes")
