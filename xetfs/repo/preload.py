"""Fetching chosen files into the store before anybody reads them: `xetfs mount --prefetch GLOB`.

The files are taken in the order of the globs, each from its beginning, in windows of which a few are under way. What the store
holds already is passed over, so an interrupted run goes on where it was. Whoever reads goes first: windows are loaded at
prefetch urgency, and none is begun while a reader waits for one of his, for a while at least.

Nothing is fetched that would push out what was fetched before it: when the chosen files are larger than what the cache may
keep, the run ends when that is full. Without a network it waits and tries again; a file that cannot be had for another reason is
left out.

A glob is what `hf download --include` takes: fnmatch on the whole path in the repo, where `*` goes across `/`, and `name/` is
everything under a directory (huggingface_hub, utils/_paths.py, filter_repo_objects).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from xetfs.errors import RateLimited, Unavailable, XetfsError
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.repo.limiter import AdaptiveLimiter
from xetfs.repo.patience import patiently
from xetfs.repo.verify import files_under
from xetfs.repo.view import Node, RepoView
from xetfs.units import MIB

if TYPE_CHECKING:
    from xetfs.repo.engine import Engine

log = logging.getLogger(__name__)

WINDOW_BYTES: Final = 8 * MIB
"""A window has to come within the deadline of an operation; one after the other at 300 kB/s."""
IN_FLIGHT_BYTES_MAX: Final = 64 * MIB
"""Maximum bytes in flight: less than all of the memory that readers share. Adapts to the link, down to one window."""
IN_FLIGHT_BYTES_STEP: Final = 1 * MIB
WINDOW_COST_MIN: Final = 4 * MIB
"""What a small file counts against that: 16 requests at once leave half of the connections to readers."""
CACHE_SHARE: Final = 0.9
"""How much of what the cache may hold is filled. The rest is for listings, maps and what readers read meanwhile."""
YIELD_S: Final = 1.0
"""How long a window waits for readers to be served. They may never stop reading, and what they read next may be this."""

State = Literal["matching", "fetching", "waiting", "done", "full", "failed", "cancelled"]
"""waiting: nobody answers, it will try again. full: the cache keeps no more. failed: the files could not be listed, or a bug.
cancelled: ended from outside."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Snapshot of a run. files, bytes: what was chosen; files_done, bytes_done: of that, what is in the store; files_failed:
    files left out. unmatched: globs that match no file. room_bytes: how much the cache has room for. reason: for the state, or
    why a file was left out."""

    globs: tuple[str, ...]
    state: State = "matching"
    unmatched: tuple[str, ...] = ()
    files: int = 0
    files_done: int = 0
    files_failed: int = 0
    bytes: int = 0
    bytes_done: int = 0
    room_bytes: int = 0
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("done", "full", "failed", "cancelled")


@dataclass(slots=True, eq=False)
class _Fetching:
    """A chosen file on its way. done: bytes of it that are in the store. error: why it is left out."""

    node: Node
    done: int = 0
    error: XetfsError | None = None


class Preload:
    """One run over the files of a view that match any of some globs. matched: set when they are chosen, or cannot be."""

    def __init__(self, engine: Engine, view: RepoView, globs: Sequence[str]) -> None:
        self._progress = Progress(tuple(globs))
        self.matched = trio.Event()
        self._engine = engine
        self._view = view
        self._begin = trio.Event()
        self._chosen: list[Node] = []
        self._limiter = AdaptiveLimiter(most=IN_FLIGHT_BYTES_MAX, least=WINDOW_BYTES, step=IN_FLIGHT_BYTES_STEP)
        self._begun_bytes = 0

    @property
    def progress(self) -> Progress:
        """How far the run is now."""
        return self._progress

    def _update(self, **changes: Any) -> None:
        self._progress = replace(self._progress, **changes)

    def begin(self) -> None:
        """Begin to fetch: until then the files are only chosen."""
        self._begin.set()

    async def run(self) -> None:
        """Choose the files; once begun, fetch them until they are in the store, or the cache is full. Lets no error out."""
        try:
            try:
                await self._patiently(self._match)
            finally:
                self.matched.set()
            await self._begin.wait()
            self._update(state="fetching")
            full = await self._fetch_chosen()
            await self._engine.shelf.wait_written()
            await self._engine.flush()
            self._update(state="full", reason=full) if full else self._update(state="done")
            progress = self._progress
            log.info("prefetch %s files=%d/%d bytes=%d/%d %s", progress.state, progress.files_done, progress.files,
                     progress.bytes_done, progress.bytes, progress.reason)  # fmt: skip
        except XetfsError as exc:
            self._update(state="failed", reason=str(exc))
            log.warning("prefetch failed: %s", exc)
        except Exception as exc:
            self._update(state="failed", reason=f"a bug in xetfs: {type(exc).__name__}")
            log.exception("prefetch failed")
        except trio.Cancelled:
            self._update(state="cancelled")
            raise

    async def _match(self) -> None:
        """Choose the files; lists all directories. Raises the errors of listing them."""
        files = await files_under(self._view, self._view.root)
        found = {glob: [node for node in files if matches(node.path, glob)] for glob in self._progress.globs}
        self._chosen = list(dict.fromkeys(node for nodes in found.values() for node in nodes))
        room_bytes = await self._room_bytes()
        self._update(
            unmatched=tuple(glob for glob, nodes in found.items() if not nodes),
            files=len(self._chosen),
            bytes=sum(node.size for node in self._chosen),
            room_bytes=room_bytes,
        )

    async def _fetch_chosen(self) -> str:
        """Fetch until everything is done that can be; why it was not begun with all of it, "" if it was."""
        async with trio.open_nursery() as nursery:
            for node in self._chosen:
                full = await self._begin_file(node, nursery)
                if full:
                    return full
        return ""

    async def _begin_file(self, node: Node, nursery: trio.Nursery) -> str:
        """Begin the windows of a file, each where the one before it ends; they go on in `nursery`. Why not all of them: the cache
        takes no more."""
        fetching = _Fetching(node)
        self._take_note(fetching, 0)
        at = 0
        while at < node.size and fetching.error is None:
            span = ByteRange(at, min(at + WINDOW_BYTES, node.size))
            self._begun_bytes += len(span)
            room_bytes = await self._room_bytes()
            self._update(room_bytes=room_bytes)
            if self._begun_bytes > room_bytes:
                return "the cache keeps no more; see --cache-size"
            at = await nursery.start(self._fetch_window, fetching, span)
        return ""

    async def _fetch_window(
        self, fetching: _Fetching, span: ByteRange, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have a window of a file in the store; started, as soon as that is known, with where it ends."""
        reader = self._view.open_file(fetching.node)
        end = 0

        def on_covered(until: int) -> None:
            nonlocal end
            if not end:
                end = until
                task_status.started(end)

        try:
            await self._patiently(partial(self._bring, reader, span, on_covered))
            self._take_note(fetching, end - span.start)
        except XetfsError as exc:
            self._give_up(fetching, exc)
            on_covered(span.end)
        finally:
            reader.close()

    async def _bring(self, reader: FileReader, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        """Load a window when it is its turn, after the programs that wait."""
        cost = max(len(span), WINDOW_COST_MIN)
        async with self._limiter.hold(cost):
            await self._view.quotas.leave_room()
            with trio.move_on_after(YIELD_S):
                await self._engine.wait_served()
            await reader.bring(span, on_covered)

    def _take_note(self, fetching: _Fetching, count: int) -> None:
        fetching.done += count
        known = self._progress
        self._update(bytes_done=known.bytes_done + count, files_done=known.files_done + (fetching.done == fetching.node.size))

    def _give_up(self, fetching: _Fetching, error: XetfsError) -> None:
        if fetching.error is None:
            fetching.error = error
            self._update(files_failed=self._progress.files_failed + 1, reason=f"{fetching.node.path}: {error}")
            log.warning("not prefetched path=%r: %s", fetching.node.path, error)

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, again and again while nobody answers. Raises its other errors."""
        state = self._progress.state

        def on_wait(reason: str) -> None:
            self._update(state="waiting", reason=reason)

        await patiently(work, errors=(Unavailable, RateLimited, trio.TooSlowError), on_wait=on_wait)
        if self._progress.state == "waiting":
            self._update(state=state, reason="")

    async def _room_bytes(self) -> int:
        """How much the cache may be filled with: nothing while the disk fails. One hop to a thread."""
        store = await self._engine.shelf.statistics()
        return 0 if store.state == "failing" else int(CACHE_SHARE * store.bytes_max)


def matches(path: str, glob: str) -> bool:
    return fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob)
