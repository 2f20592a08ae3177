"""HubClient: its questions as the Hub expects them, and every refusal as the error that says what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import pytest
import trio
from loopback import CANARY, Asked, Handler, answer, client_of, hub_at, ranged, serving

from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    InvalidArgument,
    ProtocolViolation,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
    XetfsError,
)
from xetfs.hub.client import HubClient
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.tree import RepoInfo
from xetfs.secret import Secret
from xetfs.telemetry import HUB_BYTES, HUB_REQUESTS, HUB_TOKEN_REFRESHES

REPO = RepoId("model", "acme/demo")
COMMIT = CommitId("d92e49681370bceb144bcbecb0af679dbe2655ff")
INFO = RepoInfo(REPO, COMMIT, 0, private=False, gated=True, disabled=False)
DATA = bytes(range(251)) * 40

Use = Callable[[HubClient], Awaitable[object]]


async def with_hub(handler: Handler, use: Use, *, token: str | None = None, **choices: object) -> tuple[list[Asked], object]:
    """Serve, call `use`, and give back what was asked and what it returned."""
    secret = Secret(token) if token else None
    async with serving(handler) as server, client_of(server.url, **choices) as http:
        return server.asked, await use(HubClient(http, hub_at(server.url, secret)))


async def failing(handler: Handler, use: Use, *, token: str | None = None, **choices: object) -> tuple[list[Asked], XetfsError]:
    """The same, for a use that fails."""
    caught: XetfsError | None = None

    async def guarded(hub: HubClient) -> None:
        nonlocal caught
        try:
            await use(hub)
        except XetfsError as error:
            caught = error

    asked, _ = await with_hub(handler, guarded, token=token, **choices)
    assert caught is not None, "nothing was raised"
    return asked, caught


def info_json(name: str = "acme/demo", **more: object) -> bytes:
    plain = {"id": name, "sha": COMMIT, "lastModified": "2026-11-21T07:01:41.000Z", "private": False, "gated": False}
    return json.dumps({**plain, "disabled": False, **more}).encode()


# Repo info


@pytest.mark.parametrize(
    ("repo", "revision", "target"),
    [
        (REPO, "main", "/api/models/acme/demo/revision/main"),
        (RepoId("dataset", "acme/data"), "v1.0", "/api/datasets/acme/data/revision/v1.0"),
        (RepoId("space", "acme/app"), "refs/pr/1", "/api/spaces/acme/app/revision/refs%2Fpr%2F1"),
        (RepoId("model", "gpt2"), "a b".replace(" ", "+%#"), "/api/models/gpt2/revision/a%2B%25%23b"),
    ],
)
async def test_a_revision_is_one_segment_of_the_url(repo: RepoId, revision: str, target: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, info_json(repo.name))

    asked, info = await with_hub(handler, lambda hub: hub.repo_info(repo, revision), token=CANARY)
    assert isinstance(info, RepoInfo)
    assert (info.repo, info.commit, info.modified_s) == (repo, COMMIT, 1795244501)
    assert [request.target for request in asked] == [target]
    assert asked[0].headers["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("revision", ["", "a b", "../x", "x\n", "a?b"])
async def test_what_cannot_be_a_revision_is_not_asked_for(revision: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, info_json())

    asked, error = await failing(handler, lambda hub: hub.repo_info(REPO, revision))
    assert isinstance(error, InvalidArgument)
    assert not asked


async def test_a_renamed_repo_is_found_under_its_new_name() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        if asked.path.startswith("/api/models/old/"):
            return answer(307, b"moved", location="/api/models/acme/demo/revision/main")
        return answer(200, info_json())

    asked, info = await with_hub(handler, lambda hub: hub.repo_info(RepoId("model", "old/name"), "main"))
    assert isinstance(info, RepoInfo)
    assert info.repo == REPO
    assert [request.connection for request in asked] == [1, 1], "the redirect's short body was not worth a connection"


async def test_a_disabled_repo_is_refused() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, info_json(disabled=True))

    _, error = await failing(handler, lambda hub: hub.repo_info(REPO, "main"))
    assert isinstance(error, AccessDenied)


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "message", "token", "expected", "hint"),
    [
        (404, "RepoNotFound", "Repository not found", CANARY, RepoNotFound, "whether this token may see it"),
        (401, "RepoNotFound", "Invalid username or password.", None, RepoNotFound, "HF_TOKEN"),
        (401, "", "Invalid username or password.", None, RepoNotFound, "HF_TOKEN"),
        (401, "", "Invalid credentials in Authorization header", CANARY, AuthRequired, "wrong or expired"),
        (401, "GatedRepo", "Access to model is restricted", None, AuthRequired, "accept its terms on http://127.0.0.1"),
        (403, "GatedRepo", "Access to model is restricted", CANARY, AccessDenied, "/acme/demo"),
        (404, "RevisionNotFound", "Invalid rev id: foo", CANARY, RevisionNotFound, "branches and tags"),
        (404, "RevisionNotFound", "Invalid rev id: foo", None, RevisionNotFound, "branches and tags"),
        (404, "EntryNotFound", "Entry not found", None, EntryNotFound, ""),
        (404, "", "", None, EntryNotFound, ""),
        (403, "", "Access to this resource is disabled.", CANARY, AccessDenied, "disabled"),
        (403, "", "no", CANARY, AccessDenied, "read access"),
        (416, "", "", None, XetfsError, ""),
        (501, "", "", None, ProtocolViolation, ""),
        (451, "", "Unavailable For Legal Reasons in your country", None, AccessDenied, "in your country"),
        (400, "", "Your organization has disabled this endpoint", None, ProtocolViolation, "has disabled this endpoint"),
        (403, "", "Private repository storage limit reached", CANARY, AccessDenied, "storage limit reached"),
        (401, "", "User Access Token hf_secretsecret is expired", CANARY, AuthRequired, "User Access Token … is expired"),
        (418, "", "", None, ProtocolViolation, ""),
        (204, "", "", None, ProtocolViolation, ""),
        (503, "", "", None, Unavailable, ""),
    ],
)
async def test_refusals(
    status: int,
    code: str,
    message: str,
    token: str | None,
    expected: type[XetfsError],
    hint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        codes = {"x_error_code": code} if code else {}
        return answer(status, b'{"error":"..."}', x_error_message=message, **codes)

    for use in (
        lambda hub: hub.repo_info(REPO, "foo"),
        lambda hub: hub.xet_token(REPO, COMMIT),
        lambda hub: _collect(hub, "sub"),
        lambda hub: hub.fetch_file(REPO, COMMIT, "a.txt", ByteRange(0, 5), 10, memoryview(bytearray(5))),
    ):
        _, error = await failing(handler, use, token=token, attempts_max=1)
        assert isinstance(error, expected)
        assert hint in str(error)
        assert CANARY not in str(error)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"Access from your IP is blocked"}', "Access from your IP is blocked"),
        (b'{"message":"no such thing"}', "no such thing"),
        (b'{"errors":[{"message":"one"},{"message":"two"}]}', "one"),
        (b'{"error":{"message":"deep"}}', "deep"),
        (b'{"error":"a\\nb\\u001b[31mc\\u202ed\\u0000"}', "a b [31mc d"),
        (b'{"error":"see https://hub.example/x?token=abc#y for more"}', "see https://hub.example/x?… for more"),
        (b'{"error":"Bearer abcdef is not hf_oauth_eyJa.b-c"}', "… is not …"),
        (b'{"error":"' + b"x" * 5000 + b'"}', "x" * 199 + "…"),
        (b'{"error":5}', ""),
        (b'{"error":[]}', ""),
        (b'["error"]', ""),
        (b"[" * 60_000, ""),
        (b'{"error":"' + b"x" * 100_000 + b'"}', ""),
        (b"<html><title>451</title></html>", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
async def test_the_servers_own_words_are_shown_in_one_clean_line(body: bytes, words: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(451, body)

    _, error = await failing(handler, lambda hub: hub.repo_info(REPO, "main"))
    assert isinstance(error, AccessDenied)
    start = "acme/demo@main: not available for legal reasons (451)"
    assert str(error) == (f"{start}: {words}" if words else start)


# Readability


async def test_an_open_repo_needs_no_question() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(500)

    open_to_all = RepoInfo(REPO, COMMIT, 0, private=False, gated=False, disabled=False)
    asked, _ = await with_hub(handler, lambda hub: hub.check_readable(open_to_all))
    assert not asked


@pytest.mark.parametrize(("token", "expected"), [(None, AuthRequired), (CANARY, AccessDenied)])
async def test_a_gated_repo_fails_early(token: str | None, expected: type[XetfsError]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(401 if token is None else 403, x_error_code="GatedRepo")

    asked, error = await failing(handler, lambda hub: hub.check_readable(INFO), token=token)
    assert isinstance(error, expected)
    assert [request.path for request in asked] == [f"/api/models/acme/demo/xet-read-token/{COMMIT}"]


@pytest.mark.parametrize("granted", ["redirect", "range", "whole", "empty", ""])
async def test_a_hub_without_xet_is_asked_for_a_files_first_byte(granted: str) -> None:
    """Not for its headers: mirrors and proxies may not answer HEAD requests."""
    listing = [{"type": "directory", "oid": "1" * 40, "size": 0, "path": "sub"}, _file("a b.txt")]

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if "/xet-read-token/" in asked.path:
            return answer(404)
        if "/tree/" in asked.path:
            return answer(200, json.dumps(listing).encode())
        if asked.method == "HEAD":
            return answer(405)
        match granted:
            case "redirect":
                return answer(302, b"see there", location="http://10.0.0.1/not-to-be-asked")
            case "range":
                return answer(206, b"x", content_range="bytes 0-0/17")
            case "whole":
                return answer(200, bytes(20 << 20))
            case "empty":
                return answer(416, content_range="bytes */0")
        return answer(403, x_error_code="GatedRepo")

    use: Use = lambda hub: hub.check_readable(INFO)  # noqa: E731
    if granted:
        asked, _ = await with_hub(handler, use, token=CANARY)
    else:
        asked, error = await failing(handler, use, token=CANARY)
        assert isinstance(error, AccessDenied)
    assert (asked[-1].method, asked[-1].target) == ("GET", f"/acme/demo/resolve/{COMMIT}/a%20b.txt")
    assert asked[-1].headers["range"] == "bytes=0-0"


# Listings


def _file(path: str, size: int = 1) -> dict[str, object]:
    return {"type": "file", "oid": "2" * 40, "size": size, "path": path}


async def _collect(hub: HubClient, path: str) -> list[str]:
    return [entry.path async for page in hub.tree_pages(REPO, COMMIT, path) for entry in page.entries]


async def test_pages_are_followed_to_the_last() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        number = int(asked.target.partition("cursor=")[2] or 0)
        if number == 3:
            return answer(200, json.dumps([_file("p3")]).encode())
        following = f"http://{asked.headers['host']}{asked.path}?limit=1000&cursor={number + 1}"
        return answer(200, json.dumps([_file(f"p{number}")]).encode(), link=f'<{following}>; rel="next"')

    asked, paths = await with_hub(handler, lambda hub: _collect(hub, ""), token=CANARY)
    assert paths == ["p0", "p1", "p2", "p3"]
    assert asked[0].target == f"/api/models/acme/demo/tree/{COMMIT}?recursive=false&expand=false&limit=1000"
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in asked)


@pytest.mark.parametrize("path", ["sub/dir", "a b", "50%", "q?x#y", "ünï/日本", "a+b&c=d", "%2F"])
async def test_paths_are_escaped_and_their_slashes_kept(path: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"[]")

    asked, _ = await with_hub(handler, lambda hub: _collect(hub, path))
    target = asked[0].path.partition(f"/tree/{COMMIT}/")[2]
    assert unquote(target) == path
    assert target.count("/") == path.count("/")


@pytest.mark.parametrize("path", ["..", "a/../b", "a//b", "/a", "a/", ".", "\ud800"])
async def test_paths_that_no_url_can_carry_do_not_exist(path: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"[]")

    asked, error = await failing(handler, lambda hub: _collect(hub, path))
    assert isinstance(error, EntryNotFound)
    assert not asked


TREE = f"/api/models/acme/demo/tree/{COMMIT}"


@pytest.mark.parametrize("prefix", ["", "/artifactory/api/hf", "/api/models/mirror"])
@pytest.mark.parametrize(
    "link",
    [
        "?cursor=1",
        "{path}?cursor=1",
        "http://127.0.0.1:9{path}?cursor=1",
        "https://huggingface.co{tree}?cursor=1",
        "https://huggingface.co/another/prefix{tree}?cursor=1",
        "//evil.example{path}?cursor=1",
        "{tree}?cursor=1",
    ],
)
async def test_the_next_page_is_asked_for_at_the_endpoint_whatever_host_the_link_names(prefix: str, link: str) -> None:
    """Mirrors and proxies rewrite bodies and not headers. The token goes to nobody else."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        if "cursor=1" in asked.target:
            return answer(200, json.dumps([_file("last")]).encode())
        named = link.format(path=prefix + TREE, tree=TREE)
        return answer(200, json.dumps([_file("first")]).encode(), link=f'<{named}>; rel="next"')

    async with serving(handler) as server, client_of(server.url + prefix) as http:
        assert await _collect(HubClient(http, hub_at(server.url + prefix, Secret(CANARY))), "") == ["first", "last"]
    assert [request.path for request in server.asked] == [prefix + TREE] * 2
    assert server.asked[1].target == f"{prefix}{TREE}?cursor=1"
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in server.asked)


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:9/elsewhere",
        "https://evil.example/x",
        "//evil.example/x",
        "/api/whoami-v2",
        "/api/models/acme/demo/xet-read-token/main",
        "http://user@127.0.0.1/api/models/acme/demo/tree/main",
        "file:///api/models/acme/demo/tree/main",
        "http://[x/api/models/acme/demo/tree/main",
    ],
)
async def test_a_next_page_that_is_no_listing_is_refused(link: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"[]", link=f'<{link}>; rel="next"')

    asked, error = await failing(handler, lambda hub: _collect(hub, ""), token=CANARY)
    assert isinstance(error, ProtocolViolation)
    assert len(asked) == 1


