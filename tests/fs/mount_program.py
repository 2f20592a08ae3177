"""`python mount_program.py DIR [MODE]`: mounts a small view and serves it.

Prints `ready` when it can be listed and `ended` at the end. A process of its own, as pyfuse3 holds one session per process, and a
process must not touch what it serves itself. MODE:
    large  many files
    bug    reads raise what nobody foresaw
    stall  reads that wait for ever
    crash  a failure of the session itself, a moment after it is ready
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path

import pyfuse3
import trio
from fake_view import FakeRepoView

from xetfs.errors import XetfsError
from xetfs.fs.mount import serve_mount
from xetfs.settings import Settings, StoreSettings
from xetfs.telemetry import Counters

FILES = {"config.json": b"{}", "empty": b"", "deep/er/data.bin": bytes(range(256)) * 4096, "näme ☃": b"snow"}


async def main(mountpoint: Path, mode: str) -> None:
    view = FakeRepoView({f"{index:06}": b"x" for index in range(20_000)} if mode == "large" else FILES)
    settings = Settings(store=StoreSettings(cache_dir=Path("/nowhere")), operation_deadline_s=2)
    crash = trio.Event()

    def ready(device: str) -> None:
        print("ready", flush=True)
        if mode == "crash":
            crash.set()
        if mode == "bug":
            view.raising = ValueError("a slip")
        if mode == "stall":
            view.at_hand = False
            view.waiting = trio.sleep_forever

    async def fail() -> None:
        await crash.wait()
        raise RuntimeError("a slip")

    if mode == "crash":
        original = pyfuse3.main

        async def failing_main(**options: int) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                await original(**options)

        pyfuse3.main = failing_main
    await serve_mount(view, mountpoint, settings, counters=Counters(), allow_other=False, on_ready=ready)  # type: ignore[arg-type]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        trio.run(main, Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
    except XetfsError as exc:
        print(f"refused {type(exc).__name__}: {exc}", flush=True)
    except RuntimeError:
        traceback.print_exc()
        print("failed", flush=True)
        os._exit(1)
    else:
        print("ended", flush=True)
