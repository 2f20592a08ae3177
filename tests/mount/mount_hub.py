"""A test hub in a process of its own, and the real client that fills it.

XETFS_TEST_PROFILE names the profile of every such hub: `production`, which speaks TLS too, in place of `lenient`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loopback import make_authority

UPLOAD = """
import sys
from huggingface_hub import HfApi
repo, kind, folder = sys.argv[1:]
api = HfApi()
api.create_repo(repo, repo_type=kind, space_sdk="static" if kind == "space" else None, exist_ok=True)
print(api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder).oid)
"""
END_S = 20
PROFILE = os.environ.get("XETFS_TEST_PROFILE", "lenient")


@cache
def _certificate() -> tuple[str, str]:
    """A certificate and its key by an authority that this process and what it starts trust from now on."""
    folder = Path(os.environ["HF_HOME"]).with_name("authority")
    folder.mkdir()
    authority = make_authority(folder)
    os.environ["SSL_CERT_FILE"] = str(authority.ca_file)
    return str(folder / "server.pem"), str(folder / "server.key")


class HubProcess:
    """A running hub. stop() takes it off the network."""

    def __init__(self, directory: Path) -> None:
        self._home = directory.with_name(directory.name + "-client")
        command = [sys.executable, "-m", "xetfs.testhub", str(directory), "--json-ready", "--profile", PROFILE]
        if PROFILE == "production":
            command += ["--tls", *_certificate()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the hub did not start, and ended with {self._process.wait(END_S)}"
        self.endpoint: str = json.loads(line)["endpoint"]

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise
            finally:
                self._process.communicate()

    def upload(self, repo: str, folder: Path, *, kind: str = "model", xet: bool = True, token: str = "hf_test") -> str:
        """Upload a folder with the real client; the commit."""
        env = {
            **os.environ,
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": token,
            "HF_HOME": str(self._home),
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
        }
        command = [sys.executable, "-c", UPLOAD, repo, kind, str(folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def control(self, method: str, what: str, body: Mapping[str, Any] | None = None) -> Any:
        """Use the control endpoint; its answer."""
        request = urllib.request.Request(f"{self.endpoint}/_testhub/{what}", method=method)
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            return json.load(answer)

    def requests(self, origin: str | None = None) -> list[dict[str, Any]]:
        """What was asked since the last reset."""
        answer = self.control("GET", "requests" + (f"?origin={origin}" if origin else ""))
        found: list[dict[str, Any]] = answer["requests"]
        return found

    def reset(self) -> None:
        self.control("DELETE", "requests", {})
        self.control("DELETE", "faults", {})


@dataclass(frozen=True)
class Everything:
    """The repo with every kind of file, and the folder it was made from. commit: of the last upload."""

    hub: HubProcess
    folder: Path
    sums: Path
    commit: str
