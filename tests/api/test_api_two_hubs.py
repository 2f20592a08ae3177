"""The example in docs/two_hubs.py does what it says."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import trio

from xetfs.testhub import TestHub, open_test_hub

CONTENT = random.Random(8).randbytes(5_000_000)
SCRIPT = Path(__file__).parents[2] / "docs" / "two_hubs.py"


def add_repo(hub: TestHub, name: str, token: str) -> None:
    owner = name.partition("/")[0]
    hub.accounts.add_user(owner)
    hub.accounts.add_token(token, owner, "read")
    chunks = [CONTENT[at : at + 60_000] for at in range(0, len(CONTENT), 60_000)]
    repo = hub.storage.create_repo("model", name, private=True)
    hub.storage.commit_files(repo, {"weights/model.bin": hub.xet.add_file_from_chunks(chunks)[1]})


async def test_two_hubs_share_contents_and_not_rights(tmp_path: Path) -> None:
    async with open_test_hub(tmp_path / "one") as one, open_test_hub(tmp_path / "two") as two:
        add_repo(one, "ann/first", "hf_ann")
        add_repo(two, "bob/second", "hf_bob")
        env = {**os.environ, "TOKEN_1": "hf_ann", "TOKEN_2": "hf_bob", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        program = [sys.executable, str(SCRIPT), one.endpoint, "ann/first", two.endpoint, "bob/second", "weights/model.bin"]
        done = await trio.run_process(program, env=env, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        first, second, third = done.stdout.decode().splitlines()
        fetched = re.fullmatch(r"ann/first: 5000000 bytes read, (\d+) fetched", first)
        assert fetched is not None
        assert int(fetched[1]) >= len(CONTENT)
        assert second == "bob/second: 5000000 bytes read, 0 fetched"
        assert third.startswith("refused: ")


def test_it_is_short() -> None:
    lines = [line for line in SCRIPT.read_text().partition('"""\n\n')[2].splitlines() if line.strip()]
    assert len(lines) <= 30
    assert subprocess.run([sys.executable, "-m", "py_compile", str(SCRIPT)], check=False).returncode == 0
