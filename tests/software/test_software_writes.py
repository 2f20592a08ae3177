"""Programs that try to write to a mount fail and show "Read-only file system"."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from software_runs import functions, run, script

WRITES = Path(__file__).with_name("writes.sh")
EROFS = b"Read-only file system"

# Python programs: the reason must be in the last line of the traceback.
SAVES = {
    "numpy": "import numpy; numpy.save('arrays/floats.npy', numpy.zeros(3))",
    "numpy memmap": "import numpy; numpy.memmap('arrays/raw.f32', 'f4', mode='r+')",
    "h5py": "import h5py; h5py.File('arrays/data.h5', 'r+')",
    "pandas": "import pandas; pandas.DataFrame({'a': [1]}).to_csv('tables/new.csv')",
    "pyarrow": "import pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.table({'a': [1]}), 'tables/new.parquet')",
    "polars": "import polars; polars.DataFrame({'a': [1]}).write_parquet('tables/new.parquet')",
    "duckdb": "import duckdb; duckdb.connect().sql(\"copy (select 1) to 'tables/new.csv'\")",
    "datasets": "import datasets; datasets.load_from_disk('saved').save_to_disk('again')",
    "tokenizer": "from transformers import AutoTokenizer as A; A.from_pretrained('model').save_pretrained('model')",
    "zipfile": "import zipfile; zipfile.ZipFile('archives/plain.zip', 'a')",
    "tempfile": "import tempfile; tempfile.NamedTemporaryFile(dir='plain')",
}

# Programs that write beside what they read unless told otherwise: what fails, and what works (docs/semantics.md, Programs).
OPTIONS = {
    "sqlite wal": (
        "import sqlite3; sqlite3.connect('file:databases/wal.sqlite?mode=ro', uri=True).execute('select * from words')",
        "import sqlite3; sqlite3.connect('file:databases/wal.sqlite?immutable=1', uri=True).execute('select * from words')",
    ),
    "duckdb": (
        "import duckdb; duckdb.connect('databases/facts.duckdb')",
        "import duckdb; duckdb.connect('databases/facts.duckdb', read_only=True).sql('select * from facts').fetchall()",
    ),
    "lmdb": (
        "import lmdb; lmdb.open('databases/words.lmdb')",
        "import lmdb; assert lmdb.open('databases/words.lmdb', readonly=True).stat()['entries']",
    ),
    "datasets map": (
        "import datasets; datasets.load_from_disk('saved').map(lambda row: {'more': 1})",
        "import datasets; datasets.load_from_disk('saved').map(lambda row: {'more': 1}, keep_in_memory=True)",
    ),
}


@pytest.mark.parametrize(("program", "with_option"), OPTIONS.values(), ids=OPTIONS.keys())
def test_programs_with_an_option_for_read_only_files(steady: Path, program: str, with_option: str) -> None:
    assert run([sys.executable, "-c", program], cwd=steady).returncode == 1
    done = run([sys.executable, "-c", with_option], cwd=steady)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("program", SAVES.values(), ids=SAVES.keys())
def test_a_library_reports_a_read_only_file_system(steady: Path, program: str) -> None:
    done = run([sys.executable, "-c", program], cwd=steady)
    assert done.returncode == 1
    assert EROFS in done.stderr.splitlines()[-1], done.stderr[-2000:]


@pytest.mark.parametrize("name", functions(WRITES))
def test_a_command_reports_a_read_only_file_system(steady: Path, name: str) -> None:
    done = run(script(WRITES, name), cwd=steady)
    assert done.returncode != 0
    assert EROFS in done.stderr, done.stderr[-2000:]
