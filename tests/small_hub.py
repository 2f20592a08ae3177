"""A hub with one small repo of every kind of file, for tests that are about something else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xetfs.testhub import HubOptions, StoredFile, TestHub

REPO = "acme/demo"
XET, LFS, PLAIN, EMPTY, NESTED = "model.bin", "old.bin", "config.json", "empty.txt", "deep/er/more.bin"
_CHUNK_BYTES = 50_000


def content_of() -> dict[str, bytes]:
    """The repo's files."""
    chance = random.Random(11)
    return {
        XET: chance.randbytes(1_200_000),
        LFS: chance.randbytes(300_000),
        PLAIN: b'{"hidden_size": 384}',
        EMPTY: b"",
        NESTED: chance.randbytes(400_000),
    }


def fill(hub: TestHub) -> str:
    """Make the repo; its commit."""
    files: dict[str, bytes | StoredFile] = dict(content_of())
    for name in (XET, NESTED):
        content = content_of()[name]
        chunks = [content[at : at + _CHUNK_BYTES] for at in range(0, len(content), _CHUNK_BYTES)]
        files[name] = hub.xet.add_file_from_chunks(chunks)[1]
    old = content_of()[LFS]
    spooled = hub.storage.temporary / "old"
    spooled.write_bytes(old)
    files[LFS] = hub.storage.add_lfs(hashlib.sha256(old).hexdigest(), len(old), spooled)
    return hub.storage.commit_files(hub.storage.create_repo("model", REPO), files).oid


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Such a hub in a process of its own; its endpoint."""
    hub = TestHub(directory, HubOptions(), seed=0)
    fill(hub)
    hub.storage.close()
    command = [sys.executable, "-m", "xetfs.testhub", str(directory), "--json-ready"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"]
        finally:
            process.terminate()
            process.communicate(timeout=20)
