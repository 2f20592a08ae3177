"""Where a request may go."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from flat_settings import flat_settings
from hypothesis import given
from hypothesis import strategies as st
from loopback import Asked, Names, answer, client_of, serving

from xetfs.errors import ProtocolViolation
from xetfs.net.client import open_network
from xetfs.net.origins import HostPolicy, Origin, OriginPolicy, address_kind
from xetfs.telemetry import Counters

PUBLIC = "https://hub.example"
LOOPBACK = "http://127.0.0.1:8000"
PRIVATE = "https://10.1.2.3"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("93.184.215.14", "public"),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", "public"),
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("169.254.170.2", "metadata"),
        ("169.254.170.23", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd00:c1::a9fe:a9fe", "metadata"),
        ("198.18.0.7", "private"),
        ("0.0.0.0", "special"),
        ("::", "special"),
        ("224.0.0.1", "special"),
        ("255.255.255.255", "special"),
    ],
)
def test_kinds_of_addresses(address: str, kind: str) -> None:
    assert address_kind(address) == kind


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (PUBLIC, "https://cas.example/x?signature=s"),
        (PUBLIC, "https://cas.example:8443/x"),
        (PUBLIC, "https://93.184.215.14/x"),
        (LOOPBACK, "http://127.0.0.1:9000/x"),
        (LOOPBACK, "http://[::1]:9000/x"),
        (LOOPBACK, "https://cas.example/x"),
        (PRIVATE, "https://10.9.9.9/x"),
        ("https://hub.example:444", "https://cas.example:444/x"),
        ("https://169.254.169.254", "https://169.254.169.254/x"),
    ],
)
def test_urls_that_may_be_asked(endpoint: str, url: str) -> None:
    OriginPolicy(endpoint).check_url(url, "x")


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (PUBLIC, "http://cas.example/x?signature=s"),
        (PUBLIC, "https://127.0.0.1/x"),
        (PUBLIC, "https://[::1]/x"),
        (PUBLIC, "https://[::ffff:127.0.0.1]/x"),
        (PUBLIC, "https://192.168.0.1/x"),
        (PUBLIC, "https://169.254.169.254/latest/meta-data/"),
        (PUBLIC, "https://0.0.0.0/x"),
        (PUBLIC, "https://cas.example:22/x"),
        (PUBLIC, "https://cas.example:0/x"),
        (PUBLIC, "https://user:secret@cas.example/x"),
        (PUBLIC, "https://hub.example@evil.example/x"),
        (PUBLIC, "https://hub.example\\@evil.example/x"),
        (PUBLIC, "https://hub.exa\tmple/x"),
        (PUBLIC, "file:///etc/passwd"),
        (PUBLIC, "ftp://cas.example/x"),
        (PUBLIC, "gopher://cas.example/x"),
        (PUBLIC, "https:///x"),
        (PUBLIC, "/x"),
        (PUBLIC, ""),
        (LOOPBACK, "http://10.0.0.1/x"),
        (LOOPBACK, "http://169.254.169.254/x"),
        (PRIVATE, "https://127.0.0.1/x"),
        (PRIVATE, "https://[fd00:ec2::254]/x"),
    ],
)
def test_urls_that_may_not_be_asked(endpoint: str, url: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        OriginPolicy(endpoint).check_url(url, "x")
    assert "secret" not in str(caught.value)
    assert "signature" not in str(caught.value)


@pytest.mark.parametrize(
    ("current", "location", "target"),
    [
        ("https://hub.example/a/b?c", "/d", "https://hub.example/d"),
        ("https://hub.example/a/b", "d", "https://hub.example/a/d"),
        ("https://hub.example/a", "//cdn.example/d?s=1", "https://cdn.example/d?s=1"),
        ("https://hub.example/a", "https://cdn.example/%2F?s=a%2Fb&t=~#part", "https://cdn.example/%2F?s=a%2Fb&t=~"),
    ],
)
def test_redirects_that_are_followed(current: str, location: str, target: str) -> None:
    assert OriginPolicy(PUBLIC).check_redirect(current, location, "x") == target


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/api/models/a/b/revision/main", "https://hub.example/x/api/hf/api/models/a/b/revision/main"),
        ("/api/resolve-cache/models/a/b?e=1", "https://hub.example/x/api/hf/api/resolve-cache/models/a/b?e=1"),
        ("/a/b/resolve/main/f", "https://hub.example/x/api/hf/a/b/resolve/main/f"),
        ("/gpt2/resolve/main/f", "https://hub.example/x/api/hf/gpt2/resolve/main/f"),
        ("/datasets/a/b/resolve/main/f", "https://hub.example/x/api/hf/datasets/a/b/resolve/main/f"),
        ("/x/api/hf/api/models/a/b", "https://hub.example/x/api/hf/api/models/a/b"),
        ("/storage/blobs/1", "https://hub.example/storage/blobs/1"),
        ("https://hub.example/api/models/a/b", "https://hub.example/api/models/a/b"),
        ("//cdn.example/api/models/a/b", "https://cdn.example/api/models/a/b"),
        ("?again", "https://hub.example/x/api/hf/api/models/o/n?again"),
    ],
)
def test_an_endpoint_with_a_path_redirects_below_it(location: str, target: str) -> None:
    policy = OriginPolicy("https://hub.example/x/api/hf/")
    assert policy.check_redirect("https://hub.example/x/api/hf/api/models/o/n", location, "x") == target
    if location.startswith("/api/"):
        assert policy.check_redirect("https://cdn.example/x/api/hf/1", location, "x") == f"https://cdn.example{location}"


@pytest.mark.parametrize("location", [None, "", "http://hub.example/", "//10.0.0.1/", "file:///etc/passwd", "https://[x", "a b"])
def test_redirects_that_are_not(location: str | None) -> None:
    with pytest.raises(ProtocolViolation):
        OriginPolicy(PUBLIC).check_redirect("https://hub.example/a", location, "x")


def test_a_redirect_never_leaves_https_even_for_an_endpoint_on_http() -> None:
    with pytest.raises(ProtocolViolation, match="from https to http"):
        OriginPolicy(LOOPBACK).check_redirect("https://cdn.example/a", "http://127.0.0.1:9000/b", "x")


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        parts = OriginPolicy(PUBLIC).check_url(text, "x")
    except ProtocolViolation:
        return
    assert parts.scheme == "https"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Hub.Example/x", Origin("https", "hub.example", 443)),
        ("http://hub.example:80", Origin("http", "hub.example", 80)),
        ("https://[::1]:8443/", Origin("https", "::1", 8443)),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin


async def test_a_name_that_resolves_into_this_network_is_not_connected_to(names: Names) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"secrets of the inside")

    async with serving(handler) as inside:
        port = inside.url.rpartition(":")[2]
        names.known |= {"hub.example": ["93.184.215.14"], "cdn.example": ["127.0.0.1"], "mixed.example": ["1.1.1.1", "10.0.0.1"]}
        async with client_of("http://hub.example") as client:
            for host in ("cdn.example", "mixed.example"):
                with pytest.raises(ProtocolViolation, match="refused to connect"):
                    await client.request(f"http://{host}:{port}/x", "x")
        assert inside.connections == 0


async def test_an_endpoint_whose_name_is_private_may_name_private_neighbours(names: Names) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async with serving(handler) as server:
        port = server.url.rpartition(":")[2]
        names.known |= {"hub.internal": ["127.0.0.1"], "cas.internal": ["127.0.0.1"]}
        async with client_of(f"http://hub.internal:{port}") as client:
            await client.request(f"http://hub.internal:{port}/x", "x")
            assert (await client.request(f"http://cas.internal:{port}/x", "x")).body == b"ok"


async def test_no_connection_is_used_that_was_made_under_another_policy(names: Names) -> None:
    """A Hub inside may name its neighbours; one outside, asked by the same engine, is not led there by the open connection."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async with serving(handler) as server, open_network(flat_settings(attempts_max=1), Counters()) as network:
        port = server.url.rpartition(":")[2]
        names.known |= {"hub.internal": ["127.0.0.1"], "cas.internal": ["127.0.0.1"], "hub.example": ["93.184.215.14"]}
        inside = network.client(f"http://hub.internal:{port}")
        outside = network.client(f"http://hub.example:{port}")
        for name in ("hub", "cas"):
            await inside.request(f"http://{name}.internal:{port}/x", "x")
        with pytest.raises(ProtocolViolation, match="refused to connect to cas"):
            await outside.request(f"http://cas.internal:{port}/x", "x")
        assert (await inside.request(f"http://cas.internal:{port}/x", "x")).body == b"ok"
        assert server.connections == 2
        assert network.client(f"http://hub.internal:{port}") is inside


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.9", "198.18.0.7", "100.64.0.1", "fd12:3456::1"])
async def test_private_addresses_are_gone_to_if_the_user_allows_them(names: Names, address: str) -> None:
    """Split horizons, private links, VPNs that hand out addresses of their own: refused with the way out, and allowed by it."""
    names.known |= {"hub.example": ["93.184.215.14"], "cas.example": [address]}
    async with client_of("https://hub.example", attempts_max=1) as client:
        with pytest.raises(ProtocolViolation, match=r"refused to connect to cas\.example:443.*--allow-private-hosts"):
            await client.request("https://cas.example/x", "x")
    policy = OriginPolicy(PUBLIC, HostPolicy(allow_private=True))
    policy.check_addresses("cas.example", 443, [address])
    policy.check_url(f"https://{f'[{address}]' if ':' in address else address}/x", "x")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254"]
)
def test_other_special_addresses_stay_refused(address: str) -> None:
    policy = OriginPolicy(PUBLIC, HostPolicy(allow_private=True))
    with pytest.raises(ProtocolViolation) as caught:
        policy.check_addresses("cas.example", 443, ["93.184.215.14", address])
    assert "--allow-private-hosts" not in str(caught.value)
    with pytest.raises(ProtocolViolation):
        policy.check_url("http://cas.example/x", "x")


