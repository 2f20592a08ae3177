"""The faults that docs/faults.md names, as rules of the test hub or as servers that do worse than it can.

Each is a function of bench, place and how often (None: always); some need more than a rule and stay open as a context.
"""

from __future__ import annotations

import errno
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final

import trio
from fault_bench import Bench, Place

from xetfs.net import sockets
from xetfs.testhub import HubOptions

Kind = Callable[[Bench, Place, int | None], AbstractAsyncContextManager[Any]]
CAS_TOKEN: Final = "xet_CANARYofTheCas"
PORTAL: Final = "<!doctype html><html><body>Welcome! Please log in to use this network.</body></html>"


def rule(action: str, **choices: Any) -> Kind:
    def install(bench: Bench, place: Place, count: int | None) -> AbstractAsyncContextManager[Any]:
        bench.fault(place, action, count, **choices)
        return nullcontext()

    return install


def answer(status: int, body: str = "", **headers: str) -> Kind:
    return rule("answer", status=status, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def option(**values: Any) -> Kind:
    def install(bench: Bench, place: Place, count: int | None) -> AbstractAsyncContextManager[Any]:
        for name, value in values.items():
            assert name in HubOptions.__slots__
            setattr(bench.hub.options, name, value)
        return nullcontext()

    return install


# The network


@asynccontextmanager
async def refused(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    bench.hub.servers[place.origin].refuse()  # type: ignore[index]
    yield


@asynccontextmanager
async def no_route(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    """Connections that exist are cut; no new one can be made."""

    async def connect(entry: object) -> socket.socket:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    bench.fault(place, "reset", None)
    real, sockets._connect_one = sockets._connect_one, connect
    try:
        yield
    finally:
        sockets._connect_one = real


def _cas_at(bench: Bench, place: Place, count: int | None, url: str) -> None:
    """The Hub says that the CAS is at `url`."""
    told = json.dumps({"casUrl": url, "accessToken": CAS_TOKEN, "exp": int(time.time()) + 3600})
    bench.fault(place, "answer", count, status=200, body=told)


def elsewhere(url: str) -> Kind:
    def install(bench: Bench, place: Place, count: int | None) -> AbstractAsyncContextManager[Any]:
        _cas_at(bench, place, count, url)
        return nullcontext()

    return install


@asynccontextmanager
async def unanswered(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    """A CAS whose queue of connections is full: the kernel drops what asks for another, as a firewall does."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        bench.more_ports.add(port)
        _cas_at(bench, place, count, f"http://127.0.0.1:{port}")
        yield


@asynccontextmanager
async def _listening(bench: Bench, place: Place, count: int | None, *, scheme: str, greeting: bytes) -> AsyncIterator[None]:
    """A CAS that takes a connection, says `greeting` and closes it."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(greeting)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners, handler_nursery=nursery))
        port = listeners[0].socket.getsockname()[1]
        bench.more_ports.add(port)
        _cas_at(bench, place, count, f"{scheme}://127.0.0.1:{port}")
        yield
        nursery.cancel_scope.cancel()


# Lies


def lie(change: Callable[[Any], None]) -> Kind:
    """The JSON answer, changed in place."""

    def rewrite(value: Any) -> Any:
        change(value)
        return value

    return rule("rewrite", rewrite=rewrite)


def _fetches(value: Any) -> list[Any]:
    return [entry for entries in value["xorbs"].values() for entry in entries]


def at_url(url: str) -> Kind:
    def change(value: Any) -> None:
        for fetch in _fetches(value):
            fetch["url"] = url

    return lie(change)


def _overlap(value: Any) -> None:
    ranges = _fetches(value)[0]["ranges"]
    ranges.append(json.loads(json.dumps(ranges[0])))


def _drop_last_term(value: Any) -> None:
    value["terms"].pop()


def _repeat_term(value: Any) -> None:
    value["terms"].append(value["terms"][0])


def _without_fetches(value: Any) -> None:
    value["xorbs"].clear()


def _negative(value: Any) -> None:
    _fetches(value)[0]["ranges"][0]["bytes"]["start"] = -1


def _longer_term(value: Any) -> None:
    value["terms"][0]["unpacked_length"] += 1


def _other_numbers(value: Any) -> None:
    """The chunks are those of the file, and said to be others of the xorb."""
    for term in value["terms"]:
        term["range"]["start"] -= 1
        term["range"]["end"] -= 1
    for fetch in _fetches(value):
        for part in fetch["ranges"]:
            part["chunks"]["start"] -= 1
            part["chunks"]["end"] -= 1


def _gap(value: Any) -> Any:
    return next(gap for gap in value["hashRanges"] if gap)


def _other_hash(value: Any) -> None:
    node = _gap(value)["nodes"][0]
    node["hash"] = ("0" if node["hash"][0] != "0" else "1") + node["hash"][1:]


def _other_sizes(value: Any) -> None:
    nodes = _gap(value)["nodes"]
    nodes[0]["size"] += 1
    nodes[-1]["size"] -= 1


def _swap_nodes(value: Any) -> None:
    nodes = _gap(value)["nodes"]
    nodes[0], nodes[-1] = nodes[-1], nodes[0]


def _shift_window(value: Any) -> None:
    edges = value["windows"][0]["dirtyByteRange"]
    edges[0] -= 1
    edges[1] -= 1


def _other_file_size(value: Any) -> None:
    value["fileSize"] += 1


def _drop_gap(value: Any) -> None:
    value["hashRanges"][0] = None


def _many_nodes(value: Any) -> None:
    gap = _gap(value)
    gap["nodes"] = (gap["nodes"] * 100_000)[:100_000]
    gap["levels"] = [[100_000, 0]]


def _whole_file_is_window(value: Any) -> None:
    value["windows"] = [{"dirtyByteRange": [0, value["fileSize"]]}]
    value["hashRanges"] = [None, None]


def _many_terms(value: Any) -> None:
    value["terms"] = value["terms"] * 250


def listed(**members: Any) -> Kind:
    """The first entry of the listing, changed."""

    def change(value: Any) -> None:
        value[0].update(members)

    return lie(change)


def beside(**members: Any) -> Kind:
    """An odd entry before the honest ones: the first of them, changed."""

    def change(value: Any) -> None:
        value.insert(
            0, {name: member for name, member in {**value[0], "path": "dir/odd", **members}.items() if member is not ...}
        )

    return lie(change)


def without(*names: str) -> Kind:
    """The answer less these members."""

    def change(value: Any) -> None:
        for name in names:
            del value[name]

    return lie(change)


def _names(value: Any) -> None:
    """Names beside the honest one that no directory may have."""
    honest = value[0]
    for path in ("dir/..", "../up", "/abs", "dir/a/b", "dir/\0", "dir/" + "n" * 300, "dir/\ud800", "other/x", "dir/"):
        value.append({**honest, "path": path})
    value.append({**honest, "type": "directory"})


def next_page(url: str) -> Kind:
    return answer(200, "[]", Content_Type="application/json", Link=f'<{url}>; rel="next"')


@asynccontextmanager
async def page_at_another_host(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    """The first page is empty, and says that the next one is at a host which only the Hub behind a mirror has."""
    storage = bench.hub.storage
    tree = f"/api/models/local/faulty/tree/{storage.commit(storage.require_repo('model', 'local/faulty'), 'main').oid}/dir"
    bench.fault(place, "answer", 1, status=200, body="[]", headers={"Link": f'<http://10.0.0.1{tree}?limit=5>; rel="next"'})
    yield


@asynccontextmanager
async def page_in_a_circle(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    bench.fault(
        place,
        "answer",
        count,
        status=200,
        body="[]",
        headers={"Link": f'<{bench.hub.endpoint}/api/models/local/faulty/tree/{"0" * 40}/dir?cursor=x>; rel="next"'},
    )
    yield


@asynccontextmanager
async def garbage(bench: Bench, place: Place, count: int | None) -> AsyncIterator[None]:
    """Well-framed HTTP around bytes that mean nothing, always the same."""
    bench.fault(place, "answer", count, status=200, body=random.Random(1).randbytes(3000).decode("latin-1"))
    yield


KINDS: Final[dict[str, Kind]] = {
    "refused": refused,
    "no route": no_route,
    "connecting unanswered": unanswered,
    "name unknown": elsewhere("http://cas.invalid"),
    "TLS closed in the handshake": partial(_listening, scheme="https", greeting=b""),
    "TLS answered in plain text": partial(_listening, scheme="https", greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "not HTTP": partial(_listening, scheme="http", greeting=b"220 mail.example ESMTP\r\n"),
    "silent before the answer": rule("stall"),
    "silent within the body": rule("stall", after_bytes=10),
    "one byte a second": rule("drip", seconds=1.0),
    "one byte now and then": rule("drip", seconds=0.05),
    "closed before the answer": rule("close"),
    "closed within the body": rule("close", after_bytes=10),
    "reset within the body": rule("reset", after_bytes=10),
    "400": answer(400),
    "401": answer(401),
    "403": answer(403),
    "404": answer(404),
    "404, no such repo": answer(404, '{"error":"Repository not found"}', X_Error_Code="RepoNotFound"),
    "404, no such revision": answer(404, '{"error":"Invalid rev id"}', X_Error_Code="RevisionNotFound"),
    "401, for whom the repo is hidden": answer(401, '{"error":"Invalid username"}', X_Error_Code="RepoNotFound"),
    "416": answer(416),
    "451": answer(451, '{"error":"Unavailable in your country"}'),
    "429": answer(429),
    "429, wait an hour": answer(429, Retry_After="3600"),
    "500": answer(500),
    "501": answer(501),
    "502": answer(502),
    "503": answer(503),
    "expired URLs": rule("expire"),
    "expired URLs, 400": rule("expire", status=400),
    "shortened": rule("truncate", after_bytes=100),
    "lengthened": rule("lengthen", after_bytes=9000),
    "a Content-Length too small": rule("content_length", offset=-1000),
    "a Content-Length too large": rule("content_length", offset=1000),
    "no Content-Range": option(range_answers="unlabelled"),
    "200 for the range alone": option(range_answers="ok"),
    "flipped byte": rule("flip", offset=1000),
    "gzip that nobody asked for": rule("gzip"),
    "all of it in place of the range": rule("ignore_range"),
    "another Content-Range": rule("content_range", body="bytes 5-104/200000"),
    "HTML portal": answer(200, PORTAL, Content_Type="text/html"),
    "garbage": garbage,
    "redirect to a private address": rule("redirect", location="http://10.0.0.1/x"),
    "redirect to the metadata service": rule("redirect", location="http://169.254.169.254/latest/meta-data/"),
    "redirect to file://": rule("redirect", location="file:///etc/passwd"),
    "redirect in a circle": rule("redirect", location="?again"),
    "URL of file://": at_url("file:///etc/passwd"),
    "URL of a private address": at_url("http://192.168.0.1/xorb?sig=1"),
    "URL of the metadata service": at_url("http://169.254.169.254/xorb"),
    "URL of a foreign host at a private address": at_url("http://inside.example/xorb?sig=1"),
    "URL with a user name": at_url("http://user:secret@127.0.0.1/xorb"),
    "URL of another service's port": at_url("http://127.0.0.1:22/xorb"),
    "URL that two readers read differently": at_url("http://127.0.0.1\\@192.168.0.1/xorb"),
    "overlapping fetches": lie(_overlap),
    "a term missing": lie(_drop_last_term),
    "a term too many": lie(_repeat_term),
    "2,000 terms too many": lie(_many_terms),
    "no fetches": lie(_without_fetches),
    "negative range": lie(_negative),
    "a term longer than its chunks": lie(_longer_term),
    "chunks under other numbers": lie(_other_numbers),
    "another hash": lie(_other_hash),
    "other sizes": lie(_other_sizes),
    "nodes swapped": lie(_swap_nodes),
    "window moved": lie(_shift_window),
    "another file size": lie(_other_file_size),
    "gap missing": lie(_drop_gap),
    "100,000 nodes": lie(_many_nodes),
    "everything is window": lie(_whole_file_is_window),
    "CAS at a private address": elsewhere("http://172.16.0.1:8080"),
    "CAS at file://": elsewhere("file:///tmp"),
    "CAS with a user name": elsewhere("http://user:secret@127.0.0.1"),
    "no such service": option(proof_status=404),
    "next page at another host": page_at_another_host,
    "next page that is no listing": next_page("/api/whoami-v2"),
    "pages in a circle": page_in_a_circle,
    "names that lead out": lie(_names),
    "a file of 64 TiB": listed(size=2**46, lfs=None),
    "a file of negative size": beside(size=-1),
    "a file of 2^70 bytes": beside(size=2**70),
    "an entry of unknown type": beside(type="unknown"),
    "an entry without a path": beside(path=...),
    "an entry whose path is empty": beside(path=""),
    "decorations that are odd": listed(oid=None, lfs=None, xetHash="*" * 64, lastCommit={"date": "yesterday"}),
    "a list of something else": lie(lambda value: value.__setitem__(slice(None), [{"error": "no"}])),
    "optional fields left out": without("lastModified", "private", "gated", "disabled", "id", "createdAt"),
    "optional fields that are odd": lie(lambda value: value.update(lastModified=None, private=None, gated=True, disabled=None)),
}
