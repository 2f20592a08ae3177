"""FileReader: one opening of a file; the only thing that the fronts see of this room."""

from __future__ import annotations

from collections.abc import Callable

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.access import Access
from xetfs.reader.content import Buffer, FileContent
from xetfs.reader.filemap import FileMap
from xetfs.reader.sources import Source


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

    async def bring(self, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        """Have the bytes of `span` (within the file, not empty) held, at the urgency of what nobody waits for; not a read.

        on_covered: called as soon as it is known up to where that will be, at least the end of `span`. Raises what `read` does; a
        cancellation leaves nothing behind.
        """
        await self.content.bring(span, self._access, on_covered)

    def open(self) -> None:
        """Count one more user of the content; each needs its `close`."""
        self.content.open(self._access)

    def close(self) -> None:
        """Count one user less; after the last, nothing is loaded ahead any more."""
        self.content.close()

    def __repr__(self) -> str:
        return f"FileReader({self.content!r})"
