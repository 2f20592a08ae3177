"""Read the begin of a file through the engine, without a mount: what instructions are counted of.

    python engine_read.py ENDPOINT REPO FILE CACHE_DIR LENGTH BLOCK

Run by the interpreter of the version under test, and by path: it knows of nothing but xetfs. LENGTH 0 opens the file only; BLOCK
bytes are read at a time.
"""

import sys
from pathlib import Path

import trio

from xetfs import settings as limits
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import open_engine

try:
    from xetfs.hub.endpoint import Hub
except ImportError:  # versions up to 0.8 know one Hub, from their settings
    Hub = None


async def read(endpoint: str, repo: str, name: str, cache_dir: Path, length: int, block: int) -> int:
    """The bytes given."""
    given = 0
    nested = hasattr(limits, "StoreSettings")  # versions up to 0.8 have no sections
    store = {"store": limits.StoreSettings(cache_dir=cache_dir)} if nested else {"cache_dir": cache_dir}
    hub, named = ((), {"endpoint": endpoint}) if Hub is None else ((Hub(endpoint),), {})
    async with open_engine(limits.Settings(operation_deadline_s=600, **named, **store)) as engine:
        view = await engine.open_repo(RepoRef.parse(repo), *hub)
        reader = view.open_file(await view.lookup(view.root, name))
        for start in range(0, length, block):
            span = ByteRange(start, start + block)
            data = reader.read_nowait(span)
            given += len(await reader.read(span) if data is None else data)
        reader.close()
    return given


if __name__ == "__main__":
    endpoint, repo, name, cache_dir, length, block = sys.argv[1:]
    if trio.run(read, endpoint, repo, name, Path(cache_dir), int(length), int(block)) != int(length):
        sys.exit("the file is shorter than that")
