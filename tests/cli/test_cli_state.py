from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xetfs.cli import state
from xetfs.cli.state import MountRecord, all_records, log_file, record_file


def test_each_directory_has_its_own_file(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    for file in (log_file, record_file):
        names = {file(Path(path), env) for path in ("/mnt/a", "/mnt-a", "/mnt/A", "/mnt/" + "x" * 300, "/")}
        assert len(names) == 5
        assert all(name.parent == tmp_path / "xetfs" and len(name.name) < 100 for name in names)


def test_a_record_of_a_running_process_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "state/record.json"
    record = MountRecord.of_this_process(Path(os.fsdecode(b"/mnt/\xff")), "owner/repo@main", "0" * 40)
    record.write(path)
    assert MountRecord.read(path) == record
    assert not record.wait_ended(0)
    assert os.listdir(path.parent) == ["record.json"]
    record.remove(path)
    assert MountRecord.read(path) is None


def test_a_number_that_is_used_again_is_not_taken_for_the_process(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = dataclasses.replace(MountRecord.of_this_process(Path("/mnt"), "r", "c"), started="1")
    record.write(path)
    assert MountRecord.read(path) is None
    assert record.wait_ended(0)


def test_a_record_of_another_is_left(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    mine = MountRecord.of_this_process(Path("/mnt"), "r", "c")
    mine.write(path)
    dataclasses.replace(mine, commit="d").remove(path)
    assert MountRecord.read(path) == mine


def test_what_is_not_a_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for text in ("", "[]", "{}", '{"pid": 1}', '{"pid":"x","started":"","mountpoint":"","repo":"","commit":""}', "\x00"):
        path.write_text(text)
        assert MountRecord.read(path) is None


def test_waiting_for_the_end(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        record = MountRecord(process.pid, started, "/mnt", "r", "c")
        assert not record.wait_ended(0)
        process.communicate(b"\n")
        assert record.wait_ended(20)


def test_a_record_of_another_pid_namespace_says_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that share a home directory have processes of the same numbers, perhaps started at the same tick."""
    env = {"XDG_STATE_HOME": str(tmp_path)}
    mine = MountRecord.of_this_process(Path("/mnt"), "r", "c")
    mine.write(record_file(Path("/mnt"), env))
    assert mine.is_running()
    theirs = dataclasses.replace(mine, namespace=f"{mine.namespace}1", commit="d")
    assert not theirs.is_running()
    assert theirs.wait_ended(0)
    theirs.write(tmp_path / "xetfs/theirs.json")
    assert list(all_records(env)) == [mine]
    monkeypatch.setattr(state.os, "uname", lambda: SimpleNamespace(nodename="another"))
    assert record_file(Path("/mnt"), env) != tmp_path / "xetfs/theirs.json"
    assert not record_file(Path("/mnt"), env).exists()


@pytest.mark.root
def test_another_pid_namespace_has_records_of_its_own(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from xetfs.cli.state import record_file; "
        "print(record_file(Path('/mnt'), {'XDG_STATE_HOME': sys.argv[1]}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    here = subprocess.run(command, capture_output=True, text=True, check=True)
    there = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", *command], capture_output=True, text=True, check=True)
    assert here.stdout
    assert here.stdout != there.stdout
