"""What follows the opening of a shard index: programs open the shards then, one after the other, and read the header of each.

With the headers at hand these openings cost no round trips: 64 shards would take some 128 of them, one by one. Their bytes are
those that the openings would move. It is a hint: what cannot be fetched is left to whoever reads it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from xetfs.errors import XetfsError
from xetfs.protocol.formats.shards import INDEX_BYTES_MAX, shards_of
from xetfs.protocol.ranges import ByteRange
from xetfs.units import KIB

if TYPE_CHECKING:
    from xetfs.repo.view import Node, RepoView

log = logging.getLogger(__name__)

HEADER_BYTES: Final = 512 * KIB
"""What the kernel asks for when the first page of a shard is touched through a mapping (Settings.read_ahead_units_kb)."""
SHARDS_MAX: Final = 256
"""More shards than models have: what an index makes to be fetched has to end somewhere."""
AT_ONCE: Final = 16
"""Half of the connections."""


async def fetch_headers(view: RepoView, index: Node) -> None:
    """Have the beginnings of the shards that an index names in the store."""
    try:
        if index.size > INDEX_BYTES_MAX or index.parent is None:
            return
        names = await trio.to_thread.run_sync(shards_of, await _read(view, index))
        waiting = iter(names[:SHARDS_MAX])

        async def work(directory: Node) -> None:
            for name in waiting:
                await _fetch_header(view, directory, name)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work, index.parent)
    except (XetfsError, trio.TooSlowError) as exc:
        log.debug("no headers of shards index=%r: %s", index.path, exc)


async def _read(view: RepoView, index: Node) -> bytes:
    reader = view.open_file(index)
    try:
        return bytes(await reader.read(ByteRange(0, index.size)))
    finally:
        reader.close()


async def _fetch_header(view: RepoView, directory: Node, name: str) -> None:
    try:
        node = await view.lookup(directory, name)
        if not node.size:
            return
        reader = view.open_file(node)
        try:
            await reader.bring(ByteRange(0, min(HEADER_BYTES, node.size)), lambda until: None)
        finally:
            reader.close()
    except (XetfsError, trio.TooSlowError) as exc:
        log.debug("no header of a shard name=%r: %s", name, exc)
