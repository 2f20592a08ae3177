"""What the kernel can be asked to do better on a mount, where we may ask.

Read-ahead decides how large the kernel's requests are; only root may change it. A file keeps the number that its mount has when
it is opened, so each can have its own.

`max_background` decides how many reads through the page cache are under way at once: 12 unless raised. The next ones wait in the
kernel, where no deadline of ours reaches them; so a dozen stalled reads would hold up all others, those of held bytes included.
Whoever mounted may change it where fusectl is mounted, as on ordinary systems; root may where it is not, as in most containers,
from a mount namespace that nobody else sees.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from xetfs.protocol.formats import is_known

log = logging.getLogger(__name__)

BACKGROUND_MAX: Final = 512
"""Background requests of one mount: more than readers, and fewer than the daemon answers at a time."""
CONGESTED_AT: Final = 384
"""From here on the kernel calls the device congested and reads ahead less: the kernel's own three quarters."""

COMMAND_S: Final = 5.0
"""Limit for writing two numbers; nothing but a broken kernel reaches it."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000


class ReadAhead:
    """The kernel's read-ahead on a mount, chosen for each file that is opened."""

    def __init__(self, setting: Path, *, usual_kb: int, units_kb: int) -> None:
        """setting: the kernel's file for it. units_kb: for files that may consist of units (protocol/formats)."""
        self._setting = setting
        self._usual_kb = usual_kb
        self._units_kb = units_kb
        self._kb = 0

    def choose(self, name: str) -> bool:
        """Have the read-ahead that suits a file of this name; to be called just before its opening is answered. Does not wait for
        anything. False if we may not."""
        kb = self._units_kb if is_known(name) else self._usual_kb
        if kb != self._kb:
            if not _write(self._setting, kb):
                return False
            self._kb = kb
        return True


def tune(device: str, *, read_ahead_kb: int, read_ahead_units_kb: int, sys: Path = Path("/sys")) -> ReadAhead | None:
    """Raise read-ahead and background requests of the mount `major:minor`; says once what could not be done. May block.

    Returns what chooses the read-ahead of files; None if we may not.
    """
    setting = sys / "class" / "bdi" / device / "read_ahead_kb"
    read_ahead = ReadAhead(setting, usual_kb=read_ahead_kb, units_kb=read_ahead_units_kb)
    allowed = read_ahead.choose("")
    if not allowed:
        log.info(
            "read-ahead stays at the kernel's default, sequential reads are slower wanted_kb=%d device=%s", read_ahead_kb, device
        )
    connection = sys / "fs" / "fuse" / "connections" / device.rpartition(":")[2]
    limits = {connection / "max_background": BACKGROUND_MAX, connection / "congestion_threshold": CONGESTED_AT}
    if connection.is_dir():
        raised = all(_write(path, value) for path, value in limits.items())
    else:
        raised = _write_unseen(connection.parent, limits)
    if not raised:
        log.info("a dozen stalled reads will hold up others: fusectl is not mounted, or not ours to write device=%s", device)
    return read_ahead if allowed else None


def _write_unseen(fusectl: Path, values: Mapping[Path, int]) -> bool:
    """Write files of fusectl, mounted at its usual place in a mount namespace that only one thread of ours ever sees.

    The namespace ends with its thread. No program is run for this: what root runs would be found by PATH.
    """
    if os.geteuid() != 0 or not fusectl.is_dir():
        return False
    written: list[bool] = []

    def write() -> None:
        try:
            _enter_namespace_of_our_own()
            _mount(b"fusectl", os.fsencode(fusectl), b"fusectl", 0)
        except OSError as exc:
            log.debug("not set: background requests (%s)", exc.strerror)
        else:
            written.append(all(_write(path, value) for path, value in values.items()))

    thread = threading.Thread(target=write, name="xetfs-fusectl", daemon=True)
    thread.start()
    thread.join(COMMAND_S)
    return written == [True]


def _enter_namespace_of_our_own() -> None:
    """Give the calling thread a copy of all mounts whose changes nobody else sees. Raises OSError."""
    if _libc.unshare(_CLONE_NEWNS):
        raise _last_error()
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None):
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _write(path: Path, value: int) -> bool:
    """Whether the number could be written."""
    try:
        path.write_text(str(value))
    except OSError as exc:
        log.debug("not set: %s=%d (%s)", path, value, exc.strerror)
        return False
    return True
