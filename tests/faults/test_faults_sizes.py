"""Files listed with a size that they do not have: an error when they are read, and nothing made as large as they claim."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from fault_bench import LENGTH, OFFSET, REPO, User, open_bench
from flat_settings import open_engine
from pyfuse3 import FUSEError

from xetfs.protocol.names import RepoId, RepoRef
from xetfs.testhub import Fault
from xetfs.units import MIB

SIZES = [2**46, 2**52, 100]
NAMES = ["f.bin", "old.bin", "plain.txt"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
async def test_a_file_of_another_size(tmp_path: Path, name: str, size: int) -> None:
    def claim(entries: Any) -> Any:
        for entry in entries:
            if entry["path"] == name:
                entry["size"] = size
                if "lfs" in entry:
                    entry["lfs"]["size"] = size
        return entries

    async with open_bench(tmp_path) as bench:
        bench.hub.faults.add(Fault("rewrite", origin="hub", path=r"/tree/[0-9a-f]{40}$", rewrite=claim))
        async with open_engine(bench.settings(tmp_path / "cache")) as engine:
            user = User(engine, await engine.open_repo(RepoRef(RepoId("model", REPO))))
            tracemalloc.start()
            try:
                if name == "f.bin" and size > 100:  # its proof is about another size, so it is read without; its bytes are right
                    assert await user.read(name, OFFSET, LENGTH) == bench.content[OFFSET : OFFSET + LENGTH]
                else:
                    with pytest.raises(FUSEError) as caught:
                        await user.read(name, 0 if size == 100 else OFFSET, LENGTH)
                    assert caught.value.errno in (5, 110)
                if size > 100:
                    with pytest.raises(FUSEError) as caught:
                        await user.read(name, size - LENGTH, LENGTH)
                assert tracemalloc.get_traced_memory()[1] < 32 * MIB
            finally:
                tracemalloc.stop()
    assert caught.value.errno in (5, 110)
