"""Probes: each reads part of the folder that `software_data` makes with one library, or through one system call.

    python software_probes.py PROBE

reads one folder per line from standard input and prints the result for each as one line of JSON. Probes run in a process of their
own: a SIGBUS does not end the tests, and a library is imported once for all folders. Arrays and tables are reduced to hashes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

Probe = Callable[[Path], Any]
PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


def digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


# --- arrays


@probe
def h5py_file(folder: Path) -> Any:
    import h5py

    with h5py.File(folder / "arrays/data.h5") as file:  # takes a shared lock by default
        seen: list[str] = []
        file.visit(seen.append)
        chunked, contiguous = file["group/chunked"], file["contiguous"]
        return [seen, digest(chunked[120:180, 5::7].copy()), digest(chunked[:]), digest(contiguous[:]), file["names"].asstr()[77]]


@probe
def numpy_npz(folder: Path) -> Any:
    import numpy as np

    with np.load(folder / "arrays/packed.npz") as arrays:
        return {name: digest(arrays[name]) for name in arrays.files}


@probe
def numpy_memmap_private(folder: Path) -> Any:
    """Copy-on-write: changes stay in memory."""
    import numpy as np

    array = np.memmap(folder / "arrays/raw.f32", np.float32, mode="c", shape=(500, 800))
    array[3:9] = 1
    array.flush()
    return [digest(array[:]), digest(np.fromfile(folder / "arrays/raw.f32", np.float32, count=1000, offset=4000))]


@probe
def python_pickle(folder: Path) -> Any:
    import pickle

    with (folder / "arrays/objects.pickle").open("rb") as file:
        objects = pickle.load(file)
    return [digest(objects["floats"]), objects["names"]]


# --- tables


def _rows(table: Any) -> Any:
    """Return the number of rows of a pyarrow table and a hash of each column."""
    table = table.sort_by("number").combine_chunks()
    columns = {name: digest(json.dumps(table[name].to_pylist()).encode()) for name in ("number", "value", "name")}
    return [table.num_rows, columns]


@probe
def pyarrow_dataset(folder: Path) -> Any:
    import pyarrow.dataset as ds

    data = ds.dataset(folder / "tables/parts", format="parquet", partitioning="hive")
    few = data.to_table(columns=["number", "value", "name"], filter=(ds.field("part") == 1) & (ds.field("number") < 5_000))
    return [len(data.files), data.count_rows(), _rows(few), _rows(data.to_table())]


@probe
def pyarrow_mapped(folder: Path) -> Any:
    import pyarrow as pa
    import pyarrow.feather

    with pa.memory_map(str(folder / "tables/table.arrow")) as source:
        mapped = pa.ipc.open_file(source).read_all()
        return [_rows(mapped), _rows(pyarrow.feather.read_table(folder / "tables/table.feather", memory_map=True))]


@probe
def pyarrow_orc_and_csv(folder: Path) -> Any:
    import pyarrow.csv
    import pyarrow.orc

    stripes = pyarrow.orc.ORCFile(folder / "tables/table.orc").read(columns=["number", "value", "name"])
    return [_rows(stripes), _rows(pyarrow.csv.read_csv(folder / "tables/table.csv"))]


@probe
def pandas_tables(folder: Path) -> Any:
    import pandas as pd

    tables = folder / "tables"
    frames = [
        pd.read_csv(tables / "table.csv"),
        pd.read_json(tables / "table.jsonl", lines=True),
        pd.read_parquet(tables / "parts"),
    ]
    return [
        [len(frame), float(frame["value"].sum().round(6)), sorted(frame["name"])[100]]
        for frame in [*frames, pd.read_feather(tables / "table.feather")]
    ]


@probe
def polars_scans(folder: Path) -> Any:
    import polars as pl

    tables = folder / "tables"
    scans = [
        pl.scan_parquet(tables / "parts/**/*.parquet", hive_partitioning=True),
        pl.scan_csv(tables / "table.csv"),
        pl.scan_ndjson(tables / "table.jsonl"),
        pl.scan_ipc(tables / "table.arrow"),
    ]
    wanted = (pl.col("part") == 2) & (pl.col("number") > 20_000)
    found = [scan.filter(wanted).select("number", "name").sort("number").collect() for scan in scans]
    return [[len(frame), digest(frame.write_csv().encode())] for frame in found]


@probe
def duckdb_files(folder: Path) -> Any:
    import duckdb

    with closing(duckdb.connect()) as connection:
        tables = folder / "tables"
        sources = [f"read_parquet('{tables}/parts/**/*.parquet')", f"'{tables}/table.csv'", f"read_json('{tables}/table.jsonl')"]
        query = "select count(*), sum(number), min(name), round(sum(value), 6) from {} where number % 3 = 1"
        return [connection.sql(query.format(source)).fetchall() for source in sources]


@probe
def datasets_load(folder: Path) -> Any:
    """datasets converts the files into a cache elsewhere."""
    import datasets

    datasets.disable_progress_bars()
    answer = []
    for kind, pattern in (("parquet", "parts/**/*.parquet"), ("csv", "table.csv"), ("json", "table.jsonl")):
        with tempfile.TemporaryDirectory() as cache:
            data = datasets.load_dataset(kind, data_files=str(folder / "tables" / pattern), split="train", cache_dir=cache).sort(
                "number"
            )
            answer.append([data.num_rows, digest(json.dumps(data[:100]["name"]).encode())])
    return answer


@probe
def datasets_stream(folder: Path) -> Any:
    import datasets

    files = str(folder / "tables/parts/**/*.parquet")
    data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    return [row["number"] for row in data.skip(4_000).take(50)]


@probe
def datasets_from_disk(folder: Path) -> Any:
    """datasets maps the Arrow files in place."""
    import datasets

    data = datasets.load_from_disk(str(folder / "saved"))
    return [len(data.cache_files), data[17], data.select(range(29_000, 29_010))["name"], sum(data["number"])]


# --- databases

_SQL = (
    "select count(*), sum(length(blob)) from words",
    "select number from words where word = 'word500' order by number",
    "select hex(blob) from words where number in (1, 15000, 29999)",
    "pragma integrity_check",
)


def _sqlite(folder: Path, name: str, options: str) -> Any:
    import sqlite3

    with closing(sqlite3.connect(f"file:{folder}/databases/{name}{options}", uri=True)) as database:
        return [database.execute(query).fetchall() for query in _SQL]


@probe
def sqlite_read_only(folder: Path) -> Any:
    return _sqlite(folder, "rollback.sqlite", "?mode=ro")


@probe
def sqlite_immutable(folder: Path) -> Any:
    return [_sqlite(folder, name, "?mode=ro&immutable=1") for name in ("rollback.sqlite", "wal.sqlite")]


@probe
def sqlite_as_if_writable(folder: Path) -> Any:
    """The default mode of most programs, even of those that only query."""
    return _sqlite(folder, "rollback.sqlite", "")


@probe
def sqlite_mapped(folder: Path) -> Any:
    import sqlite3

    with closing(sqlite3.connect(f"file:{folder}/databases/rollback.sqlite?mode=ro", uri=True)) as database:
        database.execute("pragma mmap_size = 100000000")
        return [database.execute(query).fetchall() for query in _SQL]


@probe
def duckdb_database(folder: Path) -> Any:
    import duckdb

    with closing(duckdb.connect(f"{folder}/databases/facts.duckdb", read_only=True)) as connection:
        return connection.sql("select kind, count(*), max(number), bit_xor(h) from facts group by kind order by kind").fetchall()


@probe
def lmdb_environment(folder: Path) -> Any:
    import lmdb

    with lmdb.open(f"{folder}/databases/words.lmdb", readonly=True, lock=False) as environment, environment.begin() as reader:
        keys = [key.decode() for key in reader.cursor().iternext(values=False)]
        everything = hashlib.sha256()
        for key, value in reader.cursor():
            everything.update(key + value)
        return [len(keys), keys[:3], everything.hexdigest(), reader.get(b"word1-1").hex()]


# --- models and code


@probe
def transformers_files(folder: Path) -> Any:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    model = folder / "model"
    config, generation = AutoConfig.from_pretrained(model), GenerationConfig.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = tokenizer("only what has to travel").input_ids
    return [type(config).__name__, config.hidden_size, generation.temperature, words, tokenizer.chat_template]


@probe
def safetensors_files(folder: Path) -> Any:
    import safetensors.numpy
    from safetensors import safe_open

    path = folder / "model/model.safetensors"
    with safe_open(path, framework="numpy") as file:
        rows = digest(file.get_slice("layers.2.weight")[100:200, ::3].copy())
        return [file.metadata(), rows, {name: digest(array) for name, array in safetensors.numpy.load(path.read_bytes()).items()}]


@probe
def python_imports(folder: Path) -> Any:
    """Python tries to write bytecode next to the source, and must cope with failing."""
    import importlib

    names = ("words", "words.count", "zipped_words")
    sys.path[:0] = [str(folder / "package"), str(folder / "package/zipped.zip")]
    try:
        importlib.invalidate_caches()
        words, zipped = importlib.import_module("words"), importlib.import_module("zipped_words")
        assert words.__file__.startswith(str(folder))
        return [words.count("only what is read"), zipped.ANSWER]
    finally:
        del sys.path[:2]
        for name in names:
            sys.modules.pop(name, None)


@probe
def python_archives(folder: Path) -> Any:
    import gzip
    import lzma
    import tarfile
    import zipfile

    archives = folder / "archives"
    with zipfile.ZipFile(archives / "plain.zip") as file:
        zipped = [file.testzip(), file.namelist(), digest(file.read("noise.bin"))]
    answer: list[Any] = [zipped]
    for name in ("plain.tar", "plain.tar.gz"):
        with tarfile.open(archives / name) as tar:
            member = tar.extractfile("noise.bin")
            assert member is not None
            answer.append([tar.getnames(), digest(member.read())])
    with gzip.open(archives / "plain.tar.gz") as unzipped, lzma.open(archives / "text.txt.xz") as text:
        return [*answer, digest(unzipped.read()), digest(text.read())]


# --- system calls


@probe
def sendfile(folder: Path) -> Any:
    """From the page cache into a socket, as web servers do."""
    with (folder / "plain/noise.bin").open("rb") as file:
        return _through(*socket.socketpair(), lambda sender: sender.sendfile(file))


@probe
def splice(folder: Path) -> Any:
    """Pages moved into a pipe without a copy."""
    found = hashlib.sha256()
    with (folder / "plain/noise.bin").open("rb") as file:
        reading, writing = os.pipe()
        try:
            while moved := os.splice(file.fileno(), writing, 60_000):
                while moved:
                    piece = os.read(reading, moved)
                    found.update(piece)
                    moved -= len(piece)
        finally:
            os.close(reading)
            os.close(writing)
    return found.hexdigest()


@probe
def copy_file_range(folder: Path) -> Any:
    size = (folder / "plain/noise.bin").stat().st_size
    with (folder / "plain/noise.bin").open("rb") as file, tempfile.TemporaryFile() as copy:
        try:
            while os.copy_file_range(file.fileno(), copy.fileno(), size):
                pass
        except OSError:  # EXDEV across file systems: programs fall back to copying
            os.sendfile(copy.fileno(), file.fileno(), 0, size)
        copy.seek(0)
        return digest(copy.read())


def _through(sender: socket.socket, receiver: socket.socket, send: Callable[[socket.socket], object]) -> str:
    def feed() -> None:
        with sender:
            send(sender)

    feeder = threading.Thread(target=feed)
    feeder.start()
    found = hashlib.sha256()
    with receiver:
        while piece := receiver.recv(1 << 16):
            found.update(piece)
    feeder.join()
    return found.hexdigest()


@probe
def positioned_reads(folder: Path) -> Any:
    """pread and preadv around page borders and the end of the file, with fadvise hints."""
    with (folder / "plain/noise.bin").open("rb") as file:
        fd, size = file.fileno(), os.fstat(file.fileno()).st_size
        os.posix_fadvise(fd, 0, size, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(fd, 1 << 20, 1 << 20, os.POSIX_FADV_WILLNEED)
        places = [0, 1, 4095, 4096, 131_071, (1 << 20) - 1, size - 4097, size - 1, size, size + 9]
        pieces = [os.pread(fd, 5000, place) for place in places]
        buffers = [bytearray(10), bytearray(70_000), bytearray(0), bytearray(3)]
        return [[digest(piece) for piece in pieces], os.preadv(fd, buffers, 99_999), [digest(buffer) for buffer in buffers]]


@probe
def direct_reads(folder: Path) -> Any:
    """O_DIRECT with an aligned buffer; the last read is short."""
    fd = os.open(folder / "plain/noise.bin", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 64 * 1024) as buffer:
            found, place = hashlib.sha256(), 0
            while count := os.preadv(fd, [buffer], place):
                found.update(buffer[:count])
                place += count
            return [place, found.hexdigest(), os.preadv(fd, [memoryview(buffer)[:4096]], 4096 * 17), digest(buffer[:4096])]
    finally:
        os.close(fd)


@probe
def mappings(folder: Path) -> Any:
    with (folder / "plain/noise.bin").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_SEQUENTIAL)
            whole = [digest(mapped), mapped.find(b"\x00\x01\x02"), len(mapped)]
        with mmap.mmap(file.fileno(), 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=1 << 20) as private:
            private[:4] = b"mine"
            return [*whole, digest(private)]


@probe
def locks_and_places(folder: Path) -> Any:
    """Advisory locks, SEEK_DATA and SEEK_HOLE, and reopening through /proc/self/fd."""
    with (folder / "plain/holes.bin").open("rb") as file:
        fd, size = file.fileno(), os.fstat(file.fileno()).st_size
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 50)
        fcntl.lockf(fd, fcntl.LOCK_UN, 100, 50)
        data, end = os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, size - 1, os.SEEK_HOLE)
        with open(f"/proc/self/fd/{fd}", "rb") as again:
            return [size, data, end, digest(again.read())]


@probe
def directories(folder: Path) -> Any:
    """Walk by directory descriptors, and compare d_ino with st_ino."""
    names = [[os.path.relpath(top, folder), sorted(below), sorted(files)] for top, below, files, _ in os.fwalk(folder)]
    with os.scandir(folder / "plain") as entries:
        kinds = sorted((entry.name, entry.is_file(), entry.inode() == entry.stat().st_ino) for entry in entries)
    return [sorted(names), kinds]


def main() -> None:
    chosen = PROBES[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(chosen(Path(line.rstrip("\n"))), default=str), flush=True)


if __name__ == "__main__":
    main()
