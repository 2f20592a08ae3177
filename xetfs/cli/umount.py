"""`xetfs umount DIR`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from xetfs.cli.exits import Exit
from xetfs.errors import MountpointUnusable

END_S: Final = 30.0
"""How long to wait for the process of a mount to write down what it knows and end."""
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
    parser.add_argument("directory", metavar="DIR", type=Path, help="where it is mounted")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from xetfs.cli.state import MountRecord, file_for
    from xetfs.fs import mountpoint as outside

    path = outside.resolve(arguments.directory)
    mount = outside.mount_at(path)
    if mount is None:
        raise MountpointUnusable(f"nothing is mounted at {path}", hint="'findmnt -t fuse.xetfs' lists the mounts")
    if mount.fs_type != outside.FS_TYPE:
        raise MountpointUnusable(f"{path} is a mount of another kind ({mount.fs_type})", hint=f"use 'umount {path}'")
    record = MountRecord.read(file_for(path, ".json", os.environ))
    try:
        outside.unmount(path)
    except MountpointUnusable as exc:
        if _is_dead(path):
            outside.unmount(path, lazily=True)
        else:
            users = ", ".join(holders(path))
            raise MountpointUnusable(exc.message, hint=f"used by {users}" if users else exc.hint) from exc
    if record is not None and not record.wait_ended(END_S):
        print(f"xetfs: unmounted, but process {record.pid} is still ending", file=sys.stderr)
    return Exit.OK


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
