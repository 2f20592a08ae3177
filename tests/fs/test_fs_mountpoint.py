"""Judging directories and machines before anything is mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xetfs.errors import MachineUnfit, MountpointUnusable
from xetfs.fs import mountpoint as outside
from xetfs.fs.tuning import tune


def test_an_empty_directory_will_do_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert outside.prepare(tmp_path / "real") == tmp_path / "real"
    assert outside.prepare(tmp_path / "link") == tmp_path / "real"


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(MountpointUnusable, match=r"does not exist; create it first: mkdir -p .*/no"):
        outside.prepare(tmp_path / "no")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountpointUnusable, match="is not a directory"):
        outside.prepare(tmp_path / "file")


def test_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(MountpointUnusable, match="is not empty"):
        outside.prepare(tmp_path)


def test_a_foreign_mount_with_something_in_it() -> None:
    with pytest.raises(MountpointUnusable, match="/proc is not empty"):
        outside.prepare(Path("/proc"))


class Stack:
    """Mounts on each other at one directory, as the machine would list them; dead ones of ours, unless said otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *kinds: str) -> None:
        self.path = path
        self.kinds = list(kinds)
        monkeypatch.setattr(outside, "mounts", self._mounts)
        monkeypatch.setattr(outside, "state_of", lambda path: "alive" if self.kinds[-1] == "alive" else "dead")
        monkeypatch.setattr(outside, "unmount", self._unmount)

    def _mounts(self) -> Iterator[outside.Mount]:
        for kind in self.kinds:
            yield outside.Mount(str(self.path), "tmpfs" if kind == "foreign" else outside.FS_TYPE, kind, "0:51", frozenset())

    def _unmount(self, path: Path, *, lazily: bool) -> None:
        assert (path, lazily) == (self.path, True)
        self.kinds.pop()


def test_several_dead_mounts_on_each_other_are_cleared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack = Stack(monkeypatch, tmp_path, "dead", "dead", "dead")
    assert outside.prepare(tmp_path) == tmp_path
    assert stack.kinds == []


@pytest.mark.parametrize("kind", ["foreign", "alive"])
def test_dead_mounts_are_cleared_only_down_to_what_is_not_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    stack = Stack(monkeypatch, tmp_path, "dead", kind, "dead", "dead")
    with pytest.raises(MountpointUnusable, match=rf"is already a mount \({kind}, "):
        outside.prepare(tmp_path)
    assert stack.kinds == ["dead", kind]


def test_the_placeholder_of_an_automounter_is_not_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That would make it mount what belongs there, which may be us."""
    (tmp_path / "found").touch()
    placeholder = outside.Mount(str(tmp_path), "autofs", "systemd-1", "0:30", frozenset())
    monkeypatch.setattr(outside, "mounts", lambda: iter([placeholder]))
    monkeypatch.setattr(os, "scandir", None)
    assert outside.prepare(tmp_path) == tmp_path
    with outside.claimed(tmp_path) as path:
        assert path == tmp_path


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_an_empty_mount_of_something_else_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    monkeypatch.setattr(outside, "mounts", lambda: iter([outside.Mount(str(tmp_path), kind, "x", "0:30", frozenset())]))
    assert outside.prepare(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(MountpointUnusable, match="is not empty"):
        outside.prepare(tmp_path)


def test_a_claim_keeps_others_off(tmp_path: Path) -> None:
    with (
        outside.claimed(tmp_path),
        pytest.raises(MountpointUnusable, match="another process is mounting on"),
        outside.claimed(tmp_path),
    ):
        pass
    with outside.claimed(tmp_path) as path:
        assert path == tmp_path


def test_what_is_not_mounted() -> None:
    assert outside.mount_at(Path("/nowhere")) is None
    with pytest.raises(MountpointUnusable, match="cannot be unmounted"):
        outside.unmount(Path("/nowhere"))


def test_mounts_with_odd_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        rb"22 1 0:5 / /plain rw,nosuid - ext4 /dev/sda rw" + b"\n"
        rb"23 1 0:51 / /a\040b\011c\134d ro,nodev shared:1 master:2 - fuse.xetfs xetfs:o/r@0 ro,user_id=0" + b"\n"
        b"24 1 0:52 / /\xc3\xa4\xff rw - tmpfs none rw\n"
        b"nonsense\n"
    )
    monkeypatch.setattr(Path, "read_bytes", lambda self: lines)
    found = list(outside.mounts())
    assert [mount.path for mount in found] == ["/plain", "/a b\tc\\d", os.fsdecode(b"/\xc3\xa4\xff")]
    assert (found[1].fs_type, found[1].source, found[1].device) == ("fuse.xetfs", "xetfs:o/r@0", "0:51")
    assert found[1].options == {"ro", "nodev"}


def test_of_mounts_on_each_other_the_topmost_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"22 1 0:5 / /x rw - ext4 below rw\n23 1 0:6 / /x rw - tmpfs above rw\n"
    monkeypatch.setattr(Path, "read_bytes", lambda self: lines)
    mount = outside.mount_at(Path("/x"))
    assert mount is not None
    assert mount.source == "above"


def test_a_machine_without_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outside, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(MachineUnfit, match=r"there is no .*/fuse; run 'modprobe fuse'"):
        outside.check_machine()


def test_a_device_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outside, "FUSE_DEVICE", tmp_path)
    with pytest.raises(MachineUnfit, match="cannot be opened: Is a directory"):
        outside.check_machine()


def test_a_user_without_fusermount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineUnfit, match="there is no fusermount3; install it"):
        outside.check_machine()
    with pytest.raises(MachineUnfit, match="there is no fusermount3"):
        outside.unmount(tmp_path)


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        ("fusermount3: failed to unmount /mnt/x: Device or resource busy", "is in use"),
        ("fusermount3: entry for /mnt/x not found in /etc/mtab", "cannot be unmounted: {complaint}"),
        ("", "cannot be unmounted: fusermount3 ended with status 1"),
    ],
)
def test_fusermount_says_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complaint: str, expected: str) -> None:
    program = tmp_path / "fusermount3"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "{complaint}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MountpointUnusable) as caught:
        outside.unmount(Path("/mnt/x"), lazily=True)
    assert caught.value.message == f"/mnt/x {expected.format(complaint=complaint)}"
    assert (tmp_path / "arguments").read_text() == "-u -z -- /mnt/x\n"


def test_tuning_writes_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bdi = tmp_path / "class/bdi/0:51"
    connection = tmp_path / "fs/fuse/connections/51"
    bdi.mkdir(parents=True)
    connection.mkdir(parents=True)
    caplog.set_level("INFO")
    read_ahead = tune("0:51", read_ahead_kb=2048, read_ahead_units_kb=512, sys=tmp_path)
    assert (bdi / "read_ahead_kb").read_text() == "2048"
    assert read_ahead is not None
    units, others = ("a.safetensors", "b.GGUF", "x/pytorch_model.bin"), ("data.bin", "c.bin2", "safetensors")
    for name, kb in (*((name, "512") for name in units), *((name, "2048") for name in others)):
        assert read_ahead.choose(name)
        assert (bdi / "read_ahead_kb").read_text() == kb
    assert (connection / "max_background").read_text() == "512"
    assert (connection / "congestion_threshold").read_text() == "384"
    assert caplog.messages == []


def test_tuning_says_once_what_it_may_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert tune("0:51", read_ahead_kb=2048, read_ahead_units_kb=512, sys=tmp_path) is None
    assert len(caplog.messages) == 2
    assert "read-ahead stays at the kernel's default" in caplog.messages[0]
    assert "a dozen stalled reads will hold up others" in caplog.messages[1]
