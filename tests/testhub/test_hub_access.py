"""Who may see, read and write what, and how the refusals look."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest

from xetfs.testhub import TestHub


def bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def users(hub: TestHub) -> TestHub:
    """alice owns two repos, one private and one gated; bob may read; both have tokens."""
    hub.accounts.add_token("hf_alice", "alice")
    hub.accounts.add_token("hf_alice_reads", "alice", "read")
    hub.accounts.add_token("hf_bob", "bob")
    hub.accounts.add_user("carol", organizations=("team",))
    hub.accounts.add_token("hf_carol", "carol")
    private = hub.storage.create_repo("model", "alice/private", private=True)
    gated = hub.storage.create_repo("model", "alice/gated")
    hub.storage.update_repo(gated, gated="manual")
    _, stored = hub.xet.add_file_from_chunks([b"content" * 5000])
    for repo in (private, gated):
        hub.storage.commit_files(repo, {"f.bin": stored, "plain.txt": b"text"})
    return hub


async def answer_to(http: httpx.AsyncClient, url: str, token: str | None) -> tuple[int, str, str]:
    answer = await http.get(url, headers=bearer(token) if token else {})
    return answer.status_code, answer.headers.get("x-error-code", ""), answer.headers.get("x-error-message", "")


async def test_a_private_repo_is_not_there_for_others(users: TestHub, http: httpx.AsyncClient) -> None:
    for path in ("/api/models/alice/private", "/api/models/alice/nothing", "/alice/private/resolve/main/plain.txt"):
        url = users.endpoint + path
        assert await answer_to(http, url, "hf_bob") == (404, "RepoNotFound", "Repository not found")
        assert await answer_to(http, url, None) == (401, "RepoNotFound", "Invalid username or password.")
    for path in ("", "/tree/main", "/refs", "/commits/main", "/xet-read-token/main"):
        url = f"{users.endpoint}/api/models/alice/private{path}"
        assert (await answer_to(http, url, "hf_bob"))[0] == 404
        assert (await answer_to(http, url, "hf_alice_reads"))[0] == 200
    listed = await http.get(f"{users.endpoint}/api/models", headers=bearer("hf_bob"))
    assert [repo["id"] for repo in listed.json()] == ["alice/gated"]


async def test_a_gated_repo_is_listed_but_not_read(users: TestHub, http: httpx.AsyncClient) -> None:
    base = f"{users.endpoint}/api/models/alice/gated"
    for token in (None, "hf_bob"):
        assert (await answer_to(http, f"{base}/tree/main", token))[0] == 200
        refused = 401 if token is None else 403
        for url in (
            f"{base}/xet-read-token/main",
            f"{base}/auth-check",
            f"{users.endpoint}/alice/gated/resolve/main/plain.txt",
            f"{users.endpoint}/alice/gated/resolve/main/f.bin",
        ):
            status, code, message = await answer_to(http, url, token)
            assert (status, code) == (refused, "GatedRepo")
            assert message.startswith("Access to model alice/gated is restricted")
    users.accounts.grant_access(users.storage.require_repo("model", "alice/gated"), "bob")
    assert (await answer_to(http, f"{base}/xet-read-token/main", "hf_bob"))[0] == 200


async def test_tokens_must_be_known_once_there_are_users(users: TestHub, http: httpx.AsyncClient) -> None:
    url = f"{users.endpoint}/api/models/alice/gated"
    assert await answer_to(http, url, "hf_mallory") == (401, "", "Invalid credentials in Authorization header")
    users.accounts.remove_token("hf_bob")
    assert (await answer_to(http, url, "hf_bob"))[0] == 401


async def test_a_disabled_repo(users: TestHub, http: httpx.AsyncClient) -> None:
    users.storage.update_repo(users.storage.require_repo("model", "alice/gated"), disabled=True)
    status, _, message = await answer_to(http, f"{users.endpoint}/alice/gated/resolve/main/plain.txt", "hf_alice")
    assert (status, message) == (403, "Access to this resource is disabled.")


async def test_writing_takes_a_writing_token_of_the_owner(users: TestHub, http: httpx.AsyncClient) -> None:
    create = f"{users.endpoint}/api/repos/create"
    expected = {"hf_alice_reads": 403, "hf_bob": 403, "hf_alice": 200}
    for token, status in expected.items():
        asked = {"name": "new", "organization": "alice"}
        assert (await http.post(create, json=asked, headers=bearer(token))).status_code == status
    assert (await http.post(create, json={"name": "anonymous"})).status_code == 401
    made = await http.post(create, json={"name": "shared", "organization": "team"}, headers=bearer("hf_carol"))
    assert made.json()["url"] == f"{users.endpoint}/team/shared"
    token_url = f"{users.endpoint}/api/models/alice/gated/xet-write-token/main"
    for token, status in expected.items():
        assert (await http.get(token_url, headers=bearer(token))).status_code == status


async def test_a_cas_token_is_for_its_repo_its_scope_and_its_time(users: TestHub, http: httpx.AsyncClient) -> None:
    other = users.storage.create_repo("model", "bob/empty")
    users.storage.commit_files(other, {"plain.txt": b""})
    answer = await http.get(f"{users.endpoint}/api/models/alice/private/xet-read-token/main", headers=bearer("hf_alice"))
    token = answer.json()["accessToken"]
    assert answer.headers["x-xet-access-token"] == token
    assert answer.headers["x-xet-cas-url"] == answer.json()["casUrl"] == users.cas_url
    assert int(answer.headers["x-xet-token-expiration"]) == answer.json()["exp"]
    tree = await http.get(f"{users.endpoint}/api/models/alice/private/tree/main", headers=bearer("hf_alice"))
    file = next(entry["xetHash"] for entry in tree.json() if "xetHash" in entry)
    url = f"{users.cas_url}/v2/reconstructions/{file}"
    assert (await http.get(url, headers=bearer(token))).status_code == 200
    assert (await http.get(url)).status_code == 401
    assert (await http.get(url, headers=bearer("hf_alice"))).status_code == 401
    assert (await http.get(url, headers=bearer(token[:-1] + ("0" if token[-1] != "0" else "1")))).status_code == 401
    assert (await http.post(f"{users.cas_url}/v2/shards", content=b"", headers=bearer(token))).status_code == 403
    foreign = await http.get(f"{users.endpoint}/api/models/bob/empty/xet-read-token/main", headers=bearer("hf_bob"))
    assert (await http.get(url, headers=bearer(foreign.json()["accessToken"]))).status_code == 404
    users.options.token_lifetime_s = -1
    expired = await http.get(f"{users.endpoint}/api/models/alice/private/xet-read-token/main", headers=bearer("hf_alice"))
    assert (await http.get(url, headers=bearer(expired.json()["accessToken"]))).status_code == 401


async def test_the_real_client_sees_what_it_would_at_the_real_hub(users: TestHub, run_client) -> None:
    await run_client(
        """
def expect(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind:
        return
    raise SystemExit(f"{call} {args} did not raise {kind}")

assert api.whoami()["name"] == "bob"
expect(RepositoryNotFoundError, api.repo_info, "alice/private")
expect(RepositoryNotFoundError, hf_hub_download, "alice/private", "f.bin")
assert api.list_repo_files("alice/gated") == ["f.bin", "plain.txt"]
expect(GatedRepoError, hf_hub_download, "alice/gated", "f.bin")
expect(GatedRepoError, hf_hub_download, "alice/gated", "f.bin", token=False)
expect(GatedRepoError, api.auth_check, "alice/gated")
content = pathlib.Path(hf_hub_download("alice/private", "f.bin", token="hf_alice_reads")).read_bytes()
assert content == b"content" * 5000
expect(HfHubHTTPError, api.upload_file, path_or_fileobj=b"", path_in_repo="x", repo_id="alice/private", token="hf_alice_reads")
""",
        token="hf_bob",
    )
