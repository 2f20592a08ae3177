"""The programs that scripts/witness builds: Hugging Face's CAS server, and the oracle on their crates."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

START_S, END_S = 20.0, 20.0


def program(name: str) -> Path:
    """Raises FileNotFoundError with a hint: these tests are only run on purpose, so nothing is skipped."""
    kept = os.environ.get("XETFS_WITNESS", "")
    path = Path(kept) / "bin" / name
    if not kept or not path.exists():
        raise FileNotFoundError(f"{name} is not built: run scripts/witness")
    return path


class CasServer:
    """Hugging Face's `local_cas_server`, on a port of its own. What it holds outlives it in its directory."""

    def __init__(self, directory: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [str(program("local_cas_server")), "--port", str(port), "--data-directory", str(directory)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        self._wait_until_it_answers(log)

    def _wait_until_it_answers(self, log: Path) -> None:
        """It says nothing when it is ready, so it is asked again and again."""
        until = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=END_S).close()
                return
            except OSError:
                assert self._process.poll() is None, f"it ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < until, "it does not answer"
                select.select([], [], [], 0.02)

    def configure(self, **values: str) -> None:
        """Its own `/simulation/set_config`: random_delay, api_delay, congestion, max_ranges_per_fetch, …"""
        for name, value in values.items():
            self.post(f"/simulation/set_config?config={quote(name)}&value={quote(value)}", b"")

    def post(self, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from error

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
            raise


class Oracle:
    """tests/witness/oracle, which answers from Hugging Face's crates."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(program("xetfs-witness"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.asked = 0

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises AssertionError when it cannot answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        self.asked += 1
        return answer

    def close(self) -> None:
        self._process.communicate()
