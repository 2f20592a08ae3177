"""FileReader: one opening of a file; the only thing that the fronts see of this room."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.access import Access
from xetfs.reader.content import Buffer, FileContent
from xetfs.reader.filemap import FileMap
from xetfs.reader.sources import Source
from xetfs.units import MIB

STREAM_CHUNK_BYTES: Final = 1 * MIB
"""Longest piece of a stream: enough that passing it on costs little beside what it holds."""


class FileReader:
    """Reads a content that is shared with other readers; fetches with the right of the view that opened it. Event loop only."""

    __slots__ = ("_access", "content", "size")

    def __init__(self, content: FileContent, access: Access) -> None:
        self.content = content
        self.size = content.size
        self._access = access

    @property
    def source(self) -> Source:
        """Where bytes are fetched from that are not held."""
        return self._access.source

    @property
    def map(self) -> FileMap:
        """What is known of the content."""
        return self.content.map

    def read_nowait(self, span: ByteRange) -> Buffer | None:
        """The bytes of `span` as far as the file goes, if all are at hand; None if something must be waited for.

        Whoever gets None calls `read` with the same span.
        """
        return self.content.read_nowait(span, self._access)

    async def read(self, span: ByteRange) -> Buffer:
        """The bytes of `span`, exactly as many as the file has there.

        Raises what the source raised, CorruptData if no valid copy could be fetched, Evicted if the bytes cannot be kept,
        trio.TooSlowError when a window was not done in time. A cancelled read leaves nothing behind; windows that nobody else
        waits for end with it.
        """
        return await self.content.read(span, self._access)

    def stream(self, span: ByteRange, *, chunk_bytes: int = STREAM_CHUNK_BYTES) -> AsyncGenerator[memoryview, None]:
        """Yield the bytes of `span` in order, as far as the file goes, in pieces of at most `chunk_bytes`, which are not copied.

        For whoever reads all of a range, such as the body of an answer: it is loaded ahead from the start and never past its
        end, and no further ahead of the piece that was taken last than ReaderSettings.ahead_bytes_max. Take it to its end, or
        within `contextlib.aclosing`. Raises what `read` raises; the pieces before an error are right.
        """
        return self.content.stream(span, self._access, chunk_bytes)

    async def evict(self) -> None:
        """Drop what is held of the content, in memory and in the store, also what it shares with others; it is fetched again
        when it is read."""
        await self.content.evict()

    async def bring(self, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        """Have the bytes of `span` (within the file, not empty) held, at the urgency of what nobody waits for; not a read.

        on_covered: called as soon as it is known up to where that will be, at least the end of `span`. Raises what `read` does; a
        cancellation leaves nothing behind.
        """
        await self.content.bring(span, self._access, on_covered)

    def open(self) -> None:
        """Count one more user of the content; each needs its `close`."""
        self.content.open(self._access)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Count one user less; after the last, nothing is loaded ahead any more."""
        self.content.close()

    def __repr__(self) -> str:
        return f"FileReader({self.content!r})"
