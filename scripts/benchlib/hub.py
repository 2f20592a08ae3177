"""The test hub in a process of its own, and its control endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchlib.records import Traffic, traffic_of

END_S = 20
ANSWER_S = 120


class Hub:
    """A running hub; a context manager."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-m", "xetfs.testhub", str(directory), "--json-ready"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the hub did not start, and ended with {self._process.wait(END_S)}")
        self.endpoint: str = json.loads(line)["endpoint"]

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
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
        return {
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
        """The fields of Shape, for a while."""
        self._control("PUT", "shape", shape)
        try:
            yield
        finally:
            self._control("PUT", "shape", {})

    @contextmanager
    def without_proofs(self) -> Iterator[None]:
        self._control("PUT", "options", {"proof_status": 404})
        try:
            yield
        finally:
            self._control("PUT", "options", {"proof_status": 200})

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

    @staticmethod
    def _get(url: str, headers: Mapping[str, str] | None = None) -> Any:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=ANSWER_S) as answer:
            return json.load(answer)

    def _control(self, method: str, what: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(f"{self.endpoint}/_testhub/{what}", method=method)
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=ANSWER_S) as answer:
            return json.load(answer)
