"""Proving whole files of a repo, from the store where possible.

A file is read from its beginning to its end, through the same reader as everything else: what is held is read back, so that
each chunk's hash is checked, and what is not held is fetched. While it passes by, the names that the listing gives it are
computed: the file id over the hashes of all its chunks, the SHA-256 of an LFS file (of a file in Xet if asked), the id that git
gives it. If one is wrong, what was held of the file is dropped, and it is fetched once more: what was wrong may have been ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio

from xetfs.errors import CorruptData, Evicted, ProtocolViolation, Unavailable, XetfsError
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import FileMap, Level, Run
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Names
from xetfs.reader.whole import Digest, NameKind, accept, reject
from xetfs.repo.patience import patiently
from xetfs.units import MIB

if TYPE_CHECKING:
    from xetfs.repo.view import Node, RepoView

STEP_BYTES: Final = 4 * MIB
FILES_AT_ONCE: Final = 4
"""Small files wait for round trips, large ones fill the link alone."""
UNREACHABLE_MAX: Final = 8
"""Files in a row that cannot be had because nobody answers, each after its own patience; the rest is left unchecked then."""
READ_ATTEMPTS_MAX: Final = 5
"""Times that a step is read again because a part of it was evicted while another was read."""

OnBytes = Callable[[int], None]
"""Called with the bytes that were checked since the last call; negative when a file begins anew."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one file. right: the names that it was found to have, none if it has none that says anything.
    error: why it is not right, or could not be had. again: what was held of it was wrong, and is replaced."""

    path: str
    size: int
    right: tuple[NameKind, ...] = ()
    error: XetfsError | None = None
    again: bool = False

    @property
    def kind(self) -> Literal["right", "corrupt", "failed", "nameless"]:
        if self.error is not None:
            return "corrupt" if isinstance(self.error, (CorruptData, ProtocolViolation)) else "failed"
        return "right" if self.right else "nameless"


@dataclass(slots=True)
class Report:
    """The verdicts on all files. files and bytes: what there was to check. unchecked: files that were given up."""

    files: int = 0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    names: Counter[NameKind] = field(default_factory=Counter)
    again: int = 0
    wrong: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.kinds[verdict.kind] += 1
        self.names.update(verdict.right)
        self.again += verdict.again
        if verdict.error is not None:
            self.wrong.append(verdict)

    @property
    def unchecked(self) -> int:
        return self.files - self.kinds.total()


async def files_under(view: RepoView, node: Node) -> list[Node]:
    """The files under a node, or the file itself, in the order of their paths. Waits as long as the server asks."""
    return await patiently(lambda: _files_under(view, node))


async def _files_under(view: RepoView, node: Node) -> list[Node]:
    return [file async for file in view.walk(node)]


async def verify_files(
    view: RepoView, shelf: Shelf, files: Sequence[Node], report: Report, *, deep: bool, on_bytes: OnBytes
) -> None:
    """Prove files, a few at once, and fill in `report` as it goes.

    shelf: the engine's. deep: compute the SHA-256 of files in Xet too.
    Raises nothing that concerns one file; a cancellation leaves the report with the verdicts so far.
    """
    report.files = len(files)
    report.bytes = sum(file.size for file in files)
    waiting = iter(files)
    unreachable = 0

    async def work() -> None:
        nonlocal unreachable
        for node in waiting:
            verdict = await verify_file(view, shelf, node, deep=deep, on_bytes=on_bytes)
            report.add(verdict)
            unreachable = unreachable + 1 if isinstance(verdict.error, Unavailable) else 0
            if unreachable >= UNREACHABLE_MAX:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(FILES_AT_ONCE):
            nursery.start_soon(work)


async def verify_file(view: RepoView, shelf: Shelf, node: Node, *, deep: bool, on_bytes: OnBytes) -> Verdict:
    """Prove one file. Errors that concern it are in the verdict."""
    reader = view.open_file(node)
    names = Names.of(node.entry) if node.entry is not None else Names()
    try:
        found = await _judge(reader, names, shelf, deep=deep, on_bytes=on_bytes)
        again = bool(found.wrong)
        if again:
            on_bytes(-node.size)
            found = await _judge(reader, names, shelf, deep=deep, on_bytes=on_bytes)
        if found.wrong:
            error = CorruptData(f"its content does not have the {' and the '.join(_WORDS[kind] for kind in found.wrong)} listed")
            return Verdict(node.path, node.size, error=error)
        return Verdict(node.path, node.size, found.right, again=again)
    except XetfsError as exc:
        return Verdict(node.path, node.size, error=exc)
    except trio.TooSlowError:
        return Verdict(node.path, node.size, error=Unavailable("no answer in time"))
    finally:
        reader.close()


_WORDS: Final[dict[NameKind, str]] = {"file_id": "file id", "sha256": "SHA-256", "git_oid": "git id"}


@dataclass(frozen=True, slots=True)
class _Judgement:
    right: tuple[NameKind, ...]
    wrong: tuple[NameKind, ...]


async def _judge(reader: FileReader, names: Names, shelf: Shelf, *, deep: bool, on_bytes: OnBytes) -> _Judgement:
    """Read a file and compare its names; what is known and held of it follows from the answer."""
    digest = Digest(names, reader.size, sha256=deep)
    runs = await _pass_by(reader, digest, on_bytes)
    told = reader.source.names_of(runs)
    if told.file != names.file:  # it did not come from the CAS, so it is checked by its other name; it is held by now
        on_bytes(-reader.size)
        digest = Digest(told, reader.size, sha256=deep)
        runs = await _pass_by(reader, digest, on_bytes)
    verdicts = await trio.to_thread.run_sync(digest.verdicts)
    wrong = tuple(kind for kind, right in verdicts.items() if not right)
    if wrong:
        await reject(reader.content, runs, shelf)
    elif verdicts:
        accept(reader.content, runs)
    return _Judgement(tuple(kind for kind in verdicts if kind not in wrong), wrong)


async def _pass_by(reader: FileReader, digest: Digest, on_bytes: OnBytes) -> list[Run]:
    """Feed all of a file to a digest; the runs that it consists of."""
    runs: list[Run] = []
    at = known_until = 0
    while at < reader.size:
        span = ByteRange(at, min(at + STEP_BYTES, reader.size))
        data, parts = await _read_known(reader, span, known_until)
        await trio.to_thread.run_sync(_feed, digest, data, parts)
        runs += parts
        known_until = parts[-1].end if parts else known_until
        at = span.end
        on_bytes(len(span))
    return runs


def _feed(digest: Digest, data: bytes | bytearray | memoryview, parts: Sequence[Run]) -> None:
    digest.add_bytes(data)
    digest.add_runs(parts)


async def _read_known(reader: FileReader, span: ByteRange, known_until: int) -> tuple[bytes | bytearray | memoryview, list[Run]]:
    """The bytes of a span, and the runs from `known_until` on under it, whole chunks, by which they were read."""
    for _ in range(READ_ATTEMPTS_MAX):
        data = reader.read_nowait(span)
        if data is None:
            data = await patiently(partial(reader.read, span))
        parts = list(_runs_until(reader.map, known_until, span.end))
        if known_until >= span.end or (parts and parts[-1].end >= span.end):
            return data, parts
    raise Evicted(f"bytes {span.start}-{span.end} were evicted before they could be checked")


def _runs_until(known: FileMap, start: int, end: int) -> Iterator[Run]:
    """What is known from `start` (where a chunk begins) to at least `end`, as far as there is no gap."""
    while start < end:
        run = known.at(start)
        if run is None or run.level < Level.FRAMING:
            return
        first = run.position(start)
        if run.chunk_start(first) != start:
            return
        part = run.part(first, run.position(min(end, run.end) - 1) + 1)
        yield part
        start = part.end
