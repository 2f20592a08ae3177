from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from xetfs.cli.state import MountRecord, file_for


def test_each_directory_has_its_own_file(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    names = {file_for(Path(path), ".log", env) for path in ("/mnt/a", "/mnt-a", "/mnt/A", "/mnt/" + "x" * 300, "/")}
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
