"""Many files, many shards, many threads: nothing runs out, nothing waits for ever."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from load import STEP_S, Load
from stage import SHARDS, Staged, mounted, open_files

OPEN_FILES = 2000
DAEMON_FILES_MAX = 1024
RUNS = int(os.environ.get("XETFS_MMAP_RUNS", "3"))


def test_2000_files_are_open_though_the_daemon_may_open_1024(stage_of: Staged) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with mounted(stage_of, "open") as stage:
        resource.prlimit(stage.pid, resource.RLIMIT_NOFILE, (DAEMON_FILES_MAX, DAEMON_FILES_MAX))
        paths = sorted(stage_of.contents)
        handles: list[tuple[str, int]] = []
        try:
            while len(handles) < OPEN_FILES:
                path = paths[len(handles) % len(paths)]
                handles.append((path, os.open(stage.path / path, os.O_RDONLY)))
            for path, fd in handles:
                assert os.pread(fd, 100, 0) == stage_of.contents[path][:100]
            for path, fd in random.Random(1).sample(handles, 500):
                content = stage_of.contents[path]
                assert os.pread(fd, 5000, len(content) // 2) == content[len(content) // 2 :][:5000]
            assert open_files(stage.pid) < 500
        finally:
            for _, fd in handles:
                os.close(fd)


def test_64_shards_whose_headers_were_read_load_one_by_one(stage_of: Staged) -> None:
    """All stay open; no handle holds what the others need."""
    names = [f"shards/{number:03}.bin" for number in range(SHARDS)]
    with mounted(stage_of, "shards") as stage:
        fds = [os.open(stage.path / name, os.O_RDONLY) for name in names]
        try:
            for name, fd in zip(names, fds, strict=True):
                assert os.pread(fd, 8, 0) == stage_of.contents[name][:8]
                assert os.pread(fd, 300, 8) == stage_of.contents[name][8:308]
            for name, fd in zip(names, fds, strict=True):
                whole = b"".join(iter(lambda fd=fd: os.read(fd, 100_000), b""))
                same = whole == stage_of.contents[name]
                assert same, name
        finally:
            for fd in fds:
                os.close(fd)


PAGE_READER = """
import hashlib, mmap, random, sys, threading

def read(seed):
    choose = random.Random(seed)
    for _ in range(int(sys.argv[4])):
        at = choose.randrange(0, size - 20000)
        end = at + choose.choice((2100, 5000, 20000))
        # Hashing lets go of the interpreter, so that the faults of several threads are under way at the same time.
        if hashlib.sha1(memoryview(mapping)[at:end]).digest() != hashlib.sha1(plain[at:end]).digest():
            wrong.append(at)

wrong = []
with open(sys.argv[1], "rb") as file, open(sys.argv[2], "rb") as right:
    mapping, plain = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), right.read()
    size = len(plain)
    threads = [threading.Thread(target=read, args=(f"{sys.argv[3]} {n}",)) for n in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
sys.exit(1 if wrong else 0)
"""

ABSORBED = [
    {"action": "reset", "origin": "transfer", "probability": 0.05, "after_bytes": 3000},
    {"action": "answer", "origin": "transfer", "probability": 0.05, "status": 503},
    {"action": "answer", "origin": "cas", "probability": 0.05, "status": 500},
    {"action": "delay", "origin": "cas", "probability": 0.2, "seconds": 0.05},
]
"""Faults that trying again makes good: no page may be lost to them."""


def test_mappings_under_16_threads_survive_faults_of_the_network(stage_of: Staged, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(stage_of.contents["weights/first.bin"])
    for fault in ABSORBED:
        stage_of.hub.control("POST", "faults", fault)
    for run in range(RUNS):
        with mounted(stage_of, f"pages-{run}") as stage:
            command = [sys.executable, "-c", PAGE_READER, str(stage.path / "weights/first.bin"), str(plain), str(run), "30"]
            done = subprocess.run(command, timeout=100, check=False)
            assert done.returncode == 0
    assert sum(fault["fired"] for fault in stage_of.hub.control("GET", "faults")) > 0


@contextmanager
def fuse_control(at: Path) -> Iterator[Path]:
    """The directory with one folder for each connection of FUSE, whose files are those of whoever mounted."""
    usual = Path("/sys/fs/fuse/connections")
    if os.path.ismount(usual):
        yield usual
        return
    if os.geteuid() != 0:
        pytest.skip("fusectl is not mounted, and only root can mount it")
    at.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "none", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_no_request_of_the_kernel_stays_without_an_answer(stage_of: Staged, crash_base: Path) -> None:
    with mounted(stage_of, "waiting") as stage, fuse_control(crash_base / "fusectl") as control:
        waiting = control / str(os.minor(os.stat(stage.path).st_dev)) / "waiting"
        stage_of.hub.control("POST", "faults", {"action": "stall", "origin": "transfer", "seconds": 1, "count": 3})
        stage.expected = ["operation=read"]
        reader = threading.Thread(target=(stage.path / "weights/second.bin").read_bytes)
        reader.start()
        while int(waiting.read_text()) == 0 and reader.is_alive():
            os.sched_yield()
        assert int(waiting.read_text()) > 0
        reader.join(STEP_S)
        assert not reader.is_alive()
        with Load(stage.path, stage_of.contents, readers=16, seed=2) as load:
            load.wait_done(500)
        assert load.wrong == []
        while int(waiting.read_text()):  # what the kernel reads ahead may still be on its way
            os.sched_yield()
