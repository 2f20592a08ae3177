"""`python fake_engine.py WHAT ARGUMENTS…`: the `xetfs` command over an engine without a Hub.

WHAT: `works`; the name of an error of ours or of Python that opening the repo raises; `hangs`; `interrupted`, which hangs and is
interrupted in the moment in which it goes into the background; `dies`; `leaks`, which logs and raises secrets.
"""

from __future__ import annotations

import builtins
import logging
import os
import signal
import sys
import types
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from command import TOKEN

import xetfs
from xetfs import errors
from xetfs.cli.main import main


def install(what: str) -> None:
    if what == "interrupted":
        os.register_at_fork(after_in_parent=partial(signal.raise_signal, signal.SIGINT))
    module = types.ModuleType("xetfs.repo")
    module.__path__ = [str(Path(xetfs.__file__).parent / "repo")]  # for what imports one of its modules

    class Engine:
        def __init__(self) -> None:
            from xetfs.telemetry import Counters

            self.counters = Counters()

        async def open_repo(self, ref: object, hub: object) -> object:
            import trio
            from fake_view import FakeRepoView

            if what == "works":
                view = FakeRepoView({"config.json": b"{}", "deep/data.bin": b"x" * 100_000})
                view.ref = ref  # type: ignore[assignment]
                view.hub = hub  # type: ignore[attr-defined]
                return view
            if what in ("hangs", "interrupted"):
                await trio.sleep_forever()
            if what == "dies":
                os._exit(3)
            if what == "leaks":
                log = logging.getLogger("xetfs.test")
                log.warning("token=%s url=%s", TOKEN, "https://cdn/x?X-Amz-Signature=canarysignature")
                log.debug("headers: Authorization: Bearer %s", TOKEN)
                raise ValueError(f"with {TOKEN} in it")
            kind = getattr(errors, what, None) or getattr(builtins, what)
            raise kind("what happened")

    @asynccontextmanager
    async def open_engine(settings: object) -> AsyncIterator[Engine]:
        import trio

        async with trio.open_nursery():  # as the real one, so that errors come in groups
            yield Engine()

    module.open_engine = open_engine  # type: ignore[attr-defined]
    sys.modules["xetfs.repo"] = module


if __name__ == "__main__":
    warnings.simplefilter("error")
    install(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
