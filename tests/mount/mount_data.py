"""The repo with every kind of file: made in a folder, as a user would have it, and put into a hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xetfs.testhub import Run, TestHub

MIB: Final = 1024 * 1024

LONGEST_NAME: Final = "ä" * 125 + ".json"
DEEP: Final = "/".join(f"level{number}" for number in range(40))
STRANGE: Final = "names/ü ☃ 名前 (copy) #?%+&=@.txt"

REPO: Final = "local/everything"
SCATTERED: Final = "terms/scattered.bin"
OLD_LFS: Final = "lfs/old.bin"
MODEL: Final = "weights/model.safetensors"
FLOATS: Final = "weights/floats.npy"
TABLE: Final = "tables/table.parquet"
VERIFIED: Final = "fio/verified.bin"
VERIFIED_BYTES: Final = 24 * MIB
BIG_REPO: Final = "local/big"
BIG: Final = "big.bin"
CHUNK_BYTES_MAX: Final = 128 * 1024


def make_files(folder: Path) -> None:
    """What the real client uploads by its usual rules: to git what is small and text, to Xet what is not."""
    chance = np.random.default_rng(2026)
    noise = chance.bytes(40 * MIB)
    floats = chance.normal(0, 0.02, 4 * MIB).astype(np.float32)
    _write(folder, "README.md", b"---\nlicense: mit\n---\n# Everything\n")
    _write(folder, "config.json", json.dumps({"hidden_size": 384, "layers": list(range(12))}).encode())
    _write(folder, "empty.txt", b"")
    _write(folder, "one.txt", b"1")
    _write(folder, "one.bin", b"\x01")
    _write(folder, "one_chunk.bin", bytes(CHUNK_BYTES_MAX))
    _write(folder, "weights/noise.bin", noise)
    _write(folder, "weights/text.bin", b"".join(b"line %d of a long and rather regular text\n" % n for n in range(150_000)))
    _write(folder, "terms/fragmented.bin", _fragments(noise, floats.tobytes()))
    _write(folder, STRANGE, "ünïcode".encode())
    _write(folder, f"names/{LONGEST_NAME}", b"{}")
    _write(folder, f"names/{'n' * 251}.bin", chance.bytes(100_000))
    _write(folder, f"{DEEP}/bottom.bin", chance.bytes(70_000))
    np.save(folder / FLOATS, floats.reshape(1024, -1))
    tensors = {f"layer.{n}.weight": chance.normal(size=(512, 1024)).astype(np.float32) for n in range(12)}
    safetensors.numpy.save_file(tensors, folder / MODEL)
    _make_table(folder / TABLE)
    _make_tokenizer(folder / "tokenizer")
    _make_verified(folder / VERIFIED)


def make_old_lfs(folder: Path) -> None:
    """What a client without Xet uploads."""
    _write(folder, OLD_LFS, np.random.default_rng(7).bytes(9 * MIB + 5))


def seed_scattered(hub: TestHub, folder: Path) -> None:
    """A file of 5,000 terms that go back and forth and repeat, which no client would write; committed as the repo's first."""
    chance = np.random.default_rng(13)
    chunks = [chance.bytes(int(size)) for size in chance.integers(2_000, 9_000, 300)]
    xorbs = [hub.xet.add_xorb(chunks[:150]), hub.xet.add_xorb(chunks[150:])]
    order = [int(number) for number in chance.integers(0, 300, 4_900)]
    order += [*range(299, 249, -1), *([17] * 50)]
    runs = [Run(xorbs[number // 150], number % 150, number % 150 + 1) for number in order]
    _, stored = hub.xet.add_file_from_terms(runs)
    hub.storage.commit_files(hub.storage.create_repo("model", REPO), {SCATTERED: stored})
    _write(folder, SCATTERED, b"".join(chunks[number] for number in order))


def make_big(path: Path) -> None:
    """1 GiB that does not compress and has no two equal chunks."""
    chance = np.random.default_rng(99)
    with path.open("wb") as file:
        for _ in range(16):
            file.write(chance.integers(0, 2**63, 8 * MIB, dtype=np.int64).tobytes())


def write_checksums(folder: Path, sums: Path) -> None:
    """`sha256sum` of every file, with names relative to the folder."""
    command = "find . -type f -print0 | sort -z | xargs -0 sha256sum"
    with sums.open("wb") as file:
        subprocess.run(["bash", "-c", command], cwd=folder, stdout=file, check=True)


def _write(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _fragments(first: bytes, second: bytes) -> bytes:
    """Pieces of two other files by turns, so that the client finds most of it in xorbs that it has."""
    pieces = []
    for number in range(24):
        source = (first, second)[number % 2]
        start = (number * 7 % 15) * MIB
        pieces.append(source[start : start + 700_000])
    return b"".join(pieces)


def _make_table(path: Path) -> None:
    path.parent.mkdir(parents=True)
    numbers = np.arange(200_000)
    table = pa.table({"number": numbers, "square": numbers.astype(np.float64) ** 2, "name": [f"row {n}" for n in numbers]})
    pyarrow.parquet.write_table(table, path, row_group_size=20_000)


def _make_tokenizer(folder: Path) -> None:
    words = ["[UNK]", "only", "what", "is", "read", "has", "to", "travel"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)


def _make_verified(path: Path) -> None:
    """A file that fio lays out, with a checksum in every block."""
    path.parent.mkdir(parents=True)
    subprocess.run(
        ["fio", "--name=lay", f"--filename={path}", f"--size={VERIFIED_BYTES}", "--rw=write", "--bs=64k", "--verify=crc32c",
         "--do_verify=0", "--ioengine=psync", "--output-format=terse"],
        check=True, capture_output=True, cwd=path.parent,
    )  # fmt: skip