PROGRAM = """
import sys
import trio
sys.path[:0] = [sys.argv[1]]
from loopback import answer, client_of, serving
from xetfs.errors import ProtocolViolation

async def main(allowed):
    async def storage(asked, stream):
        return answer(200, b"from inside")

    async def hub(asked, stream):
        return answer(302, location=f"{inside.url}/x")

    async with serving(storage, host="10.9.9.9") as inside, serving(hub, host="93.184.215.14") as server:
        async with client_of(server.url, allow_private=allowed) as client:
            try:
                print((await client.request(f"{server.url}/x", "x")).body.decode())
            except ProtocolViolation as error:
                print(error)

trio.run(main, sys.argv[2] == "allowed")
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("allowed", r"^from inside$"),
        ("usual", r"^refused to connect to 10\.9\.9\.9:\d+, whose address is private;.*--allow-"),
    ],
)
def test_a_public_hub_that_leads_to_a_private_address(choice: str, expected: str) -> None:
    """In a network of its own, where this machine has an address of each kind."""
    network = 'ip link set lo up; ip addr add 93.184.215.14/32 dev lo; ip addr add 10.9.9.9/32 dev lo; exec "$@"'
    program = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent.parent), choice]
    done = subprocess.run(["unshare", "--net", "sh", "-ec", network, "sh", *program], capture_output=True, text=True, check=False)
    assert re.search(expected, done.stdout.strip()), done.stdout + done.stderr
