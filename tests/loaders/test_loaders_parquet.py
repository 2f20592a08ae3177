"""Tables, as pyarrow reads them: the footer first, then column chunks."""

from __future__ import annotations

import hashlib

import pyarrow.parquet
import pytest
from loader_data import COLUMNS, CUT_BYTES, MIB, ROW_GROUPS, ROWS, TABLE
from loader_runs import Loaders

READ = """
import hashlib, sys
import pyarrow.parquet
file = pyarrow.parquet.ParquetFile(sys.argv[1], memory_map=sys.argv[2] == "mapped")
table = file.read_row_groups([int(number) for number in sys.argv[3].split(",")], columns=sys.argv[4:])
for name in table.column_names:
    print(name, hashlib.sha256(table[name].to_numpy()).hexdigest())
"""
CHUNK_BYTES = 8 * ROWS
WAYS = pytest.mark.parametrize("way", ["mapped", "read"])


def check(loaders: Loaders, way: str, groups: list[int], columns: list[str]) -> int:
    """Compare the content; the bytes moved."""
    table = pyarrow.parquet.ParquetFile(loaders.folder / TABLE).read_row_groups(groups, columns=columns)
    printed, moved = loaders.run(READ, TABLE, way, ",".join(map(str, groups)), *columns)
    assert printed.splitlines() == [f"{name} {hashlib.sha256(table[name].to_numpy()).hexdigest()}" for name in columns]
    return moved


@WAYS
@pytest.mark.production
def test_a_column(loaders: Loaders, way: str) -> None:
    moved = check(loaders, way, list(range(ROW_GROUPS)), ["column3"])
    assert ROW_GROUPS * CHUNK_BYTES <= moved <= ROW_GROUPS * (CHUNK_BYTES + MIB // 2)


@WAYS
def test_a_row_group(loaders: Loaders, way: str) -> None:
    moved = check(loaders, way, [2], [f"column{number}" for number in range(COLUMNS)])
    assert COLUMNS * CHUNK_BYTES <= moved <= COLUMNS * CHUNK_BYTES + 3 * MIB


@WAYS
def test_all_of_it(loaders: Loaders, way: str) -> None:
    moved = check(loaders, way, list(range(ROW_GROUPS)), [f"column{number}" for number in range(COLUMNS)])
    # Threads come to all column chunks at once, each with a window of its own: what lies across two of them comes twice.
    twice = ROW_GROUPS * COLUMNS * sum(CUT_BYTES) // 2
    assert moved <= (loaders.folder / TABLE).stat().st_size + twice
