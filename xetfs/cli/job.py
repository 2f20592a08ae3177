"""Serving one mount, from opening the engine to the end of the mount. Imported late: everything heavy comes with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from xetfs.cli.daemon import Ready, Started
from xetfs.cli.log import set_level
from xetfs.cli.process import tune_garbage_collection
from xetfs.cli.state import MountRecord, control_socket, record_file
from xetfs.cli.status import printable, size
from xetfs.control.operations import EngineOperations
from xetfs.control.report import describe_view
from xetfs.control.server import Operation, Report, open_control
from xetfs.errors import EntryNotFound, NotFound, RepoNotFound, Unavailable
from xetfs.fs.mount import serve_mount
from xetfs.repo import open_engine

if TYPE_CHECKING:
    from xetfs.cli.mount import MountPlan
    from xetfs.protocol.names import RepoRef
    from xetfs.repo import Engine, RepoView
    from xetfs.repo.preload import Preload, Progress

log = logging.getLogger(__name__)

OPEN_S: Final = 45.0
"""Limit for finding the repo and its root directory: a few attempts at a server that does not answer."""
MATCH_S: Final = 10.0
"""How long a mount waits until its files to prefetch are chosen, to warn of globs that match none. A large repo takes longer."""


class MountJob:
    """One mount by this process. Steps: open the repo, listen for requests, choose what to prefetch, mount, tell, prefetch."""

    def __init__(self, plan: MountPlan, ready: Ready) -> None:
        self._plan = plan
        self._ready = ready
        self._record_file = record_file(plan.path, os.environ)
        self._record: MountRecord | None = None

    async def run(self) -> None:
        """Serve the mount until it is unmounted. Raises what stands in its way before it is ready."""
        plan = self._plan
        async with open_engine(plan.settings) as engine, trio.open_nursery() as nursery, AsyncExitStack() as stack:
            view = await self._open_repo(engine)
            operations = EngineOperations(engine, lambda: [view], nursery, lambda: self._about(view))
            socket = await self._listen(operations, stack)
            preload = await self._choose(operations, view)
            self._record = MountRecord.of_this_process(plan.path, str(view.ref), view.commit, control=socket)
            try:
                await serve_mount(
                    view,
                    plan.path,
                    plan.settings,
                    counters=engine.counters,
                    allow_other=plan.allow_other,
                    on_ready=lambda device: self._mounted(view, device, preload),
                )
            finally:
                self._record.remove(self._record_file)
                nursery.cancel_scope.cancel()

    async def _open_repo(self, engine: Engine) -> RepoView:
        ref = self._plan.ref
        with trio.move_on_after(OPEN_S):
            try:
                return await engine.open_repo(ref, self._plan.hub)
            except NotFound as exc:
                exc.hint = _hint_for_missing(ref, exc) or exc.hint
                raise
        raise Unavailable(f"{ref}: no answer from the Hub within {OPEN_S:g} s", hint="check the network and HF_ENDPOINT")

    async def _listen(self, operations: EngineOperations, stack: AsyncExitStack) -> str:
        """Answer at a control socket; its path, or "" if there can be none, which costs no more than the status."""
        path = control_socket(self._plan.path, os.environ)
        table = {**operations.table, "log-level": Operation(_set_log_level, {"level": ""})}
        try:
            await stack.enter_async_context(open_control(path, table))
        except OSError as exc:
            log.warning("no control socket, 'xetfs status' will say little of this mount socket=%s: %s", path, exc)
            return ""
        return str(path)

    async def _choose(self, operations: EngineOperations, view: RepoView) -> Preload | None:
        """Choose the files of --prefetch, if that is quick; their fetching begins with the mount."""
        if not self._plan.prefetch:
            return None
        preload = operations.start_prefetch(view, self._plan.prefetch)
        with trio.move_on_after(MATCH_S):
            await preload.matched.wait()
        return preload

    def _mounted(self, view: RepoView, device: str, preload: Preload | None) -> None:
        """The directory can be listed: leave a record, tell the user, begin to prefetch."""
        tune_garbage_collection()
        assert self._record is not None
        self._record = replace(self._record, device=device)
        try:
            self._record.write(self._record_file)
        except OSError as exc:
            log.warning("no record of this mount, umount will not wait for its end file=%s: %s", self._record_file, exc.strerror)
        warnings = prefetch_warnings(preload.progress) if preload is not None else ()
        self._ready(Started(f"mounted {view.ref} ({view.commit[:12]}) at {self._plan.path}", warnings))
        if preload is not None:
            preload.begin()

    def _about(self, view: RepoView) -> Mapping[str, object]:
        return {"mountpoint": str(self._plan.path), **describe_view(view)}


def _hint_for_missing(ref: RepoRef, exc: NotFound) -> str:
    """What the user may have meant by a repo or folder that does not exist, or "" if nothing suggests itself."""
    first, _, owner = ref.repo.name.partition("/")
    if isinstance(exc, RepoNotFound) and ref.repo.kind == "model" and first in ("model", "dataset", "space") and ref.subfolder:
        prefix = "" if first == "model" else f"{first}s/"
        return f"did you mean {prefix}{owner}/{ref.subfolder}?"
    if isinstance(exc, EntryNotFound) and ref.subfolder:
        return f"name a folder, not a file, or mount all of {ref.repo}"
    return ""


async def _set_log_level(report: Report, *, level: str) -> Mapping[str, object]:
    return {"level": level, "before": set_level(level)}


def prefetch_warnings(progress: Progress) -> tuple[str, ...]:
    """What the user should know of a run that is about to begin."""
    warnings = [f"--prefetch {printable(glob)!r} matches no file" for glob in progress.unmatched]
    if progress.bytes > progress.room_bytes:
        warnings.append(
            f"--prefetch asks for {size(progress.bytes)}, the cache keeps {size(progress.room_bytes)} of them; see --cache-size"
        )
    return tuple(warnings)
