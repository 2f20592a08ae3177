"""`xetfs verify` as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import small_hub
from flat_settings import flat_settings
from small_hub import LFS, NESTED, PLAIN, REPO, XET
from small_user import TOKEN, RunXetfs

from xetfs.cli.exits import Exit
from xetfs.cli.verify import exit_code, find_mount, settings_like, target_in
from xetfs.config import Choices
from xetfs.errors import CorruptData, EntryNotFound, InvalidArgument, MountpointUnusable, Offline
from xetfs.hub.endpoint import Hub
from xetfs.repo.verify import Report, Verdict
from xetfs.units import GIB


def spoil(endpoint: str, **fault: Any) -> None:
    request = urllib.request.Request(f"{endpoint}/_testhub/faults", method="POST", data=json.dumps(fault).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


def requests(endpoint: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{endpoint}/_testhub/requests", timeout=20) as answer:
        found: list[dict[str, Any]] = json.load(answer)["requests"]
        return found


@pytest.fixture
def mounted(run_xetfs: RunXetfs, home: Path) -> Iterator[Path]:
    path = home / "model"
    path.mkdir()
    done = run_xetfs("mount", REPO, path, "--cache-dir", home / "elsewhere")
    assert done.returncode == 0, done.stderr
    yield path
    run_xetfs("umount", path)


def test_everything_is_right(run_xetfs: RunXetfs) -> None:
    done = run_xetfs("verify", REPO)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{REPO} (")
    assert first.endswith("): 5 of 5 files right")
    assert second.endswith("proven 2 by file id, 1 by SHA-256, 2 by git id")


def test_the_report_for_programs(run_xetfs: RunXetfs, endpoint: str) -> None:
    done = run_xetfs("verify", f"{REPO}/deep@main", "--json", "--deep")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert 400_000 < report.pop("fetched_bytes") < 500_000
    assert report.pop("seconds") > 0
    assert len(report.pop("commit")) == 40
    assert report == {
        "repo": REPO,
        "path": "deep",
        "deep": True,
        "files": 1,
        "bytes": 400_000,
        "right": 1,
        "corrupt": 0,
        "failed": 0,
        "nameless": 0,
        "unchecked": 0,
        "replaced": 0,
        "dropped_blocks": 0,
        "refused_answers": 0,
        "names": {"file_id": 1, "sha256": 1, "git_oid": 0},
        "failures": [],
        "exit": 0,
    }


def test_corrupt_data_is_exit_code_8(run_xetfs: RunXetfs, endpoint: str) -> None:
    spoil(endpoint, action="flip", path="/xorbs/", offset=20)
    done = run_xetfs("verify", REPO)
    assert done.returncode == Exit.DATA
    assert done.stderr == ""
    assert f"CORRUPT: {XET}: the chunks at 0-1200000 do not belong to the file" in done.stdout
    assert "3 of 5 files right, 2 corrupt, " in done.stdout
    assert ", 4 times wrong data came from the network" in done.stdout
    failures = json.loads(run_xetfs("verify", REPO, "--json").stdout)["failures"]
    assert [(failure["path"], failure["kind"], failure["error"]) for failure in failures] == [
        (NESTED, "corrupt", "CorruptData"),
        (XET, "corrupt", "CorruptData"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["acme/absent"], Exit.NOT_FOUND, "xetfs: "),
        ([f"{REPO}/absent.bin"], Exit.NOT_FOUND, "xetfs: "),
        ([f"{REPO}/{PLAIN}/below"], Exit.NOT_FOUND, "xetfs: "),
        ([REPO, "--offline"], Exit.UNREACHABLE, "xetfs: offline"),
        (["a//b"], Exit.USAGE, "xetfs: not a repo name"),
        (["/nowhere/at/all"], Exit.MOUNTPOINT, "xetfs: /nowhere/at/all does not lie in a mount"),
        (["."], Exit.MOUNTPOINT, "xetfs: . does not lie in a mount"),
    ],
)
def test_what_cannot_be_verified(run_xetfs: RunXetfs, arguments: list[str], code: Exit, complaint: str) -> None:
    done = run_xetfs("verify", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1


def test_offline_it_says_what_is_not_held(run_xetfs: RunXetfs) -> None:
    assert run_xetfs("verify", f"{REPO}/{XET}").returncode == 0
    done = run_xetfs("verify", f"{REPO}/{XET}", "--offline")
    assert done.returncode == 0
    done = run_xetfs("verify", f"{REPO}/{LFS}", "--offline")
    assert done.returncode == Exit.UNREACHABLE
    assert done.stdout.startswith(f"not checked: {LFS}: ")


def test_a_path_in_a_mount_is_checked_in_the_mounts_own_cache(run_xetfs: RunXetfs, mounted: Path, endpoint: str) -> None:
    assert (mounted / XET).read_bytes() == small_hub.content_of()[XET]
    before = len([request for request in requests(endpoint) if request["origin"] == "transfer"])
    for path, files in ((mounted / XET, 1), (mounted / "deep", 1), (mounted, 5)):
        done = run_xetfs("verify", path, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert (report["files"], report["right"]) == (files, files)
        if path.name == XET:
            assert len([request for request in requests(endpoint) if request["origin"] == "transfer"]) == before
    assert run_xetfs("verify", f"model/{PLAIN}").returncode == 0, "relative to the current directory"


def test_a_mount_of_another_hub_is_not_sent_this_ones_token(run_xetfs: RunXetfs, mounted: Path, endpoint: str) -> None:
    before = len(requests(endpoint))
    done = run_xetfs("verify", mounted, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == Exit.USAGE
    assert done.stderr == f"xetfs: that mount is of another Hub; set HF_ENDPOINT={endpoint}, and its token\n"
    assert len(requests(endpoint)) == before


def test_no_secret_is_shown(run_xetfs: RunXetfs, endpoint: str) -> None:
    spoil(endpoint, action="answer", path="/xorbs/", status=500)
    done = run_xetfs("verify", f"{REPO}/{XET}", "--verbose")
    shown = done.stdout + done.stderr
    assert "xetfs." in done.stderr
    assert TOKEN not in shown
    assert "ignature" not in shown


def test_a_terminal_sees_how_far_it_is(endpoint: str, home: Path) -> None:
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-m", "xetfs", "verify", REPO]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=60)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.startswith("\r\x1b[K")
    assert shown.endswith("\r\x1b[K")
    assert b"5 of 5 files right" in output


# Parts


def test_corrupt_goes_before_other_errors() -> None:
    def code(*errors: Exception) -> Exit:
        report = Report(files=len(errors))
        for error in errors:
            report.add(Verdict("a", 1, error=error))  # type: ignore[arg-type]
        return exit_code(report)

    assert code() == Exit.OK
    assert code(Offline("x")) == Exit.UNREACHABLE
    assert code(EntryNotFound("x"), Offline("x")) == Exit.NOT_FOUND
    assert code(Offline("x"), CorruptData("x")) == Exit.DATA


def test_what_is_a_path_and_what_a_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/demo").touch()
    assert find_mount("acme/demo") is None
    assert find_mount("acme/other@v1") is None
    for text in ("./acme/demo", "..", str(tmp_path)):
        with pytest.raises(MountpointUnusable):
            find_mount(text)


def test_a_path_in_a_mount_is_of_the_commit_that_is_mounted(tmp_path: Path) -> None:
    document: Mapping[str, Any] = {"repo": "datasets/acme/demo", "commit": "ab" * 20, "subfolder": "data", "revision": "main"}
    target = target_in(document, tmp_path / "x/y.bin", tmp_path)
    assert str(target) == f"datasets/acme/demo/data/x/y.bin@{'ab' * 20}"
    assert target_in(document, tmp_path, tmp_path).subfolder == "data"


def test_the_limit_of_a_mounts_cache_is_kept(tmp_path: Path) -> None:
    document = {"endpoint": "https://huggingface.co", "cache_dir": "/mine", "cache_bytes_max": 50 * GIB}
    settings = flat_settings(cache_dir=tmp_path, cache_bytes_max=20 * GIB)
    found = settings_like(document, Hub(), settings, Choices())
    assert (str(found.store.cache_dir), found.store.cache_bytes_max) == ("/mine", 50 * GIB)
    assert settings_like(document, Hub(), settings, Choices(cache_size="20G")).store.cache_bytes_max == 20 * GIB
    assert settings_like(document, Hub(), settings, Choices(cache_dir=tmp_path)) == settings
    with pytest.raises(InvalidArgument):
        settings_like(document, Hub("https://hub.example"), settings, Choices())