@pytest.mark.parametrize("rewritten", [True, False])
async def test_an_endpoint_with_a_path(rewritten: bool) -> None:
    """As a repository manager's, which may or may not put its own path before those that the Hub redirects to."""
    prefix = "/artifactory/api/hf"
    before = prefix if rewritten else ""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        path = asked.path.removeprefix(prefix)
        assert path != asked.path
        if path.startswith("/api/models/old/name/"):
            return answer(307, location=f"{before}/api/models/acme/demo/revision/main")
        if path.startswith("/api/resolve-cache/"):
            return answer(200, DATA)
        if path.startswith("/acme/demo/resolve/"):
            return answer(307, location=f"{before}/api/resolve-cache/models/acme/demo/{COMMIT}/x?etag=%22e%22")
        return answer(200, info_json())

    async with serving(handler) as server, client_of(server.url + prefix) as http:
        hub = HubClient(http, hub_at(server.url + prefix, Secret(CANARY)))
        info = await hub.repo_info(RepoId("model", "old/name"), "main")
        assert info.repo == REPO
        assert await _read(hub, None) == DATA
    assert len(server.asked) == 4
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in server.asked)


async def test_pages_that_go_round_in_a_circle_end() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        cursor = {"": "1", "1": "2", "2": "1"}[asked.target.partition("cursor=")[2]]
        return answer(200, b"[]", link=f'<?cursor={cursor}>; rel="next"')

    asked, error = await failing(handler, lambda hub: _collect(hub, ""))
    assert isinstance(error, ProtocolViolation)
    assert "circle" in str(error)
    assert len(asked) == 3


