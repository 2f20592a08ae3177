"""The operations of a mount, asked for at its socket, and that the answers are what docs/status.schema.json says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_hub
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from small_user import RunXetfs, status

from xetfs.control.client import ask
from xetfs.errors import EntryNotFound, InvalidArgument, RepoNotFound
from xetfs.telemetry import NET_ANSWER_SECONDS, NET_REQUESTS, READER_WAIT_SECONDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = Draft202012Validator(json.loads((DOCS / "status.schema.json").read_text()))


class Asked:
    """A mount and its socket."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        [record] = (home / ".local/state/xetfs").glob("*.json")
        self.socket = Path(json.loads(record.read_text())["control"])
        self.log = next((home / ".local/state/xetfs").glob("*.log"))

    def __call__(self, op: str, **arguments: object) -> dict[str, Any]:
        return ask(self.socket, op, timeout_s=30, **arguments)

    @property
    def requests(self) -> int:
        return int(self("status")["counters"][NET_REQUESTS])

    def read(self, name: str) -> bytes:
        """What a program reads, past the kernel's cache."""
        fd = os.open(self.path / name, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, 1 << 30, 0)
        finally:
            os.close(fd)


@pytest.fixture
def mount(run_xetfs: RunXetfs, home: Path) -> Iterator[Asked]:
    path = home / "model"
    path.mkdir()
    done = run_xetfs("mount", small_hub.REPO, path)
    assert done.returncode == 0, done.stderr
    yield Asked(path, home)
    run_xetfs("umount", path)


def test_the_status_is_what_its_schema_says(run_xetfs: RunXetfs, mount: Asked) -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    assert list(SCHEMA.iter_errors(mount("status"))) == []
    mount.read(small_hub.XET)
    mount("prefetch", globs=["*"])
    mount("drain")
    document = mount("status")
    assert list(SCHEMA.iter_errors(document)) == []
    shown = status(run_xetfs, mount.path)
    assert list(SCHEMA.iter_errors(shown)) == []
    assert set(shown) == {*document, "state"}
    assert document["repos"] == [{name: document[name] for name in ("repo", "subfolder", "revision", "commit", "endpoint")}]
    for name in (READER_WAIT_SECONDS, NET_ANSWER_SECONDS):
        found = document["histograms"][name]
        assert len(found["counts"]) == len(found["bounds"]) + 1
        assert sum(found["counts"]) > 0
        assert found["sum"] > 0
    assert list(SCHEMA.iter_errors({**document, "new": 1})), "what is not described would go unnoticed"


def test_metrics(mount: Asked) -> None:
    mount.read(small_hub.XET)
    families = {family.name: family for family in text_string_to_metric_families(mount("metrics")["text"])}
    [requests] = families["xetfs_net_requests"].samples
    assert 0 < requests.value <= mount.requests
    assert {sample.labels["level"]: sample.value for sample in families["xetfs_reader_files"].samples}["proof"] == 1
    assert families["xetfs_process_resident_bytes"].samples[0].value > 10_000_000
    assert families["xetfs_store_failing"].samples[0].value == 0


def test_prefetch_and_drain(mount: Asked) -> None:
    chosen = mount("prefetch", globs=["*.bin", "*.gguf"])
    assert chosen["unmatched"] == ["*.gguf"]
    assert chosen["files"] == 3
    for _ in range(200):
        progress = mount("status")["prefetch"]
        if progress["state"] != "fetching":
            break
    assert (progress["state"], progress["files_done"]) == ("done", 3)
    assert mount("drain")["prefetches_ended"] == 0
    before = mount.requests
    for name in (name for name in small_hub.content_of() if name.endswith(".bin")):
        assert mount.read(name) == small_hub.content_of()[name]
    assert mount.requests == before
    for globs in ([], [""], ["a", ""]):
        with pytest.raises(InvalidArgument, match="no globs"):
            mount("prefetch", globs=globs)


def test_what_is_evicted_is_fetched_again(mount: Asked) -> None:
    names = (small_hub.XET, small_hub.LFS, small_hub.PLAIN)
    for name in names:
        mount.read(name)
    mount("drain")
    before = mount.requests
    assert mount("evict", path=small_hub.LFS) == {"files": 1, "bytes": len(small_hub.content_of()[small_hub.LFS])}
    mount.read(small_hub.XET)
    assert mount.requests == before
    assert mount.read(small_hub.LFS) == small_hub.content_of()[small_hub.LFS]
    assert mount.requests > before
    everything = mount("evict")
    assert everything["files"] == len(small_hub.content_of())
    before = mount.requests
    assert mount.read(small_hub.XET) == small_hub.content_of()[small_hub.XET]
    assert mount.requests > before


def test_verify(mount: Asked) -> None:
    found = mount("verify", path=small_hub.XET)
    assert (found["files"], found["right"], found["failures"]) == (1, 1, [])
    found = mount("verify", deep=True)
    assert (found["files"], found["right"], found["corrupt"]) == (len(small_hub.content_of()), len(small_hub.content_of()), 0)
    with pytest.raises(EntryNotFound):
        mount("verify", path="no/such.bin")
    with pytest.raises(RepoNotFound, match="acme/other is not open here"):
        mount("verify", repo="acme/other")
    assert mount("verify", repo=small_hub.REPO, path=small_hub.XET)["right"] == 1


def test_the_log_level(mount: Asked) -> None:
    assert mount("log-level", level="debug") == {"level": "debug", "before": "info"}
    assert " DEBUG " not in mount.log.read_text()
    mount.read(small_hub.XET)
    assert " DEBUG xetfs.net" in mount.log.read_text()
    assert mount("log-level", level="info")["before"] == "debug"
    with pytest.raises(InvalidArgument, match="no such log level: 'loud'") as caught:
        mount("log-level", level="loud")
    assert "warning" in caught.value.hint


def test_every_operation_is_documented(mount: Asked) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mount("nothing")
    known = caught.value.hint.removeprefix("there are ").split(", ")
    rows = [line.split("|")[1:3] for line in (DOCS / "control.md").read_text().splitlines() if line.startswith("| `")]
    assert sorted(op.strip(" `") for op, _ in rows) == known
    for op, arguments in rows:
        for name in filter(None, arguments.replace("`", "").replace(" ", "").split(",")):
            with pytest.raises(InvalidArgument, match=f"{name} is of the wrong type"):
                mount(op.strip(" `"), **{name: 5})
