"""Whose certificates are believed: the usual ones and the system's, or those that the user names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from loopback import Asked, Authority, answer, client_of, serving

from xetfs.errors import InvalidArgument, Unavailable
from xetfs.net.trust import add_system, make_ssl_context


async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(200, b"ok")


async def ask(authority: Authority, ca_paths: Sequence[Path]) -> bytes:
    async with serving(handler, authority.server) as server, client_of(server.url, ca_paths=ca_paths, attempts_max=1) as client:
        return (await client.request(f"{server.url}/x", "x")).body


def hashed(authority: Authority, folder: Path) -> Path:
    """A directory as OpenSSL reads it."""
    folder.mkdir()
    shutil.copy(authority.ca_file, folder / "company.pem")
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
    return folder


async def test_files_and_directories_with_or_without_hashed_names(authority: Authority, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(authority.ca_file, plain / "company.crt")
    (plain / "README").write_text("no certificate")
    for path in (authority.ca_file, plain, hashed(authority, tmp_path / "hashed")):
        assert await ask(authority, (path,)) == b"ok"
    empty = tmp_path / "0.pem"
    shutil.copy(make_other_authority(tmp_path), empty)
    assert await ask(authority, (empty, plain)) == b"ok"
    with pytest.raises(Unavailable, match="certificate"):
        await ask(authority, (empty,))


def make_other_authority(folder: Path) -> Path:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=other",
         "-keyout", "other.key", "-out", "other.pem"], check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    return folder / "other.pem"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "none of it is"), (b"no certificate", "none of it is"), (b"\xff" * 100, "none of it is")],
)
def test_a_path_without_certificates_is_told_in_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=rf"^no certificates in {path}: {reason}[ a-z]*; expected PEM"):
        make_ssl_context((path,))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InvalidArgument, match=r"no certificates in .*an empty directory"):
        make_ssl_context((folder,))


@pytest.mark.parametrize("form", ["directory", "bundle"])
async def test_what_the_system_trusts_is_trusted_beside_the_usual(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A distribution with hashed names, and one with a bundle alone, whose first place is missing and whose second is broken."""
    bundle, broken = tmp_path / "bundle.crt", tmp_path / "broken.crt"
    shutil.copy(authority.ca_file, bundle)
    broken.write_text("")
    directories = [tmp_path / "missing", hashed(authority, tmp_path / "hashed")] if form == "directory" else [tmp_path]
    context = make_ssl_context((make_other_authority(tmp_path),))
    add_system(context, directories, [tmp_path / "missing.crt", broken, bundle])
    async with serving(handler, authority.server) as server:
        port = int(server.url.rpartition(":")[2])
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1")
        await stream.do_handshake()
        await trio.aclose_forcefully(stream)


def test_without_a_system_store_there_is_certifis(tmp_path: Path) -> None:
    context = make_ssl_context(())
    count = len(context.get_ca_certs())
    add_system(context, [tmp_path], [tmp_path / "missing.crt"])
    assert len(context.get_ca_certs()) == count > 50


SYSTEM = """
import sys
import trio
sys.path[:0] = [sys.argv[2]]
from loopback import client_of

async def main() -> None:
    async with client_of(sys.argv[1], attempts_max=1) as client:
        print((await client.request(sys.argv[1] + "/x", "x")).body.decode())

trio.run(main)
"""
MOUNTS = """
set -eu
mount --make-rprivate /
mkdir -p "$1/etc" "$1/local"
cp -a /etc/ssl/certs/. "$1/etc"
mkdir -p /usr/local/share/ca-certificates
mount --bind "$1/etc" /etc/ssl/certs
mount --bind "$1/local" /usr/local/share/ca-certificates
if [ "$2" = yes ]; then cp "$3" /usr/local/share/ca-certificates/company.crt; update-ca-certificates >&2; fi
shift 3
exec "$@"
"""


@pytest.mark.root
@pytest.mark.parametrize("installed", [True, False])
async def test_an_authority_that_the_system_installed_is_trusted(authority: Authority, tmp_path: Path, installed: bool) -> None:
    """As Debian does it, in a mount namespace in which the machine's own store stays as it is."""
    script = tmp_path / "mounts.sh"
    script.write_text(MOUNTS)
    async with serving(handler, authority.server) as server:
        command = ["unshare", "--mount", "sh", str(script), str(tmp_path), "yes" if installed else "no", str(authority.ca_file)]
        program = [sys.executable, "-c", SYSTEM, server.url, str(Path(__file__).parent.parent)]
        done = await trio.run_process([*command, *program], capture_stdout=True, capture_stderr=True, check=False)
    assert (done.returncode == 0) is installed, done.stderr.decode()
    if installed:
        assert done.stdout.decode().strip() == "ok"
    else:
        assert "check the certificates" in done.stderr.decode()
