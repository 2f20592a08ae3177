"""Commits, refs, pull requests, renames: what the real client asks for is what later listings show."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from xetfs.errors import EntryNotFound, RevisionNotFound, StoreFailed
from xetfs.testhub import HubOptions, TestHub, open_test_hub
from xetfs.testhub.trees import EMPTY_TREE_OID, Entry, TreeEditor, blob_oid, make_tree, pointer_text

OPERATIONS = """
api.create_repo("local/git")
first = api.create_commit("local/git", [
    CommitOperationAdd("keep.txt", b"keep"), CommitOperationAdd("drop.txt", b"drop"),
    CommitOperationAdd("folder/a.txt", b"a"), CommitOperationAdd("folder/b.txt", b"b"),
    CommitOperationAdd("data.bin", bytes(range(256)) * 100)], commit_message="first", commit_description="with words")
second = api.create_commit("local/git", [
    CommitOperationDelete("drop.txt"), CommitOperationDelete("folder/"),
    CommitOperationCopy("keep.txt", "copy.txt"), CommitOperationCopy("data.bin", "sub/data.bin")],
    commit_message="second", parent_commit=first.oid)
assert sorted(api.list_repo_files("local/git")) == ["copy.txt", "data.bin", "keep.txt", "sub/data.bin"]
assert sorted(api.list_repo_files("local/git", revision=first.oid)) == [
    "data.bin", "drop.txt", "folder/a.txt", "folder/b.txt", "keep.txt"]
titles = [commit.title for commit in api.list_repo_commits("local/git")]
assert titles == ["second", "first", "initial commit"], titles
last = {e.path: e.last_commit.title for e in api.list_repo_tree("local/git", expand=True, recursive=True)}
assert last == {"copy.txt": "second", "data.bin": "first", "keep.txt": "first", "sub": "second", "sub/data.bin": "second"}, last

try:
    api.create_commit("local/git", [CommitOperationAdd("x", b"x")], commit_message="late", parent_commit=first.oid)
    raise SystemExit("a commit on an old parent was taken")
except HfHubHTTPError as error:
    assert error.response.status_code == 412

api.create_branch("local/git", branch="side/way", revision=first.oid)
api.create_tag("local/git", tag="v1", revision=first.oid)
pr = api.create_commit("local/git", [CommitOperationAdd("pr.txt", b"pr")], commit_message="ask", create_pr=True)
assert pr.pr_revision == "refs/pr/1"
refs = api.list_repo_refs("local/git", include_pull_requests=True)
assert {ref.name for ref in refs.branches} == {"main", "side/way"}
assert refs.tags[0].target_commit == first.oid and refs.pull_requests[0].target_commit == pr.oid
upload = api.upload_file(path_or_fileobj=b"on a branch", path_in_repo="new.txt", repo_id="local/git", revision="side/way")
for revision in ("side/way", upload.oid):
    assert pathlib.Path(hf_hub_download("local/git", "new.txt", revision=revision)).read_bytes() == b"on a branch"
assert pathlib.Path(hf_hub_download("local/git", "drop.txt", revision="v1")).read_bytes() == b"drop"
assert pathlib.Path(hf_hub_download("local/git", "pr.txt", revision="refs/pr/1")).read_bytes() == b"pr"
infos = api.get_paths_info("local/git", ["sub", "keep.txt", "nowhere", "data.bin"], revision="main")
assert [info.path for info in infos] == ["sub", "keep.txt", "data.bin"]
assert infos[2].xet_hash and infos[2].lfs.size == 25600

