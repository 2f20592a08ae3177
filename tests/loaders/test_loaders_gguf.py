"""GGUF files, as the gguf package maps them, and as llama.cpp does."""

from __future__ import annotations

import hashlib

import gguf
import pytest
from loader_data import GGUF, LAYERS, MIB
from loader_runs import Loaders

HEADER = """
import sys
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
print(len(reader.tensors), reader.get_field("tokenizer.ggml.tokens").contents(-1))
"""
TENSORS = """
import hashlib, sys
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
for tensor in reader.tensors:
    if tensor.name in sys.argv[2:]:
        print(tensor.name, hashlib.sha256(tensor.data).hexdigest())
"""

# What llama.cpp does with a file (src/llama-mmap.cpp, src/llama-model-loader.cpp): the header is read with fread, the whole file
# is mapped and the kernel is advised of that; then the tensors are touched in the order of the layers, the rows of each shared
# out among threads. Here each thread takes its rows page by page.
LLAMA = """
import hashlib, mmap, os, sys, threading
from gguf import GGUFReader
path, threads, advice = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tensors = [(t.name, int(t.data_offset), int(t.n_bytes)) for t in GGUFReader(sys.argv[4]).tensors]
with open(path, "rb") as file:
    end = min(start for _, start, _ in tensors)
    while file.tell() < end:
        file.read(4096)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
if advice != "NORMAL":
    mapped.madvise(getattr(mmap, "MADV_" + advice))
step = threading.Barrier(threads)
def work(number):
    for _, start, length in tensors:
        rows = range(start + length * number // threads, start + length * (number + 1) // threads, 4096)
        sum(mapped[at] for at in rows)
        step.wait()
workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
for name, start, length in tensors:
    print(name, hashlib.sha256(memoryview(mapped)[start:start + length]).hexdigest())
"""


def expected(loaders: Loaders, names: list[str]) -> tuple[list[str], int]:
    """What TENSORS prints of these, and their bytes; all if none is named."""
    tensors = [tensor for tensor in gguf.GGUFReader(loaders.folder / GGUF).tensors if not names or tensor.name in names]
    lines = [f"{tensor.name} {hashlib.sha256(tensor.data).hexdigest()}" for tensor in tensors]
    return lines, sum(int(tensor.n_bytes) for tensor in tensors)


def size_of(loaders: Loaders) -> int:
    return (loaders.folder / GGUF).stat().st_size


def test_the_header_alone(loaders: Loaders) -> None:
    printed, moved = loaders.run(HEADER, GGUF)
    assert printed.split() == [str(2 * LAYERS), "token19999"]
    header = min(int(tensor.data_offset) for tensor in gguf.GGUFReader(loaders.folder / GGUF).tensors)
    assert header <= moved <= header + MIB


@pytest.mark.production
def test_some_tensors(loaders: Loaders) -> None:
    names = [f"blk.{layer}.{part}.weight" for layer in (3, 8, 13) for part in ("attn", "norm")]
    lines, size = expected(loaders, names)
    printed, moved = loaders.run(TENSORS, GGUF, *names)
    assert printed.splitlines() == lines
    assert size <= moved <= size + 5 * MIB


def test_llama_touches_all_pages_in_the_order_of_the_tensors(loaders: Loaders) -> None:
    lines, _ = expected(loaders, [])
    printed, moved = loaders.run(LLAMA, GGUF, 4, "NORMAL", loaders.folder / GGUF)
    assert printed.splitlines() == lines
    assert moved <= 1.05 * size_of(loaders)


def test_llama_advises_that_all_will_be_needed(loaders: Loaders) -> None:
    lines, _ = expected(loaders, [])
    printed, moved = loaders.run(LLAMA, GGUF, 4, "WILLNEED", loaders.folder / GGUF)
    assert printed.splitlines() == lines
    assert moved <= 1.05 * size_of(loaders)


def test_llama_advises_that_pages_come_in_any_order(loaders: Loaders) -> None:
    """As on machines with several memory nodes: then each page is asked for alone."""
    lines, _ = expected(loaders, [])
    printed, moved = loaders.run(LLAMA, GGUF, 4, "RANDOM", loaders.folder / GGUF)
    assert printed.splitlines() == lines
    assert moved <= 1.05 * size_of(loaders)
    assert len(loaders.hub.requests("cas")) <= 400
