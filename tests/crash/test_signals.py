"""SIGTERM whatever the daemon is doing: it ends in time with 0, and nothing stays mounted."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest
from load import Load
from stage import Stage, Staged

from xetfs.cli.exits import Exit
from xetfs.fs import mountpoint as outside

END_S = 15.0
"""Within this the daemon must be gone; blocks on their way to the disk have 10 s of it."""
AFTER_END = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}


def end_in_time(stage: Stage) -> None:
    began_s = time.monotonic()
    assert stage.end(signal.SIGTERM) == Exit.OK
    assert time.monotonic() - began_s < END_S
    assert outside.mount_at(stage.path) is None
    assert os.listdir(stage.path) == []


def test_sigterm_when_busy(stage_of: Staged) -> None:
    stage = Stage(stage_of, "busy")
    try:
        stage.start()
        with Load(stage.path, stage_of.contents, readers=8, seed=1) as load:
            load.wait_done(50)
            end_in_time(stage)
            load.join(2.0)
        assert {exc.errno for exc, _ in load.errors} <= AFTER_END | {errno.ENOENT}  # the directory is empty again
        assert load.wrong == []
        stage.judge()
    finally:
        stage.clean_up()


@pytest.mark.parametrize("origin", ["hub", "cas", "transfer"])
def test_sigterm_with_a_dead_network(stage_of: Staged, origin: str) -> None:
    """Every request to one host hangs, and programs wait for what it does not send."""
    stage = Stage(stage_of, f"dead-{origin}")
    try:
        stage.start()
        stage_of.hub.control("POST", "faults", {"action": "stall", "origin": origin})
        failures: list[OSError] = []

        def read() -> None:
            path = "many/000.txt" if origin == "hub" else "weights/first.bin"
            try:
                (stage.path / path).read_bytes()
            except OSError as exc:
                failures.append(exc)

        readers = [threading.Thread(target=read, daemon=True) for _ in range(4)]
        for reader in readers:
            reader.start()
        while not any(fault["fired"] for fault in stage_of.hub.control("GET", "faults")):
            os.sched_yield()
        end_in_time(stage)
        for reader in readers:
            reader.join(2.0)
        assert not any(reader.is_alive() for reader in readers)
        assert len(failures) == len(readers)
        stage.judge()
    finally:
        stage.clean_up()


def test_sigterm_while_mounting(stage_of: Staged) -> None:
    """A mount that waits for the Hub can be given up."""
    stage = Stage(stage_of, "mounting")
    stage_of.hub.control("POST", "faults", {"action": "stall", "origin": "hub"})
    try:
        process = stage.begin()
        while not any(fault["fired"] for fault in stage_of.hub.control("GET", "faults")):
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) != Exit.OK
        assert outside.mount_at(stage.path) is None
    finally:
        stage.clean_up()
