"""The test hub in a process of its own, and its control endpoint."""

from __future__ import annotations

import json
import random
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchlib.records import Traffic, traffic_of

END_S = 20
ANSWER_S = 120
_ORIGINS = 3
_FIRST_PORT, _LAST_PORT = 20_000, 30_000


class Hub:
    """A running hub; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_ports(_ORIGINS)
        self._authority: Path | None = None
        self._start()

    def _start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "xetfs.testhub", str(self._directory), "--json-ready", "--port", str(self._port)]
        self._process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the hub did not start; exit status {self._process.wait(END_S)}")
        self.endpoint: str = json.loads(line)["endpoint"]

    @contextmanager
    def restarted(self, *arguments: str, authority: Path | None = None) -> Iterator[None]:
        """Run the hub with more arguments for a while, at the same ports. authority: of its certificate, as a PEM file."""
        self._stop()
        self._authority = authority
        self._start(*arguments)
        try:
            yield
        finally:
            self._stop()
            self._authority = None
            self._start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def client_env(self, home: Path) -> dict[str, str]:
        """The environment in which the Hub's own client knows nothing but this hub."""
        trust = {"SSL_CERT_FILE": str(self._authority)} if self._authority else {}
        return {
            **trust,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN": "",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def traffic(self) -> Traffic:
        """Since the last reset."""
        return traffic_of(self.records())

    def records(self) -> list[dict[str, Any]]:
        """One for each request since the last reset, as the control endpoint tells them."""
        found: list[dict[str, Any]] = self._control("GET", "requests")["requests"]
        return found

    def reset(self) -> None:
        self._control("DELETE", "requests", {})

    @contextmanager
    def shaped(self, shape: Mapping[str, float]) -> Iterator[None]:
        """Give the link these fields of Shape for a while; with none, leave it as it is."""
        if not shape:
            yield
            return
        self._control("PUT", "shape", shape)
        try:
            yield
        finally:
            self._control("PUT", "shape", {})

    @contextmanager
    def without_proofs(self) -> Iterator[None]:
        with self._option("proof_status", 404, 200):
            yield

    @contextmanager
    def with_cas(self, url: str) -> Iterator[None]:
        """Have tokens name another CAS, to which uploads then go and from which reads come."""
        with self._option("cas_url", url, ""):
            yield

    @contextmanager
    def _option(self, name: str, value: object, default: object) -> Iterator[None]:
        self._control("PUT", "options", {name: value})
        try:
            yield
        finally:
            self._control("PUT", "options", {name: default})

    def signed_ranges(self, repo: str, file: str) -> list[tuple[str, int, int]]:
        """URL, first and last byte of all that a file is fetched from, as its reconstruction has them."""
        xorbs = self._ask_cas(repo, file, "reconstructions", {})["xorbs"]
        groups = [group for groups in xorbs.values() for group in groups]
        return [(group["url"], one["bytes"]["start"], one["bytes"]["end"]) for group in groups for one in group["ranges"]]

    def grow_tree(self, repo: str, file: str) -> None:
        """Have the tree of a file's hashes computed, which takes the hub seconds for a very large file, and once."""
        self._ask_cas(repo, file, "file-chunk-hashes", {"X-Range-Dirty": "bytes=0-0"})

    def _ask_cas(self, repo: str, file: str, what: str, headers: Mapping[str, str]) -> Any:
        commit = self._get(f"{self.endpoint}/api/models/{repo}/revision/main")["sha"]
        entries = self._get(f"{self.endpoint}/api/models/{repo}/tree/{commit}")
        (file_id,) = (entry["xetHash"] for entry in entries if entry["path"] == file)
        token = self._get(f"{self.endpoint}/api/models/{repo}/xet-read-token/{commit}")
        authorization = {"Authorization": f"Bearer {token['accessToken']}"}
        return self._get(f"{token['casUrl']}/v2/{what}/{file_id}", {**authorization, **headers})

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        return self._ask(urllib.request.Request(url, headers=dict(headers or {})))

    def _control(self, method: str, what: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(f"{self.endpoint}/_testhub/{what}", method=method)
        request.add_header("Content-Type", "application/json")
        request.data = None if body is None else json.dumps(body).encode()
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        tls = ssl.create_default_context(cafile=self._authority) if self._authority else None
        with urllib.request.urlopen(request, timeout=ANSWER_S, context=tls) as answer:
            return json.load(answer)


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive ports of 127.0.0.1 at which nothing listens. Raises OSError if there are none."""
    firsts = list(range(_FIRST_PORT, _LAST_PORT, count))
    random.shuffle(firsts)  # another bench may be about to take the same ones
    for first in firsts:
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise OSError(f"no {count} consecutive free ports between {_FIRST_PORT} and {_LAST_PORT}")


def make_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """(authority, certificate, key): PEM files for 127.0.0.1, made with the openssl command."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    directory.mkdir(exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench authority", "-days", "2"]
    openssl("req", "-x509", *key, *authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=loopback")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", "server.csr", *signer, "-out", "server.pem", "-days", "2", "-extfile", "names")
    return directory / "ca.pem", directory / "server.pem", directory / "server.key"
