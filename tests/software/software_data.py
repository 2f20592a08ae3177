"""Small files in the formats that people publish, each written by the library or program that defines the format."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import pickle
import shutil
import sqlite3
import subprocess
import zipfile
from pathlib import Path
from typing import Final

import datasets
import duckdb
import h5py
import lmdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.orc
import safetensors.numpy
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

MIB: Final = 1024 * 1024
ROWS: Final = 30_000
GIT: Final = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "gc.auto=0")


def make(folder: Path) -> None:
    chance = np.random.default_rng(2026)
    for name in ("arrays", "archives", "databases", "model", "package/words", "plain", "tables"):
        (folder / name).mkdir(parents=True)
    _make_plain(folder / "plain", chance)
    _make_arrays(folder / "arrays", chance)
    _make_tables(folder, chance)
    _make_databases(folder / "databases", chance)
    _make_model(folder / "model", chance)
    _make_package(folder / "package")
    _make_git(folder / "project.git", folder / "plain")
    _make_archives(folder / "archives", folder / "plain")
    # A Hub has no empty directories.
    subprocess.run(["find", folder, "-type", "d", "-empty", "-delete"], check=True)


def _make_plain(folder: Path, chance: np.random.Generator) -> None:
    (folder / "text.txt").write_bytes(b"".join(b"line %d of a text\n" % number for number in range(100_000)))
    (folder / "noise.bin").write_bytes(chance.bytes(3 * MIB + 777))
    (folder / "holes.bin").write_bytes(chance.bytes(70_000) + bytes(2 * MIB) + chance.bytes(70_000))
    for number in range(20):
        (folder / f"small-{number:02}.txt").write_text(f"file {number}\n" * number)


def _make_arrays(folder: Path, chance: np.random.Generator) -> None:
    floats = chance.standard_normal((500, 800), np.float32)
    with h5py.File(folder / "data.h5", "w") as file:
        file["contiguous"] = floats
        file.create_dataset("group/chunked", data=floats, chunks=(50, 80), compression="gzip", shuffle=True)
        file.create_dataset("names", data=[f"row {number}" for number in range(500)])
    np.savez_compressed(folder / "packed.npz", floats=floats, numbers=np.arange(10_000))
    np.save(folder / "floats.npy", floats)
    floats.tofile(folder / "raw.f32")
    (folder / "objects.pickle").write_bytes(pickle.dumps({"floats": floats, "names": ["a", "b"]}, protocol=5))


def _make_tables(folder: Path, chance: np.random.Generator) -> None:
    frame = pd.DataFrame({
        "number": np.arange(ROWS),
        "value": chance.standard_normal(ROWS),
        "name": [f"row {number}" for number in range(ROWS)],
        "part": np.arange(ROWS) % 3,
    })  # fmt: skip
    tables, table = folder / "tables", pa.Table.from_pandas(frame)
    frame.to_csv(tables / "table.csv", index=False)
    frame.to_json(tables / "table.jsonl", orient="records", lines=True)
    pl.from_pandas(frame).write_ipc(tables / "table.arrow", compat_level=pl.CompatLevel.oldest())
    pyarrow.feather.write_feather(table, str(tables / "table.feather"), compression="zstd")
    pyarrow.orc.write_table(table, tables / "table.orc")
    pyarrow.dataset.write_dataset(
        table, tables / "parts", format="parquet", partitioning=["part"], partitioning_flavor="hive", max_rows_per_group=2_000,
        max_rows_per_file=4_000,
    )  # fmt: skip
    datasets.Dataset.from_pandas(frame).save_to_disk(folder / "saved", num_shards=2)


def _make_databases(folder: Path, chance: np.random.Generator) -> None:
    rows = [(number, f"word{number % 977}", chance.bytes(60)) for number in range(ROWS)]
    for name, mode in (("rollback.sqlite", "delete"), ("wal.sqlite", "wal")):
        database = sqlite3.connect(folder / name)
        database.execute(f"pragma journal_mode = {mode}")
        database.execute("create table words (number integer primary key, word text, blob blob)")
        database.execute("create index by_word on words (word)")
        database.executemany("insert into words values (?, ?, ?)", rows)
        database.commit()
        database.close()
    with duckdb.connect(str(folder / "facts.duckdb")) as facts:
        facts.execute(f"create table facts as select range as number, range % 7 as kind, hash(range) as h from range({ROWS})")
    with lmdb.open(str(folder / "words.lmdb"), map_size=64 * MIB) as environment, environment.begin(write=True) as writer:
        for number, word, blob in rows:
            writer.put(f"{word}-{number}".encode(), blob)
    (folder / "words.lmdb" / "lock.mdb").unlink()


def _make_model(folder: Path, chance: np.random.Generator) -> None:
    Qwen2Config(hidden_size=64, num_hidden_layers=2, vocab_size=100).save_pretrained(folder)
    GenerationConfig(do_sample=True, temperature=0.25, max_new_tokens=17).save_pretrained(folder)
    words = {word: number for number, word in enumerate(["[UNK]", "only", "what", "is", "read", "has", "to", "travel"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    fast.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    fast.save_pretrained(folder)
    tensors = {f"layers.{number}.weight": chance.standard_normal((256, 512), np.float32) for number in range(4)}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "np"})


def _make_package(folder: Path) -> None:
    """A Python package, and a module in a zip file."""
    (folder / "words" / "__init__.py").write_text("from .count import count\n")
    (folder / "words" / "count.py").write_text("def count(text):\n    return len(text.split())\n")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("zipped_words.py", "ANSWER = 42\n")


def _make_git(repo: Path, source: Path) -> None:
    def git(*arguments: str | Path) -> None:
        subprocess.run([*GIT, *arguments], check=True, capture_output=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})

    work = repo.with_name("work")
    git("init", "--bare", "--template=", "--initial-branch=main", repo)
    git("clone", "--template=", repo, work)
    for number, name in enumerate(["text.txt", "noise.bin", "small-07.txt"]):
        shutil.copy(source / name, work)
        git("-C", work, "add", name)
        git("-C", work, "commit", "-m", f"Add {name}")
        if number == 1:
            git("-C", work, "push", "origin", "HEAD:main", "HEAD:refs/heads/older")
            git("-C", repo, "repack", "-a", "-d")  # so that the repo has a pack and loose objects
    git("-C", work, "push", "origin", "HEAD:main")
    shutil.rmtree(work)


def _make_archives(folder: Path, source: Path) -> None:
    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=source, check=True, capture_output=True)

    names = sorted(path.name for path in source.iterdir())
    run("tar", "--owner=0", "--group=0", "-cf", folder / "plain.tar", *names)
    run("zip", "-q", folder / "plain.zip", *names)
    tar = (folder / "plain.tar").read_bytes()
    (folder / "plain.tar.gz").write_bytes(gzip.compress(tar, 1))
    (folder / "text.txt.xz").write_bytes(lzma.compress((source / "text.txt").read_bytes(), preset=0))
    run("mke2fs", "-q", "-t", "ext4", "-d", source, folder / "plain.ext4", "16M")
    (folder / "names.json").write_text(json.dumps(names))