async def test_a_listing_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xetfs.hub.client.ENTRIES_MAX", 2500)
    page = json.dumps([_file(f"f{number}") for number in range(1000)]).encode()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        number = int(asked.target.partition("cursor=")[2] or 0)
        return answer(200, page, link=f'<?cursor={number + 1}>; rel="next"')

    asked, error = await failing(handler, lambda hub: _collect(hub, ""))
    assert isinstance(error, ProtocolViolation)
    assert "2500 entries" in str(error)
    assert len(asked) == 3
    monkeypatch.setattr("xetfs.hub.client.PAGES_MAX", 2)
    asked, error = await failing(handler, lambda hub: _collect(hub, ""))
    assert "2 pages" in str(error)
    assert len(asked) == 2


@pytest.mark.parametrize("body", [b"<html>Sign in to the hotel's network</html>", b"{}", b"", b"[{}]", b"[" * 100_000])
async def test_a_portal_in_place_of_a_listing_is_an_error(body: bytes) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, body, content_type="text/html")

    _, error = await failing(handler, lambda hub: _collect(hub, ""))
    assert isinstance(error, ProtocolViolation)


# Tokens


async def test_the_cas_token_is_asked_for_every_time() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, json.dumps({"casUrl": "http://127.0.0.1:9999", "accessToken": "xet_x", "exp": 1}).encode())

    async def use(hub: HubClient) -> object:
        await hub.xet_token(REPO, COMMIT)
        token = await hub.xet_token(REPO, COMMIT)
        assert hub._http.counters[HUB_TOKEN_REFRESHES] == hub._http.counters[HUB_REQUESTS] == 2
        assert hub._http.counters[HUB_BYTES] > 0
        return token.cas_url

    asked, url = await with_hub(handler, use)
    assert (len(asked), url) == (2, "http://127.0.0.1:9999")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "http://169.254.169.254", "file:///etc", "http://u@127.0.0.1", "http://127.0.0.1:22"]
)
async def test_a_cas_in_a_place_that_is_not_the_hubs_to_name_is_refused(url: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, json.dumps({"casUrl": url, "accessToken": CANARY, "exp": 1}).encode())

    _, error = await failing(handler, lambda hub: hub.xet_token(REPO, COMMIT))
    assert isinstance(error, ProtocolViolation)
    assert CANARY not in str(error)


