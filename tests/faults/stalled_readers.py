"""A program of many readers: each thread reads one place of one file and says what became of it, one line each.

usage: stalled_readers.py MOUNT < lines of "path offset length"; output: "path offset errno-or-0 sha256".
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading


def read(mount: str, path: str, offset: int, length: int) -> None:
    try:
        fd = os.open(f"{mount}/{path}", os.O_RDONLY)
        try:
            data, code = os.pread(fd, length, offset), 0
        finally:
            os.close(fd)
    except OSError as error:
        data, code = b"", error.errno or -1
    os.write(1, f"{path} {offset} {code} {hashlib.sha256(data).hexdigest()}\n".encode())


def main() -> None:
    threads = []
    for line in sys.stdin:
        path, offset, length = line.split()
        threads.append(threading.Thread(target=read, args=(sys.argv[1], path, int(offset), int(length))))
        threads[-1].start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
