"""Reads files through mappings, in a process of its own: a page that cannot be had ends the process by SIGBUS.

Takes lines of JSON [path, start, end] and answers each with a line that holds the length of the bytes, and the bytes.
"""

import json
import mmap
import os
import sys


def main() -> None:
    for line in sys.stdin.buffer:
        path, start, end = json.loads(line)
        fd = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapping:
                data = mapping[start:end]
        finally:
            os.close(fd)
        sys.stdout.buffer.write(b"%d\n" % len(data) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