# Files that are not in Xet


async def _read(hub: HubClient, span: ByteRange | None, size: int = len(DATA), path: str = "dir/a b.bin") -> bytes:
    into = bytearray(size if span is None else len(span))
    await hub.fetch_file(REPO, COMMIT, path, span, size, memoryview(into))
    return bytes(into)


async def test_an_lfs_file_is_read_through_its_redirect_without_the_token() -> None:
    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked)

    async with serving(cdn) as storage:

        async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
            return answer(302, b"see there", location=f"{storage.url}/signed?X-Signature=s%2B1", x_linked_size=str(len(DATA)))

        asked, data = await with_hub(handler, lambda hub: _read(hub, ByteRange(100, 900)), token=CANARY)
        assert data == DATA[100:900]
        assert asked[0].target == f"/acme/demo/resolve/{COMMIT}/dir/a%20b.bin"
        assert asked[0].headers["authorization"] == f"Bearer {CANARY}"
        assert storage.asked[0].target == "/signed?X-Signature=s%2B1"
        assert storage.asked[0].headers["range"] == "bytes=100-899"
        assert storage.asked[0].headers["accept-encoding"] == "identity"
        assert CANARY not in repr(storage.asked)


async def test_a_plain_file_is_read_whole_through_the_resolve_cache() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        if asked.path.startswith("/api/resolve-cache/"):
            return answer(200, DATA)
        return answer(307, location=f"/api/resolve-cache/models/acme/demo/{COMMIT}/x?etag=%22e%22")

    asked, data = await with_hub(handler, lambda hub: _read(hub, None), token=CANARY)
    assert data == DATA
    assert "range" not in asked[1].headers
    assert asked[1].headers["authorization"] == f"Bearer {CANARY}"


