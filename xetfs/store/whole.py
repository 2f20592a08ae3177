"""Reading the whole of a value file's data at once, for somebody who reads on.

What is read so is given out from memory and goes into the page cache of the file system above. If the page cache of the disk has
it already it is copied from there. Otherwise it is read past it, as writing.py writes: it would be copied, and held, a second
time, and the pages for it would have to be found first. Measured, that takes a tenth of the CPU time.
"""

from __future__ import annotations

import os
from typing import Final

from xetfs.protocol.memory import MAPPED_BYTES_MIN, new_buffer
from xetfs.store.writing import PAGE_BYTES

_O_DIRECT: Final = getattr(os, "O_DIRECT", 0)
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
_PROBES: Final = 4
"""Places looked at to judge whether the page cache has a file. A wrong guess costs time, nothing else."""


def read_whole(fd: int, start: int, size: int) -> tuple[memoryview, bool]:
    """The bytes [start, start + size) of a file, as many as it has of them, and whether they came from the page cache.

    start: on a page. fd: opened for reading; not changed. May block. Raises OSError.
    """
    buffer = new_buffer(-(-size // PAGE_BYTES) * PAGE_BYTES)
    is_cached = _in_page_cache(fd, start, size)
    done = 0 if is_cached or size < MAPPED_BYTES_MIN else _read_direct(fd, start, buffer)  # a short buffer begins on no page
    while done < size:
        got = os.preadv(fd, (buffer[done:size],), start + done)
        if not got:
            break
        done += got
    return buffer[: min(done, size)], is_cached


def _in_page_cache(fd: int, start: int, size: int) -> bool:
    """Whether the page cache seems to have the bytes."""
    byte = bytearray(1)
    try:
        return bool(_NOWAIT) and all(
            os.preadv(fd, (byte,), start + (size - 1) * probe // (_PROBES - 1), _NOWAIT) for probe in range(_PROBES)
        )
    except OSError:
        return False


def _read_direct(fd: int, start: int, buffer: memoryview) -> int:
    """Read past the page cache; how many bytes were had that way, all but the file's end or none."""
    try:
        direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | _O_DIRECT)  # a mode of its own
    except OSError:
        return 0  # a file system that does not do that
    done = 0
    try:
        while done < len(buffer):
            got = os.preadv(direct, (buffer[done:],), start + done)
            done += got
            if not got or got % PAGE_BYTES:
                break
    except OSError:
        pass  # the page cache may still be able to, or says what is wrong
    finally:
        os.close(direct)
    return done
