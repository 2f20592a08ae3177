"""`xetfs umount DIR`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xetfs.cli.arguments import path_argument
from xetfs.cli.exits import Exit
from xetfs.errors import MountpointUnusable

if TYPE_CHECKING:
    from xetfs.cli.state import MountRecord

END_S: Final = 30.0
"""How long to wait for the process of a mount to write down what it knows and end."""
HELD_S: Final = 0.5
"""How long to wait for it before looking for what holds it up: ending takes a fraction of that."""
ANSWER_S: Final = 5.0
"""How long to wait for a mount to say that it is alive."""
HOLDERS_SHOWN_MAX: Final = 5


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "umount",
        help="take a mounted repo down",
        description="Unmount a repo, also one whose process has died, and wait for the process to end.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", type=path_argument, help="where it is mounted")
    parser.add_argument(
        "-l", "--lazy", action="store_true", help="unmount also while it is in use; programs go on with what they have open"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from xetfs.cli.state import MountRecord, record_file
    from xetfs.fs import mountpoint as outside

    path = outside.resolve(arguments.directory)
    os.chdir("/")  # this process may have been started in what it takes down
    mount = outside.mount_at(path)
    if mount is None:
        raise MountpointUnusable(f"nothing is mounted at {path}", hint="'findmnt -t fuse.xetfs' lists the mounts")
    if mount.fs_type != outside.FS_TYPE:
        raise MountpointUnusable(f"{path} is a mount of another kind ({mount.fs_type})", hint=f"use 'umount {path}'")
    record = MountRecord.read(record_file(path, os.environ))
    if record is not None and not arguments.lazy:
        others = outside.others_of(path, mount.device)
        if others:
            raise MountpointUnusable(
                f"{path} is also mounted at {', '.join(others)}",
                hint="unmount that first; --lazy unmounts this one, and the rest goes on",
            )
    try:
        outside.unmount(path, lazily=arguments.lazy)
    except MountpointUnusable as exc:
        if _is_dead(path):
            outside.unmount(path, lazily=True)
        else:
            users = ", ".join(holders(path))
            hint = f"used by {users}; --lazy unmounts it, and they go on" if users else exc.hint
            raise MountpointUnusable(exc.message, hint=hint) from exc
    if record is not None:
        _wait_ended(record, mount.device, lazily=arguments.lazy)
    return Exit.OK


def _wait_ended(record: MountRecord, device: str, *, lazily: bool) -> None:
    """Wait for a mount's process to write down what it knows and end, or say why it does not."""
    reason = ""
    if not record.wait_ended(HELD_S):
        elsewhere = ", ".join(mounted_elsewhere(device))
        if elsewhere:
            reason = f"its mount is still there for {elsewhere}"
        elif lazily:
            reason = "programs use what they have open, or it is still ending"
    if reason or not record.wait_ended(END_S):
        reason = reason or "it is still ending"
        print(f"xetfs: unmounted, but process {record.pid} goes on: {reason}", file=sys.stderr)


def mounted_elsewhere(device: str) -> Iterator[str]:
    """Where a file system is still mounted, in whatever mount namespace, as far as this user may see.

    Each with a process, if the namespace is not ours: containers that were started while it was mounted may have a copy.
    """
    from xetfs.fs import mountpoint as outside

    yield from (mount.path for mount in outside.mounts() if mount.device == device)
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda entry: int(entry.name)):
        try:
            namespace = os.stat(process / "ns/mnt").st_ino
            if namespace in seen:
                continue
            seen.add(namespace)
            lines = (process / "mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            continue
        for fields in map(str.split, lines):
            if len(fields) > 4 and fields[2] == device:
                yield f"{fields[4]} ({_name_of(process)}, process {process.name})"


def _is_dead(path: Path) -> bool:
    """Whether the mount's process has died. One that hangs has not: it is left to its deadline."""
    from xetfs.fs import mountpoint as outside

    states: list[str] = []
    asking = threading.Thread(target=lambda: states.append(outside.state_of(path)), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    return states == ["dead"]


def holders(path: Path) -> Iterator[str]:
    """The programs that use something under `path`, as far as this user may see, without asking the mount itself."""
    found = 0
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda entry: int(entry.name)):
        if any(used == str(path) or used.startswith(f"{path}/") for used in _used_by(process)):
            found += 1
            if found > HOLDERS_SHOWN_MAX:
                yield "and others"
                return
            yield f"{_name_of(process)} ({process.name})"


def _used_by(process: Path) -> Iterator[str]:
    """Paths of what a process has as directory, program, open file or mapping."""
    for name in ("cwd", "root", "exe"):
        yield _target(process / name)
    for folder in ("fd", "map_files"):
        try:
            entries = os.listdir(process / folder)
        except OSError:
            continue
        for entry in entries:
            yield _target(process / folder / entry)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _name_of(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"
