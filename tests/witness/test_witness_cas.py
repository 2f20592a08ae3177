"""Every file comes back from Hugging Face's own CAS server through a mount, byte by byte, however that server behaves."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import witness_repo
from mount_user import Mount, is_mounted
from witness_programs import CasServer
from witness_repo import Witness

from xetfs.telemetry import CAS_FETCHES, CAS_URL_REFRESHES, NET_RETRIES, NET_UNLABELLED

pytestmark = pytest.mark.witness

COMPARED_BYTES: Final = 1024 * 1024
RANDOM_READS: Final = 250

SERVERS: Final[Mapping[str, Mapping[str, str]]] = {
    "as it comes": {},
    "version 1 only": {"disable_v2_endpoints": "404"},
    "version 1 only, 501": {"disable_v2_endpoints": "501"},
    "each answer 1 to 60 ms late": {"random_delay": "(1ms, 60ms)"},
    "each question 5 to 40 ms late": {"api_delay": "(5ms, 40ms)"},
    "4 % errors and 10 to 100 ms late under load": {"congestion": "1,10,100,0.04"},
    "one range a URL": {"max_ranges_per_fetch": "1"},
    "two ranges a URL": {"max_ranges_per_fetch": "2"},
    "version 1, late, with errors": {"disable_v2_endpoints": "404", "random_delay": "(1ms, 20ms)", "congestion": "2,10,50,0.04"},
}
"""What their server is told to be like. Errors are so rare that a request fails five times in a row once in ten million: files of
thousands of fragments take as many requests. (Its url_expiration ends nothing over HTTP, where URLs carry no time.)"""
WITH_MODELS: Final = ("as it comes", "version 1 only")
"""Where the models, some 500 MB, are read as well."""


@contextmanager
def mounted(
    witness: Witness,
    name: str,
    server: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    *,
    alone: bool = True,
) -> Iterator[Mount]:
    """Their server with these settings, and an empty-handed mount that reads from it; alone: and from nowhere else."""
    here = witness.base / "".join(letter if letter.isalnum() else "-" for letter in name)
    cas = CasServer(witness.held, witness.base / "server.log")
    try:
        cas.configure(**server)
        witness.hub.control("PUT", "options", {"cas_url": cas.url})
        witness.hub.reset()
        env = {"HF_ENDPOINT": witness.hub.endpoint, "HF_TOKEN": "", "XDG_STATE_HOME": str(here / "state")}
        mount = Mount(here, here / "cache", {**env, **(environment or {})})
        try:
            mount.mount(witness_repo.REPO, [])
            yield mount
            mount.umount()
            if alone:
                assert witness.hub.requests("cas") == witness.hub.requests("transfer") == []
        except BaseException:
            print(mount.log()[-5000:])
            raise
        finally:
            if is_mounted(mount.path):
                mount.clean_up()
    finally:
        cas.stop()


def compare(whole: Path, read: Path) -> int:
    """The bytes compared, which are all of both files."""
    done = 0
    with whole.open("rb") as expected, read.open("rb") as found:
        while True:
            wanted, got = expected.read(COMPARED_BYTES), found.read(COMPARED_BYTES)
            assert got == wanted, f"{read} differs between {done} and {done + COMPARED_BYTES}"
            if not wanted:
                return done
            done += len(wanted)


def compare_some(whole: Path, read: Path, places: list[tuple[int, int]]) -> int:
    done = 0
    with whole.open("rb") as expected, read.open("rb", buffering=0) as found:
        for offset, length in places:
            expected.seek(offset)
            found.seek(offset)
            wanted, got = expected.read(length), found.read(length)
            assert got == wanted, f"{read} differs at {offset}"
            done += len(wanted)
    return done


def counters(mount: Mount) -> dict[str, int]:
    status: dict[str, Any] = json.loads(mount.run("status", str(mount.path), "--json").stdout)["mounts"][0]
    return {name: value for name, value in status["counters"].items() if isinstance(value, int)}


@pytest.mark.parametrize("name", SERVERS)
def test_every_file_comes_back_from_their_server(witness: Witness, tally: list[str], name: str) -> None:
    files = [file for file in witness.files() if name in WITH_MODELS or not file.startswith("models/")]
    with mounted(witness, name, SERVERS[name]) as mount, ThreadPoolExecutor(4) as threads:
        done = sum(threads.map(lambda file: compare(witness.folder / file, mount.path / file), files))
        met = counters(mount)
    faults = met.get(NET_RETRIES, 0) + met.get(CAS_URL_REFRESHES, 0)
    unlabelled = met.get(NET_UNLABELLED, 0)
    if "congestion" in SERVERS[name]:
        assert faults
    tally.append(f"{name}: {len(files)} files, {done:,} bytes right; {faults} faults met, {unlabelled} ranges unlabelled")


@pytest.mark.parametrize("name", ["as it comes", "two ranges a URL", "version 1 only"])
def test_several_ranges_in_one_request_come_back(witness: Witness, tally: list[str], name: str) -> None:
    """Their server answers several ranges with all that the URL was signed for."""
    files = [file for file in witness.files() if file.startswith(("terms/", "weights/"))]
    several = {"HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "1"}
    with (
        mounted(witness, f"several ranges {name}", SERVERS[name], several) as mount,
        ThreadPoolExecutor(4) as threads,
    ):
        done = sum(threads.map(lambda file: compare(witness.folder / file, mount.path / file), files))
        fetches = counters(mount)[CAS_FETCHES]
    tally.append(f"several ranges in one request, {name}: {len(files)} files, {done:,} bytes right by {fetches} requests")


@pytest.mark.parametrize("name", ["as it comes", "version 1 only", "4 % errors and 10 to 100 ms late under load"])
def test_any_place_of_any_file_comes_back(witness: Witness, tally: list[str], name: str) -> None:
    chance = random.Random(name)
    sizes = {file: (witness.folder / file).stat().st_size for file in witness.files()}
    large = [file for file, size in sizes.items() if size > 100_000]
    places: dict[str, list[tuple[int, int]]] = {file: [] for file in large}
    for _ in range(RANDOM_READS):
        file = chance.choice(large)
        length = chance.choice((1, 4096, 70_000, 1_000_000))
        places[file].append((chance.randrange(sizes[file]), length))
    with mounted(witness, f"any place {name}", SERVERS[name]) as mount, ThreadPoolExecutor(8) as threads:
        done = sum(threads.map(lambda file: compare_some(witness.folder / file, mount.path / file, places[file]), large))
    tally.append(f"{name}: {RANDOM_READS} reads anywhere, {done:,} bytes right")


def compare_what_can_be_read(whole: Path, read: Path) -> tuple[int, int]:
    """(bytes compared, reads that failed): a read may end in EIO, or short of a page that did, but never in other bytes."""
    done = failures = 0
    with whole.open("rb") as expected, read.open("rb", buffering=0) as found:
        for place in range(0, whole.stat().st_size, COMPARED_BYTES):
            wanted = expected.read(COMPARED_BYTES)
            try:
                got = os.pread(found.fileno(), len(wanted), place)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                failures += 1
                continue
            assert got == wanted[: len(got)], f"{read} differs between {place} and {place + COMPARED_BYTES}"
            failures += len(got) < len(wanted)
            done += len(got)
    return done, failures


def test_a_server_that_often_fails_may_cost_reads_but_no_byte(witness: Witness, tally: list[str]) -> None:
    files = [file for file in witness.files() if not file.startswith("models/")]
    server = {"congestion": "1,5,50,0.3"}
    with mounted(witness, "30 % errors", server, alone=False) as mount, ThreadPoolExecutor(4) as threads:
        each = list(threads.map(lambda file: compare_what_can_be_read(witness.folder / file, mount.path / file), files))
        met = counters(mount)
    done, failures = (sum(numbers) for numbers in zip(*each, strict=True))
    assert done
    tally.append(f"30 % errors: {done:,} bytes right and none wrong; {met[NET_RETRIES]} faults met, {failures} reads failed")
