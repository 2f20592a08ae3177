"""The files that are read back: those of the other mount and loader tests, in Hugging Face's CAS server.

What a user would upload, the real client uploads to it; files that no client writes come as xorbs and a shard of the test hub's.
The Hub beside it is the test hub, which names the files and knows none of their content.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import loader_data
import mount_data
from mount_hub import HubProcess
from witness_programs import CasServer

from xetfs.protocol.hashes import FileId, MerkleHash, term_verification_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.shard import Shard, ShardFile, ShardTerm, ShardXorb, encode_upload_shard
from xetfs.testhub import HubOptions, Run, StoredFile, TestHub

REPO: Final = "witness/everything"
PLAIN_BYTES_MAX: Final = 20_000
"""Files up to this size are in git, as at a Hub, unless they are called like data."""
UPLOAD_S: Final = 300

UPLOAD: Final = """
import json, sys
import hf_xet
url, *paths = json.load(sys.stdin)
never = 2**40
found = hf_xet.upload_files(paths, url, ("a token", never), lambda: ("a token", never), None, "model")
print(json.dumps([[info.hash, info.filesize] for info in found]))
"""


@dataclass(frozen=True)
class Witness:
    """The hub that names the files, the folder they were made in, and where their CAS server keeps them."""

    base: Path
    hub: HubProcess
    folder: Path
    held: Path

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def make_files(folder: Path) -> None:
    """All files as a user would have them; the scattered ones are added by `fill`."""
    mount_data.make_files(folder)
    mount_data.make_old_lfs(folder)
    loader_data.make(folder / "models")


def fill(hub_directory: Path, folder: Path, server: CasServer) -> None:
    """Put every file into their server, or into git, and name it in a hub in hub_directory."""
    hub = TestHub(hub_directory, HubOptions(), seed=0)
    try:
        mount_data.seed_scattered(hub, folder)
        _send_scattered(hub, server)
        in_xet = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _in_git(path)]
        in_xet.remove(folder / mount_data.SCATTERED)
        files: dict[str, bytes | StoredFile] = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and _in_git(path)
        }
        for path, file in _upload(server.url, in_xet, hub_directory.with_name("client")).items():
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            files[str(path.relative_to(folder))] = hub.storage.add_lfs(sha256, path.stat().st_size, file_id=bytes(file))
        scattered = hub.storage.require_repo("model", mount_data.REPO)
        entry = hub.storage.entry(hub.storage.commit(scattered, "main"), mount_data.SCATTERED)
        files[mount_data.SCATTERED] = StoredFile(entry.sha256, entry.size)
        hub.storage.commit_files(hub.storage.create_repo("model", REPO), files)
    finally:
        hub.storage.close()


def _in_git(path: Path) -> bool:
    return path.stat().st_size == 0 or (path.suffix in (".md", ".json", ".txt") and path.stat().st_size <= PLAIN_BYTES_MAX)


def _upload(url: str, paths: list[Path], home: Path) -> Mapping[Path, FileId]:
    """Through the real client, in a process of its own; the file ids that it reports."""
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD],
        input=json.dumps([url, *map(str, paths)]),
        env={**os.environ, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=UPLOAD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [size for _, size in found] == [path.stat().st_size for path in paths]
    return {path: FileId(MerkleHash.from_hex(text)) for path, (text, _) in zip(paths, found, strict=True)}


def _send_scattered(hub: TestHub, server: CasServer) -> None:
    """The file of 5,000 terms, xorb by xorb and then as a shard."""
    repo = hub.storage.require_repo("model", mount_data.REPO)
    entry = hub.storage.entry(hub.storage.commit(repo, "main"), mount_data.SCATTERED)
    held = hub.storage.lfs(entry.sha256)
    assert held is not None
    assert held.file_id is not None
    record = hub.xet.record(FileId(MerkleHash.from_raw(held.file_id)))
    runs: list[Run] = list(record.runs())
    xorbs = []
    for name in record.xorbs:
        index = hub.xet.index(name)
        server.post(f"/v1/xorbs/default/{name.hex()}", index.path.read_bytes()[: int(index.wire[-1])])
        sizes = [int(end - start) for start, end in zip(index.data, index.data[1:], strict=False)]
        xorbs.append(ShardXorb(name, tuple(zip(index.hashes, sizes, strict=True))))
    terms = []
    for run, length in zip(runs, record.lengths.tolist(), strict=True):
        hashes = hub.xet.index(run.xorb).hashes[run.start : run.end]
        terms.append(ShardTerm(run.xorb, ChunkRange(run.start, run.end), length, term_verification_hash(hashes)))
    shard = Shard((ShardFile(record.id, tuple(terms), bytes.fromhex(entry.sha256)),), tuple(xorbs))
    server.post("/v1/shards", encode_upload_shard(shard))
