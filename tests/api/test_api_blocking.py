"""xetfs.api.blocking: the engine for programs without trio, in this process and after a fork."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import small_hub
from flat_settings import flat_settings

from xetfs.api import Hub, blocking
from xetfs.errors import EntryNotFound, InvalidArgument, IsADirectory, RepoNotFound, RevisionNotFound
from xetfs.settings import Settings

CONTENT = small_hub.content_of()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with small_hub.running(tmp_path_factory.mktemp("hub")) as endpoint:
        yield endpoint


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Those of this test's engine."""
    settings = flat_settings(cache_dir=tmp_path / "cache")
    blocking.close()
    blocking.use(settings)
    yield settings
    blocking.close()


@pytest.fixture
def repo(endpoint: str, settings: Settings) -> blocking.Repo:
    return blocking.open_repo(small_hub.REPO, Hub(endpoint))


def test_a_file_is_read_like_any_other(repo: blocking.Repo) -> None:
    content = CONTENT[small_hub.XET]
    with repo.open(small_hub.XET) as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert file.read(10) == content[:10]
        assert file.tell() == 10
        assert file.seek(-5, os.SEEK_END) == len(content) - 5
        assert file.read() == content[-5:]
        assert file.read(1) == b""
        file.seek(500_000)
        assert file.read(300_000) == content[500_000:800_000]
        with pytest.raises(OSError, match=r"write|not writable"):
            file.write(b"x")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    with repo.open(small_hub.EMPTY) as file:
        assert file.read() == b""


def test_without_a_buffer(repo: blocking.Repo) -> None:
    content = CONTENT[small_hub.NESTED]
    with repo.open_raw(small_hub.NESTED) as file:
        assert bytes(file.pread(100, 50)) == content[100:150]
        assert bytes(file.pread(len(content) - 3, 50)) == content[-3:]
        assert bytes(file.pread(len(content) + 3, 50)) == b""
        assert file.read() == content
        assert file.read() == b""
        with pytest.raises(ValueError, match="beginning"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.pread(0, 1)


def test_what_is_in_a_repo(repo: blocking.Repo) -> None:
    assert repo.commit == repo.ref.revision
    names = [(details.path, details.is_directory) for details in repo.listdir()]
    assert names == [("config.json", False), ("deep", True), ("empty.txt", False), ("model.bin", False), ("old.bin", False)]
    assert [details.path for details in repo.listdir("deep/er")] == [small_hub.NESTED]
    assert repo.describe(small_hub.XET).size == len(CONTENT[small_hub.XET])
    assert repo.describe().is_directory


def test_open_takes_the_name_of_a_file(endpoint: str, settings: Settings) -> None:
    hub = Hub(endpoint)
    with blocking.open(f"{small_hub.REPO}/{small_hub.NESTED}@main", hub) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read() == CONTENT[small_hub.NESTED]
    for name, error in [
        (small_hub.REPO, IsADirectory),
        (f"{small_hub.REPO}/deep", IsADirectory),
        (f"{small_hub.REPO}/absent", EntryNotFound),
        (f"{small_hub.REPO}@absent/config.json", RevisionNotFound),
        ("acme/absent/config.json", RepoNotFound),
        ("::", InvalidArgument),
    ]:
        with pytest.raises(error):
            blocking.open(name, hub)


def test_threads_share_a_file(repo: blocking.Repo) -> None:
    content = CONTENT[small_hub.XET]
    wrong: list[int] = []

    def read(start: int) -> None:
        places = range(start, len(content), 200_000)
        wrong.extend(at for at in places if bytes(file.pread(at, 1000)) != content[at : at + 1000])

    with repo.open_raw(small_hub.XET) as file:
        threads = [threading.Thread(target=read, args=(number * 10_000,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_file_that_is_forgotten_is_closed(repo: blocking.Repo) -> None:
    file = repo.open(small_hub.XET)
    file.read(1)
    del file
    gc.collect()
    with repo.open_raw(small_hub.XET) as other:  # the calls of the engine are done in order
        assert bytes(other.pread(0, 1)) == CONTENT[small_hub.XET][:1]


def test_the_settings_of_an_engine_that_runs_stay(repo: blocking.Repo, settings: Settings) -> None:
    blocking.use(settings)
    with pytest.raises(InvalidArgument):
        blocking.use(replace(settings, offline=True))


def test_files_go_on_after_the_engine_was_closed(repo: blocking.Repo) -> None:
    with repo.open(small_hub.XET) as file:
        file.seek(700_000)
        blocking.close()
        assert file.read(1000) == CONTENT[small_hub.XET][700_000:701_000]


PROGRAM = """
import os, sys
sys.path[:0] = [sys.argv[1]]
import small_hub
from flat_settings import flat_settings
from pathlib import Path
from xetfs.api import Hub, blocking

content = small_hub.content_of()[small_hub.XET]
blocking.use(flat_settings(cache_dir=Path(sys.argv[3])))
file = blocking.open_repo(small_hub.REPO, Hub(sys.argv[2])).open_raw(small_hub.XET)
assert file.read(1000) == content[:1000]
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        assert file.tell() == 1000
        assert file.read(1000) == content[1000:2000]
        at = 200_000 * (number + 1)
        assert bytes(file.pread(at, 5000)) == content[at : at + 5000]
        sys.exit(0)  # through atexit, as a program ends
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert file.read(1000) == content[1000:2000]
print("done")
"""


def test_files_go_on_in_processes_that_were_forked(endpoint: str, tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(Path(__file__).parent.parent), endpoint]
    done = subprocess.run([*program, str(tmp_path / "cache")], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
