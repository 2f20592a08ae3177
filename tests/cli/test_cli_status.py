"""What `status` and `verify` say to people, without a mount."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xetfs.cli.exits import Exit
from xetfs.cli.job import prefetch_warnings
from xetfs.cli.main import main
from xetfs.cli.state import MountRecord, all_records, control_socket
from xetfs.cli.status import describe, duration, in_words, printable, size
from xetfs.cli.verify import in_words as report_in_words
from xetfs.config import Choices, settings_from
from xetfs.repo.preload import Progress
from xetfs.telemetry import NET_BYTES, NET_REQUESTS, READER_CORRUPT_WINDOWS, READER_WHOLE_WRONG

HEAVY = {"trio", "httpx", "h11", "numpy", "pyfuse3", "diskcache", "blake3", "lz4", "sqlite3", "asyncio", "ssl"}


@pytest.mark.parametrize("arguments", [["status", "--help"], ["verify", "--help"], ["status"], ["verify", "/nowhere"]])
def test_nothing_heavy_is_loaded_to_answer_a_user(arguments: list[str], tmp_path: Path) -> None:
    program = "import sys\nfrom xetfs.cli.main import main\nmain(sys.argv[1:])\nprint(*sys.modules, file=sys.stderr)"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env=env, timeout=60
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "argparse" in loaded
    assert not loaded & HEAVY


# --verify


def test_verify_is_chosen_among_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    assert settings_from(Choices(), env).reader.verify == "auto"
    assert settings_from(Choices(verify="proof"), env).reader.verify == "proof"
    assert main(["mount", "a/b", "/mnt", "--verify", "all"]) == Exit.USAGE
    assert "--verify" in capsys.readouterr().err
    assert main(["mount", "--help"]) == 0
    assert "--verify {auto,proof,off}" in capsys.readouterr().out


# Records


def test_all_records_are_found_those_of_the_dead_too(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    here = MountRecord.of_this_process(Path("/mnt/b"), "r", "c", control="/run/1.sock")
    dead = MountRecord(here.pid, "1", "/mnt/a", "r", "c")
    here.write(tmp_path / "xetfs/b.json")
    dead.write(tmp_path / "xetfs/a.json")
    (tmp_path / "xetfs/c.json").write_text("nonsense")
    (tmp_path / "xetfs/d.json").write_text('{"pid":1,"started":"","mountpoint":5,"repo":"","commit":""}')
    assert list(all_records(env)) == [dead, here]
    assert describe(dead) == {"state": "dead", "mountpoint": "/mnt/a", "repo": "r", "commit": "c", "pid": here.pid}
    assert list(all_records({"XDG_STATE_HOME": str(tmp_path / "absent")})) == []


def test_a_record_of_an_earlier_version_has_no_socket(tmp_path: Path) -> None:
    here = MountRecord.of_this_process(Path("/mnt"), "r", "c")
    values = {"pid": here.pid, "started": here.started, "mountpoint": "/mnt", "repo": "r", "commit": "c"}
    (tmp_path / "a.json").write_text(json.dumps(values))
    record = MountRecord.read(tmp_path / "a.json")
    assert record is not None
    assert replace(record, namespace=here.namespace) == here
    assert describe(record)["reason"] == "it has no control socket"


def test_where_the_socket_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    first, second = (control_socket(Path("/mnt"), {**state, "XDG_RUNTIME_DIR": str(tmp_path)}) for _ in range(2))
    assert first.parent == second.parent == tmp_path / "xetfs"
    assert first != second
    assert len(first.name) < 40
    for unusable in ("", "relative", str(tmp_path / "absent")):
        assert control_socket(Path("/mnt"), {**state, "XDG_RUNTIME_DIR": unusable}).parent == tmp_path / "state/xetfs"
    if os.geteuid() == 0:  # sudo -E keeps the variable of the user
        os.chown(tmp_path, 1000, -1)
        assert control_socket(Path("/mnt"), {**state, "XDG_RUNTIME_DIR": str(tmp_path)}).parent == Path(
            pwd.getpwuid(0).pw_dir, ".local/state/xetfs"
        )


# Words


def test_numbers_in_words() -> None:
    assert [size(count) for count in (0, 1023, 1024, 1536, 150 << 10, 3 << 20, 5 << 30, 7 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "150 KiB",
        "3.0 MiB",
        "5.0 GiB",
        "7.0 TiB",
    ]
    assert [duration(s) for s in (0.2, 59, 60, 3599, 3600, 7500, 86400 * 3 + 3600)] == [
        "0 s",
        "59 s",
        "1 min",
        "59 min",
        "1 h 0 min",
        "2 h 5 min",
        "3 d 1 h",
    ]


def test_names_do_not_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("see https://host/x?signature=1") == "see https://host/x?…"


def document(**changed: Any) -> dict[str, Any]:
    return {
        "state": "serving",
        "mountpoint": "/mnt/m",
        "repo": "acme/demo",
        "subfolder": "data",
        "revision": "v1",
        "commit": "ab" * 20,
        "pid": 7,
        "uptime_s": 61.0,
        "verify": "auto",
        "cache_dir": "/c",
        "files": {"proof": 2, "file": 0, "framing": 1, "none": 0},
        "memory": {"bytes": 0, "bytes_most": 1, "bytes_max": 2, "resident_bytes": 90 << 20},
        "store": {"state": "ok", "bytes": 5 << 20, "bytes_max": 1 << 30, "failure": ""},
        "counters": {NET_BYTES: 3000, NET_REQUESTS: 4},
        **changed,
    }


def test_a_mount_in_words() -> None:
    assert in_words(document()).splitlines() == [
        "/mnt/m: serving",
        "  repo      acme/demo/data@v1 (abababababab)",
        "  process   7, for 1 min, 90.0 MiB of memory",
        "  fetched   2.9 KiB in 4 requests",
        "  verified  2 proof, 1 framing (--verify auto)",
        "  cache     5.0 MiB of 1.0 GiB in /c",
    ]


PREFETCH = {"globs": ["*.gguf"], "unmatched": [], "state": "fetching", "files": 3, "files_done": 1, "files_failed": 0,
            "bytes": 3 << 30, "bytes_done": 1 << 30, "room_bytes": 2 << 30, "reason": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": "matching"}, "choosing files (*.gguf)"),
        ({}, "1.0 GiB of 3.0 GiB, 1 of 3 files (*.gguf)"),
        ({"state": "full", "reason": "no room"}, "1.0 GiB of 3.0 GiB, 1 of 3 files (*.gguf), stopped: no room"),
        ({"state": "waiting", "reason": "a\nb"}, "1.0 GiB of 3.0 GiB, 1 of 3 files (*.gguf), waiting: a\\nb"),
        ({"state": "done", "files_failed": 2}, "1.0 GiB of 3.0 GiB, 1 of 3 files (*.gguf), done, 2 left out"),
    ],
)
def test_how_far_prefetching_is(changed: dict[str, Any], words: str) -> None:
    assert f"  prefetch  {words}" in in_words(document(prefetch=PREFETCH | changed)).splitlines()


def test_what_should_be_known_before_prefetching() -> None:
    progress = Progress(("a*", "b*"), unmatched=("b*",), files=1, bytes=3 << 30, room_bytes=2 << 30)
    assert prefetch_warnings(progress) == (
        "--prefetch 'b*' matches no file",
        "--prefetch asks for 3.0 GiB, the cache keeps 2.0 GiB of them; see --cache-size",
    )
    assert prefetch_warnings(replace(progress, room_bytes=progress.bytes, unmatched=())) == ()


def test_what_is_wrong_with_a_mount_is_said() -> None:
    store = {"state": "failing", "bytes": 0, "bytes_max": 0, "failure": "No space left on device"}
    words = in_words(document(counters={READER_CORRUPT_WINDOWS: 2, READER_WHOLE_WRONG: 1}, store=store, files={}))
    assert "CORRUPT   3 responses failed verification" in words
    assert "failing: No space left on device" in words
    assert "nothing read yet" in words


def test_a_report_shows_no_more_failures_than_can_be_read() -> None:
    failures = [{"path": f"{number}\n", "kind": "corrupt", "error": "CorruptData", "message": "m"} for number in range(60)]
    counts = dict.fromkeys(
        ("right", "corrupt", "failed", "nameless", "unchecked", "replaced", "dropped_blocks", "refused_answers"), 0
    )
    report = {"repo": "a/b", "path": "", "commit": "ab" * 20, "files": 60, "bytes": 60, "fetched_bytes": 5, "seconds": 1}
    lines = report_in_words({**counts, **report, "corrupt": 60, "names": {}, "failures": failures}).splitlines()
    assert lines[0] == "CORRUPT: 0\\n: m"
    assert lines[50] == "… and 10 more; --json lists them all"
    assert lines[51] == "a/b (abababababab): 0 of 60 files right, 60 corrupt"
    assert lines[52] == "60 B in 1 s, 5 B fetched"
