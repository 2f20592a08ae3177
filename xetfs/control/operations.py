"""The operations of an engine that a request may ask for; docs/control.md describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import trio

from xetfs.control.report import describe_engine, describe_report, metrics_of
from xetfs.control.server import Operation, Report
from xetfs.errors import InvalidArgument, RepoNotFound
from xetfs.repo.preload import Preload
from xetfs.repo.verify import Report as VerifyReport
from xetfs.repo.verify import files_under, verify_files
from xetfs.telemetry import exposition

if TYPE_CHECKING:
    from xetfs.repo import Engine, RepoView

PREFETCHES_MAX: Final = 4
"""Prefetch runs at the same time: each brings its own bytes in flight."""
PREFETCHES_SHOWN_MAX: Final = 8


class EngineOperations:
    """views: the repos that requests may name. about: what a front adds to the status. nursery: for prefetch runs."""

    def __init__(
        self,
        engine: Engine,
        views: Callable[[], Sequence[RepoView]],
        nursery: trio.Nursery,
        about: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        self._engine = engine
        self._views = views
        self._nursery = nursery
        self._about = about
        self._runs: list[tuple[Preload, trio.CancelScope]] = []
        self._since_s = trio.current_time()

    @property
    def table(self) -> dict[str, Operation]:
        return {
            "status": Operation(self._status),
            "metrics": Operation(self._metrics),
            "prefetch": Operation(self._prefetch, {"repo": "", "globs": ()}),
            "evict": Operation(self._evict, {"repo": "", "path": ""}),
            "verify": Operation(self._verify, {"repo": "", "path": "", "deep": False}),
            "drain": Operation(self._drain),
        }

    async def _status(self, report: Report) -> Mapping[str, object]:
        document = await describe_engine(self._engine, self._views(), uptime_s=trio.current_time() - self._since_s)
        runs = [asdict(preload.progress) for preload, _ in self._runs]
        return {**document, "prefetch": runs[-1] if runs else None, "prefetches": runs, **self._about()}

    async def _metrics(self, report: Report) -> Mapping[str, object]:
        return {"text": exposition(await metrics_of(self._engine, uptime_s=trio.current_time() - self._since_s))}

    def start_prefetch(self, view: RepoView, globs: Sequence[str]) -> Preload:
        """A run that chooses its files now, and fetches them once it is begun."""
        preload = Preload(self._engine, view, globs)
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await preload.run()

        ended = [item for item in self._runs if item[0].progress.ended]
        for item in ended[: max(len(self._runs) + 1 - PREFETCHES_SHOWN_MAX, 0)]:
            self._runs.remove(item)
        self._runs.append((preload, scope))
        self._nursery.start_soon(run)
        return preload

    async def _prefetch(self, report: Report, *, repo: str, globs: tuple[str, ...]) -> Mapping[str, object]:
        """Returns when the files are chosen; they are fetched in the background."""
        if not globs or "" in globs:
            raise InvalidArgument("prefetch: no globs", hint="'*' is every file")
        if self._engine.settings.store.cache_dir is None:
            raise InvalidArgument("prefetch fills the cache on disk, and there is none")
        if sum(not preload.progress.ended for preload, _ in self._runs) >= PREFETCHES_MAX:
            raise InvalidArgument(f"{PREFETCHES_MAX} prefetch runs are under way", hint="wait for one, or drain")
        preload = self.start_prefetch(self._view(repo), globs)
        preload.begin()
        await preload.matched.wait()
        return asdict(preload.progress)

    async def _evict(self, report: Report, *, repo: str, path: str) -> Mapping[str, object]:
        """Drop a file, or all below a folder, from memory and the store."""
        view = self._view(repo)
        files = await files_under(view, await view.find(path))
        for done, node in enumerate(files):
            report({"files": len(files), "files_done": done})
            reader = view.open_file(node)
            try:
                await reader.evict()
            finally:
                reader.close()
        return {"files": len(files), "bytes": sum(node.size for node in files)}

    async def _verify(self, report: Report, *, repo: str, path: str, deep: bool) -> Mapping[str, object]:
        view = self._view(repo)
        node = await view.find(path)
        files = await files_under(view, node)
        found = VerifyReport()
        bytes_done = 0

        def on_bytes(count: int) -> None:
            nonlocal bytes_done
            bytes_done += count
            report({"files": found.files, "files_done": found.kinds.total(), "bytes": found.bytes, "bytes_done": bytes_done})

        await verify_files(view, self._engine.shelf, files, found, deep=deep, on_bytes=on_bytes)
        return describe_report(found, view, node.path, deep=deep)

    async def _drain(self, report: Report) -> Mapping[str, object]:
        """End prefetch runs, and wait until the store has been given all that is to be kept."""
        ended = [scope for preload, scope in self._runs if not preload.progress.ended]
        for scope in ended:
            scope.cancel()
        await self._engine.shelf.wait_written()
        await self._engine.flush()
        return {"prefetches_ended": len(ended), "store": asdict(await self._engine.shelf.statistics())}

    def _view(self, repo: str) -> RepoView:
        """The repo of a request. Raises InvalidArgument if it does not say which, RepoNotFound if it is not open."""
        views = self._views()
        named = [view for view in views if repo in (str(view.repo), str(view.ref))] if repo else list(views)
        if not named:
            raise RepoNotFound(f"{repo or 'any repo'} is not open here")
        if len(named) > 1:
            raise InvalidArgument("several repos are open", hint='name one in "repo", as in the status')
        return named[0]