api.move_repo("local/git", "local/renamed")
assert api.repo_info("local/git").id == "local/renamed"
assert pathlib.Path(hf_hub_download("local/git", "keep.txt", force_download=True)).read_bytes() == b"keep"
assert pathlib.Path(hf_hub_download("local/git", "data.bin", force_download=True)).read_bytes() == bytes(range(256)) * 100
info = api.repo_info("local/renamed", files_metadata=True)
assert {s.rfilename: s.size for s in info.siblings}["sub/data.bin"] == 25600
assert [model.id for model in api.list_models(author="local")] == ["local/renamed"]
api.delete_tag("local/renamed", tag="v1")
api.delete_branch("local/renamed", branch="side/way")
assert [ref.name for ref in api.list_repo_refs("local/renamed").branches] == ["main"]
api.update_repo_settings("local/renamed", private=True, gated="auto")
info = api.repo_info("local/renamed")
assert info.private and info.gated == "auto"
api.delete_repo("local/renamed")
assert not api.repo_exists("local/renamed")
"""
REFUSALS = """
def expect(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise SystemExit(f"{call} {args} did not raise {kind}")

expect(RepositoryNotFoundError, api.repo_info, "local/nothing")
api.create_repo("local/some")
assert expect(HfHubHTTPError, api.create_repo, "local/some").response.status_code == 409
expect(RevisionNotFoundError, api.repo_info, "local/some", revision="nowhere")
expect(RevisionNotFoundError, api.list_repo_files, "local/some", revision="f" * 40)
expect(EntryNotFoundError, hf_hub_download, "local/some", "nothing.txt")
expect(EntryNotFoundError, lambda: list(api.list_repo_tree("local/some", "nowhere")))
expect(BadRequestError, api.create_commit, "local/some", [CommitOperationDelete("nothing")], commit_message="no")
"""


async def test_everything_a_client_does_to_a_repo(run_client) -> None:
    await run_client(OPERATIONS)


async def test_refusals_are_those_the_client_knows(run_client) -> None:
    await run_client(REFUSALS)


async def test_an_old_name_without_an_owner_leads_to_the_repo(hub: TestHub, run_client) -> None:
    repo = hub.storage.create_repo("model", "somebody/gpt2")
    hub.storage.commit_files(repo, {"config.json": b"{}"})
    hub.storage.add_old_name(repo, "gpt2")
    await run_client("""
assert api.repo_info("gpt2").id == "somebody/gpt2"
assert pathlib.Path(hf_hub_download("gpt2", "config.json")).read_bytes() == b"{}"
assert api.list_repo_files("gpt2") == ["config.json"]
""")
    assert any(request.status == 307 for request in hub.requests("hub"))


async def test_redirects_are_relative_and_keep_the_rest(hub: TestHub, http: httpx.AsyncClient) -> None:
    repo = hub.storage.create_repo("dataset", "new/name")
    hub.storage.add_old_name(repo, "old/name")
    hub.storage.add_old_name(repo, "squad")
    for asked, leads_to in {
        "/api/datasets/old/name/tree/refs%2Fpr%2F1/a%20b?limit=3": "/api/datasets/new/name/tree/refs%2Fpr%2F1/a%20b?limit=3",
        "/api/datasets/squad": "/api/datasets/new/name",
        "/datasets/squad/resolve/main/x.txt": "/datasets/new/name/resolve/main/x.txt",
    }.items():
        answer = await http.get(hub.endpoint + asked)
        assert (answer.status_code, answer.headers["location"]) == (307, leads_to)


def test_ids_are_those_of_git() -> None:
    assert blob_oid(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_oid(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert EMPTY_TREE_OID == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    editor = TreeEditor(lambda oid: {}, EMPTY_TREE_OID)
    editor.put("test.txt", Entry("", False, blob_oid(b"version 1\n"), 10))
    # The first tree of the Pro Git book, "Git Objects".
    assert editor.write(lambda oid, stored, tree: None) == "d8329fc1cc938780ffdd9f94e0d364e0ea74f579"
    digest = hashlib.sha256(b"").hexdigest()
    assert pointer_text(digest, 12345).decode().splitlines()[1:] == [f"oid sha256:{digest}", "size 12345"]


def test_directories_are_sorted_as_by_git() -> None:
    entries = {name: Entry(name, is_directory, "0" * 40) for name, is_directory in (("a", True), ("a.b", False), ("a0", False))}
    assert list(make_tree(entries)[2]) == ["a.b", "a", "a0"]  # as if it were called "a/"


async def test_a_hub_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    async with open_test_hub(tmp_path / "hub") as hub:
        repo = hub.storage.create_repo("model", "o/r")
        chunks = [bytes([number]) * 10_000 for number in range(5)]
        file, stored = hub.xet.add_file_from_chunks(chunks)
        commit = hub.storage.commit_files(repo, {"x.bin": stored, "plain": b"text"}, time_s=1_700_000_000)
        hub.accounts.add_token("hf_secret", "someone", "read")
    async with open_test_hub(tmp_path / "hub") as hub:
        repo = hub.storage.require_repo("model", "o/r")
        assert hub.storage.commit(repo, "main") == commit
        assert b"".join(hub.xet.read(hub.xet.record(file))) == b"".join(chunks)
        assert hub.storage.blob(hub.storage.entry(commit, "plain").oid) == b"text"
        assert b"hf_secret" not in (tmp_path / "hub" / "hub.sqlite").read_bytes()
        async with httpx.AsyncClient() as http:
            headers = {"Authorization": "Bearer hf_secret"}
            answer = await http.get(f"{hub.endpoint}/api/models/o/r/tree/main?expand=true", headers=headers)
        assert [entry["lastCommit"]["date"] for entry in answer.json()] == ["2023-11-14T22:13:20.000Z"] * 2


async def test_a_directory_belongs_to_one_hub_at_a_time(tmp_path: Path) -> None:
    async with open_test_hub(tmp_path / "hub"):
        with pytest.raises(StoreFailed, match="no other hub"):
            async with open_test_hub(tmp_path / "hub"):
                pytest.fail("two hubs in one directory")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed):
        async with open_test_hub(tmp_path / "file"):
            pytest.fail("a hub in a file")


async def test_a_directory_of_100_000_files_is_listed_page_by_page(tmp_path: Path, http: httpx.AsyncClient) -> None:
    async with open_test_hub(tmp_path / "hub", options=HubOptions(page_size=700)) as hub:
        repo = hub.storage.create_repo("model", "o/large")
        hub.storage.commit_files(repo, {f"many/file-{number:06}": b"%d" % number for number in range(100_000)})
        names: list[str] = []
        url = f"{hub.endpoint}/api/models/o/large/tree/main/many?limit=1000"
        while url:
            answer = await http.get(url)
            names += [entry["path"] for entry in answer.json()]
            url = answer.links.get("next", {}).get("url", "")
        assert names == [f"many/file-{number:06}" for number in range(100_000)]
        assert len(hub.requests("hub")) == 143
        expanded = await http.get(f"{hub.endpoint}/api/models/o/large/tree/main/many?limit=1000&expand=true")
        assert len(expanded.json()) == 50


async def test_what_is_committed_is_what_is_found(hub: TestHub) -> None:
    repo = hub.storage.create_repo("model", "o/r")
    first = hub.storage.commit_files(repo, {"a/b/c": b"1", "d": b"2"})
    second = hub.storage.commit_files(repo, {"d": b"3"}, deleted_folders=["a"])
    assert hub.storage.blob(hub.storage.entry(first, "d").oid) == b"2"
    with pytest.raises(EntryNotFound):
        hub.storage.entry(second, "a/b/c")
    with pytest.raises(EntryNotFound):
        hub.storage.commit_files(repo, {}, deleted_files=["nothing"])
    with pytest.raises(RevisionNotFound):
        hub.storage.commit_files(repo, {"x": b""}, branch="nowhere")
    assert hub.storage.commit(repo, "main") == second
    assert hub.storage.commit(repo, first.oid[:9]) == first
    assert (
        json.dumps([commit.title for commit in hub.storage.history(repo, second)])
        == '["Add files", "Add files", "initial commit"]'
    )