async def test_an_expired_redirect_is_asked_for_again() -> None:
    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(403) if asked.target.endswith("=1") else ranged(DATA, asked)

    async with serving(cdn) as storage:
        count = 0

        async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
            nonlocal count
            count += 1
            return answer(302, location=f"{storage.url}/x?try={count}")

        _, data = await with_hub(handler, lambda hub: _read(hub, ByteRange(0, 10)))
        assert (data, count) == (DATA[:10], 2)


async def test_a_body_that_breaks_off_is_fetched_again() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.connection == 1:
            await stream.send_all(ranged(DATA, asked)[:-500])
            return None
        return ranged(DATA, asked)

    asked, data = await with_hub(handler, lambda hub: _read(hub, ByteRange(7, 5007)))
    assert data == DATA[7:5007]
    assert len(asked) == 2


@pytest.mark.parametrize("span", [None, ByteRange(7, 5007)])
@pytest.mark.parametrize("change", [-50, 50])
async def test_a_body_of_the_wrong_length_is_fetched_again_on_another_connection(span: ByteRange | None, change: int) -> None:
    """Though its Content-Length is that of its bytes."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        reply = ranged(DATA, asked) if "range" in asked.headers else answer(200, DATA)
        if asked.connection > 1:
            return reply
        head, _, body = reply.partition(b"\r\n\r\n")
        other = body[:change] if change < 0 else body + bytes(change)
        return head.replace(b"length: %d" % len(body), b"length: %d" % len(other)) + b"\r\n\r\n" + other

    asked, data = await with_hub(handler, lambda hub: _read(hub, span))
    assert data == (DATA if span is None else DATA[7:5007])
    assert [request.connection for request in asked] == [1, 2]


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_a_file_of_another_size_than_listed_is_refused(size: int) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked) if "range" in asked.headers else answer(200, DATA)

    for span in (None, ByteRange(0, 10)):
        _, error = await failing(handler, lambda hub, span=span: _read(hub, span, size))  # type: ignore[misc]
        assert isinstance(error, ProtocolViolation)


async def test_an_empty_range_asks_nobody_and_a_wrong_buffer_is_a_mistake() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(500)

    asked, data = await with_hub(handler, lambda hub: _read(hub, None, 0))
    assert (asked, data) == ([], b"")

    async def use(hub: HubClient) -> None:
        with pytest.raises(ValueError):
            await hub.fetch_file(REPO, COMMIT, "a", ByteRange(0, 5), 10, memoryview(bytearray(4)))
        with pytest.raises(ValueError):
            await hub.fetch_file(REPO, COMMIT, "a", ByteRange(6, 11), 10, memoryview(bytearray(5)))

    await with_hub(handler, use)
