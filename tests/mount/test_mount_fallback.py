"""A mount whose CAS is not to be had, or not wanted: the same bytes, through the Hub."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import mount_data
import pytest
from mount_hub import Everything, HubProcess
from mount_user import Mount, MountRepo, run_xetfs

NAME = "weights/noise.bin"
TOKENS_MAX = 8
"""Times that a token is asked for before all know that it is of no use: once by each window that was begun by then."""


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def fault_of(kind: str) -> dict[str, Any]:
    """What the Hub answers to whoever asks for a token: that it knows no Xet, or that the CAS is where nobody is."""
    path = "/xet-read-token/"
    if kind == "no Xet":
        return {"action": "answer", "path": path, "status": 404, "body": "Not Found"}
    url = f"http://127.0.0.1:{closed_port()}"
    body = json.dumps({"casUrl": url, "accessToken": "xet_nothing", "exp": int(time.time()) + 3600})
    return {"action": "answer", "path": path, "status": 200, "body": body}


@pytest.fixture
def spoilt(hub: HubProcess) -> Iterator[HubProcess]:
    """The hub, whole again afterwards."""
    yield hub
    hub.reset()


def levels(mount: Mount, name: str) -> bytes:
    return os.getxattr(mount.path / name, "user.xetfs.verified")


def data_of(hub: HubProcess) -> list[str]:
    """Where bytes came from."""
    return [request["path"].split("/")[1] for request in hub.requests("transfer")]


def test_xet_is_not_used_where_it_is_disabled(
    hub: HubProcess, mount_repo: MountRepo, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    mount = mount_repo(hub.endpoint)
    subprocess.run(["cmp", mount.path / NAME, everything.folder / NAME], check=True, timeout=60)
    assert hub.requests("cas") == []
    assert not [request for request in hub.requests("hub") if "xet-read-token" in request["path"]]
    assert set(data_of(hub)) == {"bridge"}
    assert levels(mount, NAME) in (b"framing", b"file")  # it is checked in the background


@pytest.mark.parametrize("kind", ["no Xet", "CAS port closed"])
def test_a_mount_without_a_cas(spoilt: HubProcess, mount_repo: MountRepo, everything: Everything, kind: str) -> None:
    spoilt.control("POST", "faults", fault_of(kind))
    mount = mount_repo(spoilt.endpoint)
    mount.expected.append("read through the Hub instead")
    subprocess.run(["diff", "-r", everything.folder / "weights", mount.path / "weights"], check=True, timeout=60)
    tokens = [request for request in spoilt.requests("hub") if "xet-read-token" in request["path"]]
    assert len(tokens) <= TOKENS_MAX
    assert mount.log().count("read through the Hub instead") == 1
    assert set(data_of(spoilt)) == {"bridge"}
    status = run_xetfs("status", str(mount.path), env={"XDG_STATE_HOME": str(mount.log_file.parent.parent / "state")})
    assert "NOT XET" in status.stdout, status.stdout + status.stderr


def test_a_cas_that_comes_back_finds_what_came_through_the_hub(
    spoilt: HubProcess, mount_repo: MountRepo, everything: Everything
) -> None:
    """What was fetched one way is not fetched again the other."""
    spoilt.control("POST", "faults", fault_of("no Xet"))
    mount = mount_repo(spoilt.endpoint)
    mount.expected.append("read through the Hub instead")
    subprocess.run(["cmp", mount.path / NAME, everything.folder / NAME], check=True, timeout=60)
    mount.umount()
    spoilt.reset()
    mount = mount_repo(spoilt.endpoint)
    subprocess.run(["cmp", mount.path / NAME, everything.folder / NAME], check=True, timeout=60)
    assert spoilt.requests("transfer") == []
    assert levels(mount, NAME) in (b"framing", b"file")


def test_where_proof_is_insisted_on_reads_fail(spoilt: HubProcess, mount_repo: MountRepo) -> None:
    spoilt.control("POST", "faults", fault_of("no Xet"))
    mount = mount_repo(spoilt.endpoint, mount_data.REPO, "--verify", "proof")
    mount.expected.append("operation=read")
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / NAME).read_bytes()
    assert spoilt.requests("transfer") == []
