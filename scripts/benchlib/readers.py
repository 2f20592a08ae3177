"""The programs that read. Each runs alone in a fresh process (`python -m benchlib.readers NAME ARGUMENTS`, arguments as JSON) and
prints what it saw: seconds of the work itself without start-up and imports, the bytes it was given, its CPU time likewise, its
peak of memory. None of them knows about xetfs: they read paths, or do what a user of huggingface_hub does.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchlib.processes import peak_bytes

PAGE = 4096
PIECE = 1024 * 1024


class Watch:
    """Time and CPU of the stretch between start and stop."""

    seconds = 0.0
    cpu_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        before, began = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            self.cpu_s += time.process_time() - before


def sequential(watch: Watch, path: str, block: int, start: int = 0, end: int | None = None) -> dict[str, float]:
    """From start to end, `block` bytes at a time, into one buffer."""
    buffer = memoryview(bytearray(block))
    total = 0
    with watch.running():
        file = os.open(path, os.O_RDONLY)
        while end is None or start < end:
            got = os.preadv(file, [buffer if end is None else buffer[: end - start]], start)
            if not got:
                break
            start += got
            total += got
        os.close(file)
    return {"bytes": total}


def shuffled(watch: Watch, path: str, block: int, seed: int) -> dict[str, float]:
    """All of it, in blocks, in a random order."""
    size = os.path.getsize(path)
    places = list(range(0, size, block))
    random.Random(seed).shuffle(places)
    buffer = bytearray(block)
    total = 0
    with watch.running():
        file = os.open(path, os.O_RDONLY)
        for place in places:
            total += os.preadv(file, [buffer], place)
        os.close(file)
    return {"bytes": total}


def random_reads(watch: Watch, path: str, length: int, count: int, seed: int) -> dict[str, float]:
    """`count` reads past the page cache, one after the other."""
    chance = random.Random(seed)
    pages = os.path.getsize(path) // PAGE - length // PAGE
    places = [chance.randrange(pages) * PAGE for _ in range(count)]
    buffer = mmap.mmap(-1, length)  # aligned, as O_DIRECT asks
    total = 0
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with watch.running():
        for place in places:
            total += os.preadv(file, [buffer], place)
    os.close(file)
    return {"bytes": total, "count": count}


def scattered(watch: Watch, path: str, length: int, places: int, passes: int, seed: int) -> dict[str, float]:
    """Places far from each other and from the begin of the file, `passes` times past the page cache, in random orders."""
    chance = random.Random(seed)
    step = (os.path.getsize(path) - length) // (places + 1) // PAGE
    found = [(number * step + chance.randrange(max(1, step // 4))) * PAGE for number in range(1, places + 1)]
    buffer = mmap.mmap(-1, length)
    total = 0
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    for _ in range(passes):
        chance.shuffle(found)
        with watch.running():
            for place in found:
                total += os.preadv(file, [buffer], place)
    os.close(file)
    return {"bytes": total, "count": places * passes}


def _run_side_by_side(watch: Watch, threads: int, work: Callable[[int], None]) -> None:
    """Call `work` with the number of each of so many threads."""
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    with watch.running():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def together(watch: Watch, paths: list[str], threads: int, block: int) -> dict[str, float]:
    """Files from end to end, so many at the same time."""
    left = iter(paths)
    given = [0] * threads

    def work(number: int) -> None:
        for path in left:
            given[number] += int(sequential(Watch(), path, block)["bytes"])

    _run_side_by_side(watch, threads, work)
    return {"bytes": sum(given)}


def statuses(watch: Watch, directory: str, names: list[str]) -> dict[str, float]:
    """lstat of each name."""
    paths = [os.path.join(directory, name) for name in names]
    with watch.running():
        for path in paths:
            os.lstat(path)
    return {"bytes": 0, "count": len(paths)}


def by_turns(watch: Watch, paths: list[str], block: int) -> dict[str, float]:
    """Files from end to end at the same time, by one thread: a block of each in turn."""
    buffer = bytearray(block)
    total = 0
    with watch.running():
        files = {os.open(path, os.O_RDONLY): 0 for path in paths}
        while files:
            for file, place in list(files.items()):
                got = os.preadv(file, [buffer], place)
                total += got
                files[file] += got
                if not got:
                    os.close(file)
                    del files[file]
    return {"bytes": total}


def blocks(
    watch: Watch, path: str, block: int, threads: int, count: int = 0, direct: bool = False, seed: int = 0
) -> dict[str, float]:
    """Blocks read by threads that share one descriptor; whoever is free takes the next block. count: so many, anywhere in the
    file, at page borders, in random order and without a byte in common; 0: all, in the order of the file. direct: past the page
    cache of the mount."""
    size = os.path.getsize(path)
    places = iter(scattered_places(size, block, count, seed) if count else range(0, size, block))
    given = [0] * threads
    file = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))

    def work(number: int) -> None:
        buffer = mmap.mmap(-1, block)  # aligned, as O_DIRECT asks
        for place in places:
            given[number] += _read_block(file, memoryview(buffer), place, min(block, size - place))

    _run_side_by_side(watch, threads, work)
    os.close(file)
    expected = count * block if count else size
    if sum(given) != expected:
        raise RuntimeError(f"{sum(given)} bytes of {expected}")
    return {"bytes": expected, "count": count or -(-size // block)}


def _read_block(file: int, buffer: memoryview, place: int, length: int) -> int:
    done = 0
    while done < length:
        got = os.preadv(file, [buffer[done:]], place + done)
        if not got:
            break
        done += got
    return done


def scattered_places(size: int, block: int, count: int, seed: int) -> list[int]:
    """Raises ValueError when so many blocks do not fit without a byte in common."""
    pages, needed = size // count // PAGE, -(-block // PAGE)
    if pages < needed:
        raise ValueError(f"{count} blocks of {block} bytes do not fit into {size}")
    chance = random.Random(seed)
    places = [(number * pages + chance.randrange(pages - needed + 1)) * PAGE for number in range(count)]
    chance.shuffle(places)
    return places


def tensors(watch: Watch, path: str, share: float = 1, seed: int | None = None) -> dict[str, float]:
    """Load a share of the tensors of a safetensors file in the order of the file: picked at random with a seed, in a row from the
    middle of the file without."""
    from safetensors import safe_open

    with watch.running():
        return _load_tensors(safe_open, path, share, seed)


def _load_tensors(safe_open: Any, path: str, share: float = 1, seed: int | None = None) -> dict[str, float]:
    loaded = {}
    with safe_open(path, framework="numpy") as file:
        names = file.offset_keys() if hasattr(file, "offset_keys") else list(file.keys())
        count = int(len(names) * share)
        names = names[(len(names) - count) // 2 :][:count] if seed is None else pick(names, count, seed)
        for name in names:
            loaded[name] = file.get_tensor(name)
    return {"bytes": sum(tensor.nbytes for tensor in loaded.values()), "tensors": len(loaded)}


def names(watch: Watch, path: str) -> dict[str, float]:
    """All names of a directory."""
    with watch.running():
        count = len(os.listdir(path))
    return {"bytes": 0, "count": count}


def pick(names: list[str], count: int, seed: int) -> list[str]:
    """`count` of them, in their own order."""
    chosen = set(random.Random(seed).sample(names, count))
    return [name for name in names if name in chosen]


def download(watch: Watch, repo: str, file: str, block: int) -> dict[str, float]:
    """hf_hub_download, and then a read from end to end. `seconds` is the download, `read_s` what the reading took."""
    import hf_xet  # noqa: F401  (loaded at the first download otherwise)
    from huggingface_hub import hf_hub_download

    with watch.running():
        path = hf_hub_download(repo, file)
    reading = Watch()
    given = sequential(reading, path, block)
    return {**given, "read_s": reading.seconds}


def download_tensors(watch: Watch, repo: str, file: str) -> dict[str, float]:
    """hf_hub_download, then load every tensor."""
    import hf_xet  # noqa: F401  (loaded at the first download otherwise)
    from huggingface_hub import hf_hub_download
    from safetensors import safe_open

    with watch.running():
        return _load_tensors(safe_open, hf_hub_download(repo, file))


def ranges(watch: Watch, repo: str, file: str, length: int, places: list[int]) -> dict[str, float]:
    """HfFileSystem: open, then seek and read at each place."""
    from huggingface_hub import HfFileSystem

    with HfFileSystem().open(f"{repo}/{file}") as opened, watch.running():
        total = 0
        for place in places:
            opened.seek(place)
            total += len(opened.read(length))
    return {"bytes": total, "count": len(places)}


def discard(watch: Watch, ranges: list[list[Any]]) -> dict[str, float]:
    """GET each range (URL, first, last) on one connection; the kernel throws the bytes away, so that the server is what works."""
    host = urlsplit(ranges[0][0])
    total = 0
    scratch = bytearray(PIECE)
    with socket.create_connection((host.hostname, host.port)) as sock, watch.running():
        for url, first, last in ranges:
            at = urlsplit(url)
            sock.sendall(
                f"GET {at.path}?{at.query} HTTP/1.1\r\nHost: {at.netloc}\r\nRange: bytes={first}-{last}\r\n\r\n".encode()
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += sock.recv(PAGE) or b"(closed)\r\n\r\n"
            left = last + 1 - first - len(answer.partition(b"\r\n\r\n")[2])
            while left and (got := sock.recv_into(scratch, min(left, PIECE), socket.MSG_TRUNC)):
                left -= got
            if left or not answer.startswith(b"HTTP/1.1 206 "):
                raise RuntimeError(f"the hub answered {answer[:80]!r}, and {left} bytes are missing")
            total += last + 1 - first
    return {"bytes": total, "count": len(ranges)}


def tree(watch: Watch, repo: str) -> dict[str, float]:
    """HfApi.list_repo_tree of everything."""
    from huggingface_hub import HfApi

    with watch.running():
        count = sum(1 for _ in HfApi().list_repo_tree(repo, recursive=True))
    return {"bytes": 0, "count": count}


READERS: dict[str, Callable[..., dict[str, float]]] = {
    reader.__name__: reader
    for reader in (
        sequential,
        shuffled,
        random_reads,
        scattered,
        together,
        by_turns,
        blocks,
        tensors,
        names,
        statuses,
        download,
        download_tensors,
        ranges,
        discard,
        tree,
    )
}


def main() -> None:
    name, arguments = sys.argv[1:]
    watch = Watch()
    seen = READERS[name](watch, **json.loads(arguments))
    peak = peak_bytes(os.getpid())
    print(json.dumps({"seconds": watch.seconds, "cpu_s": watch.cpu_s, "peak_bytes": peak, **seen}))


if __name__ == "__main__":
    main()
