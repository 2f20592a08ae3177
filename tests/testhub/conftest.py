"""A hub of one's own for each test, the real client in a subprocess against it, and an HTTP client without manners of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from xetfs.testhub import TestHub, open_test_hub

CLIENT_START = """
import json, os, pathlib, sys
from huggingface_hub import *
from huggingface_hub.errors import *
work = pathlib.Path(os.environ["WORK"])
api = HfApi()
"""

RunClient = Callable[..., Awaitable[str]]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the client's script finds and leaves files."""
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def run_client(hub: TestHub, work: Path) -> RunClient:
    """Run a script of the real huggingface_hub and hf_xet against the hub, with a home of its own; its output."""

    async def run(script: str, *, token: str | None = "hf_test", xet: bool = True, env: Mapping[str, str] | None = None) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        settings: dict[str, Any] = {
            **clean,
            "WORK": str(work),
            "HF_HOME": str(work / "home"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            **({"HF_TOKEN": token} if token else {}),
            **(env or {}),
        }
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, "-c", CLIENT_START + script],
                env=settings,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        output = done.stdout.decode()
        assert done.returncode == 0, output
        return output

    return run
