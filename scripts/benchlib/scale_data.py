"""Repos, files and shards of many sizes, made straight in the hub's directory from a few hundred megabytes of chunks.

A file of 200 GB is a list of terms: here stretches of the same ten xorbs over and over, in no order, since the tree over chunks
that come back in a fixed order has levels that repeat too, as no real file's has. To a client it is a file like any other, with
reconstructions, proofs and signed ranges. Two places in it hardly ever need the same chunks.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from xetfs.protocol.hashes import XorbHash
from xetfs.testhub.records import StoredFile
from xetfs.testhub.storage import Storage
from xetfs.testhub.xetstore import Run, XetStore

FORMAT: Final = 2
"""Raised when anything below changes what is made."""
GB: Final = 1_000_000_000
XORBS: Final = 10
XORB_CHUNKS: Final = 1000
CHUNK_BYTES: Final = range(32 * 1024, 96 * 1024)
FILES: Final = (1_000, 10_000, 100_000)
SIZES_GB: Final = (1, 10, 200)
TERMS: Final = (10, 1_000, 10_000)
LARGE_TERM_CHUNKS: Final = 250
"""In a term of a large file: 16 MB, as one that was uploaded at once has them."""
TERM_CHUNKS: Final = 4
"""In a term of a file of many terms."""
TERM_FILES: Final = 8
"""Files of so many terms: a small one has no more than two places that are far from each other and from its begin."""
SHARDS: Final = 64
SHARD_CHUNKS: Final = 80
SHARDS_REPO: Final = "bench/scale-shards"


@dataclass(frozen=True, slots=True)
class Scale:
    """xorbs: files in the hub of which all the others are made. shards_bytes: of all shards together, stored."""

    xorbs: tuple[Path, ...]
    shards_bytes: int


def files_repo(count: int) -> str:
    return f"bench/scale-files-{count}"


def file_name(number: int) -> str:
    return f"part-{number:06}.json"


def size_repo(gigabytes: int) -> str:
    return f"bench/scale-size-{gigabytes}"


def terms_repo(count: int) -> str:
    return f"bench/scale-terms-{count}"


def prepare_scale(directory: Path, hub: Path, say: Callable[[str], None]) -> Scale:
    """What is in the hub already, or else make it. directory: where the note is kept that it is there."""
    kept = directory / "scale.json"
    manifest = json.loads(kept.read_text()) if kept.exists() else {}
    if manifest.get("format") != FORMAT:
        say("making repos and files of many sizes")
        storage = Storage(hub)
        try:
            manifest = _make(storage, XetStore(storage))
        finally:
            storage.close()
        kept.write_text(json.dumps(manifest))
    xorbs = tuple(hub / "xorbs" / name[:2] / name for name in manifest["xorbs"])
    return Scale(xorbs, manifest["shards_bytes"])


def _make(storage: Storage, xet: XetStore) -> dict[str, object]:
    xorbs = [xet.add_xorb(chunks) for chunks in _chunks()]

    def add(repo: str, files: dict[str, list[Run]]) -> None:
        stored: dict[str, bytes | StoredFile] = {}
        for name, runs in files.items():
            # Nobody can hash 200 GB; and where every byte is proven, nobody asks for the SHA-256.
            _, stored[name] = xet.add_file_from_terms(runs, sha256=hashlib.sha256(f"{repo}/{name}".encode()).hexdigest())
        _commit(storage, repo, stored)

    for count in FILES:
        _commit(storage, files_repo(count), {f"data/{file_name(n)}": b'{"part": %d}\n' % n for n in range(count)})
    for gigabytes in SIZES_GB:
        terms = round(gigabytes * GB / (LARGE_TERM_CHUNKS * (CHUNK_BYTES.start + CHUNK_BYTES.stop) / 2))
        add(size_repo(gigabytes), {"large.bin": scattered_terms(xorbs, terms, LARGE_TERM_CHUNKS, seed=gigabytes)})
    for count in TERMS:
        files = {f"{number}.bin": scattered_terms(xorbs, count, TERM_CHUNKS, seed=number) for number in range(TERM_FILES)}
        add(terms_repo(count), files)
    shards = {f"shard-{number:02}.bin": _shard(xorbs, number) for number in range(SHARDS)}
    add(SHARDS_REPO, shards)
    wires = (xet.index(run.xorb).wire[[run.start, run.end]] for runs in shards.values() for run in runs)
    shards_bytes = sum(int(end - start) for start, end in wires)
    return {"format": FORMAT, "xorbs": [xorb.hex() for xorb in xorbs], "shards_bytes": shards_bytes}


def _commit(storage: Storage, name: str, files: dict[str, bytes | StoredFile]) -> None:
    """Into a new repo, whatever there was before of this name."""
    old = storage.repo("model", name)
    if old is not None:
        storage.delete_repo(old)
    storage.commit_files(storage.create_repo("model", name), files)


def _chunks() -> Iterator[list[bytes]]:
    """The chunks of each xorb: bytes that do not compress, of lengths as they are cut by content."""
    chance = np.random.default_rng(20)
    for _ in range(XORBS):
        lengths = chance.integers(CHUNK_BYTES.start, CHUNK_BYTES.stop, XORB_CHUNKS)
        yield [chance.bytes(int(length)) for length in lengths]


def scattered_terms(xorbs: list[XorbHash], count: int, chunks: int, *, seed: int) -> list[Run]:
    """Terms of so many chunks from here and there, no two of which are neighbours in a xorb too."""
    chance = random.Random(seed)
    runs: list[Run] = []
    while len(runs) < count:
        xorb, start = chance.choice(xorbs), chance.randrange(XORB_CHUNKS // chunks) * chunks
        if not runs or runs[-1].xorb != xorb:
            runs.append(Run(xorb, start, start + chunks))
    return runs


def _shard(xorbs: list[XorbHash], number: int) -> list[Run]:
    """Chunks that no other shard has."""
    per_xorb = XORB_CHUNKS // SHARD_CHUNKS
    start = number % per_xorb * SHARD_CHUNKS
    return [Run(xorbs[number // per_xorb], start, start + SHARD_CHUNKS)]
