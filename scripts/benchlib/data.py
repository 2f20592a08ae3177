"""What is read: made once, uploaded by the real client, and kept for the next run.

    DIR/SIZES/hub/        the directory of the test hub
    DIR/SIZES/plain/      the same files on this disk, to read beside it
    DIR/SIZES/data.json   what is there; written last, so that what is half done is made anew

Everything comes from seeded generators: two machines with the same numpy measure the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from benchlib.hub import Hub
from benchlib.scale_data import Scale, prepare_scale

MIB = 1024 * 1024
GIB = 1024 * MIB
FORMAT = 2
"""Raised when anything below changes what is made."""
_PIECE = 8 * MIB

UPLOAD = """
import sys
from huggingface_hub import HfApi
repo, folder = sys.argv[1:]
api = HfApi()
api.create_repo(repo, exist_ok=True)
api.upload_folder(repo_id=repo, folder_path=folder)
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """In bytes, and files."""

    stream: int = GIB
    """The file that is read from end to end."""
    large: int = 4 * GIB
    """The file in which places are picked."""
    model: int = GIB
    files: int = 100_000

    def name(self) -> str:
        return f"{self.stream // MIB}-{self.large // MIB}-{self.model // MIB}-{self.files}"


QUICK = Sizes(stream=512 * MIB, large=GIB, model=512 * MIB, files=100_000)


class Stored(TypedDict):
    """What the manifest says of a file in the hub: bytes of its chunks, and the names of its xorbs."""

    bytes: int
    xorbs: list[str]


@dataclass(frozen=True, slots=True)
class Content:
    """One file of one repo. stored_bytes: of its chunks as they lie in xorbs, which is what has to travel at the least. xorbs:
    their files in the hub."""

    repo: str
    file: str
    size: int
    stored_bytes: int
    plain: Path
    xorbs: tuple[Path, ...]

    @property
    def link(self) -> str:
        return f"{self.repo}/{self.file}"


@dataclass(frozen=True, slots=True)
class Data:
    """All that is prepared. files_repo: the repo with one directory of `files` small files; scale: only where it is wanted."""

    sizes: Sizes
    hub_directory: Path
    noise: Content
    floats: Content
    large: Content
    model: Content
    files_repo: str
    files_plain: Path
    scale: Scale | None = None


def prepare(base: Path, sizes: Sizes, say: Callable[[str], None], *, scale: bool) -> Data:
    """What is there already, or else make it; with files of many sizes, if `scale`."""
    data = _prepare(base / sizes.name(), sizes, say)
    return replace(data, scale=prepare_scale(base / sizes.name(), data.hub_directory, say)) if scale else data


def _prepare(directory: Path, sizes: Sizes, say: Callable[[str], None]) -> Data:
    kept = directory / "data.json"
    if kept.exists():
        manifest = json.loads(kept.read_text())
        if manifest["format"] == FORMAT:
            return _data(directory, sizes, manifest["stored"])
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "plain").mkdir(parents=True)
    stored: dict[str, Stored] = {}
    held: set[str] = set()
    makers: Mapping[str, Callable[[Path], None]] = {
        "noise": lambda path: _write(path / "noise.bin", noise(sizes.stream, seed=1)),
        "floats": lambda path: _write(path / "floats.bin", floats(sizes.stream, seed=2)),
        "large": lambda path: _write(path / "large.bin", noise(sizes.large, seed=3)),
        "model": lambda path: write_model(path / "model.safetensors", sizes.model, seed=4),
    }
    hub = directory / "hub"
    for name, make in makers.items():
        say(f"making {name}, and uploading it with huggingface_hub and hf_xet")
        folder = directory / "plain" / name
        folder.mkdir()
        make(folder)
        with Hub(hub) as running:
            _upload(running, f"bench/{name}", folder)
        found = _stored_xorbs(hub)
        stored[name] = {"bytes": sum(found[xorb] for xorb in found.keys() - held), "xorbs": sorted(found.keys() - held)}
        held |= found.keys()
    say(f"making a directory of {sizes.files} files")
    _make_directory(hub, directory / "plain" / "files", sizes.files)
    kept.write_text(json.dumps({"format": FORMAT, "sizes": asdict(sizes), "stored": stored}))
    os.sync()
    return _data(directory, sizes, stored)


def _data(directory: Path, sizes: Sizes, stored: Mapping[str, Stored]) -> Data:
    def content(name: str) -> Content:
        (plain,) = (directory / "plain" / name).iterdir()
        xorbs = tuple(directory / "hub" / "xorbs" / xorb[:2] / xorb for xorb in stored[name]["xorbs"])
        return Content(f"bench/{name}", plain.name, plain.stat().st_size, stored[name]["bytes"], plain, xorbs)

    contents: dict[str, Any] = {name: content(name) for name in ("noise", "floats", "large", "model")}
    return Data(sizes, directory / "hub", **contents, files_repo="bench/files", files_plain=directory / "plain" / "files")


def noise(size: int, *, seed: int) -> Iterator[bytes]:
    """Bytes that do not compress."""
    chance = np.random.default_rng(seed)
    for at in range(0, size, _PIECE):
        yield chance.bytes(min(_PIECE, size - at))


def floats(size: int, *, seed: int) -> Iterator[bytes]:
    """Little-endian float32 as the weights of a model have them: small numbers around zero."""
    chance = np.random.default_rng(seed)
    for at in range(0, size, _PIECE):
        count = min(_PIECE, size - at) // 4
        yield (chance.standard_normal(count, dtype=np.float32) * np.float32(0.02)).tobytes()


def tensor_shapes(size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a transformer whose float32 weights take about `size` bytes, in its order."""
    width, vocabulary = (1024, 16384) if size >= 512 * MIB else (512, 8192)
    layer: dict[str, tuple[int, ...]] = {
        "attn.k.weight": (width, width),
        "attn.o.weight": (width, width),
        "attn.q.weight": (width, width),
        "attn.v.weight": (width, width),
        "mlp.down.weight": (width, 4 * width),
        "mlp.up.weight": (4 * width, width),
        "norm1.weight": (width,),
        "norm2.weight": (width,),
    }
    layer_bytes = sum(4 * int(np.prod(shape)) for shape in layer.values())
    layers = max(1, (size - 4 * vocabulary * width) // layer_bytes)
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (vocabulary, width)}
    for number in range(layers):
        shapes.update({f"layers.{number:02}.{name}": shape for name, shape in layer.items()})
    return shapes


def write_model(path: Path, size: int, *, seed: int) -> None:
    """A safetensors file: the length of the header, the header, the tensors one after the other."""
    header: dict[str, Any] = {}
    at = 0
    for name, shape in tensor_shapes(size).items():
        length = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in floats(at, seed=seed):
            file.write(piece)


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _upload(hub: Hub, repo: str, folder: Path) -> None:
    home = folder.parent.parent / "upload-home"
    env = {**os.environ, **hub.client_env(home), "HF_TOKEN": "hf_bench"}
    subprocess.run([sys.executable, "-c", UPLOAD, repo, str(folder)], env=env, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(home)


def _stored_xorbs(hub: Path) -> dict[str, int]:
    """Every xorb with the bytes of its chunks, without the footer."""
    from xetfs.protocol.hashes import MerkleHash, XorbHash
    from xetfs.testhub.storage import Storage
    from xetfs.testhub.xetstore import XetStore

    storage = Storage(hub)
    try:
        xet = XetStore(storage)
        names = [path.name for path in (hub / "xorbs").glob("*/*")]
        return {name: int(xet.index(XorbHash(MerkleHash.from_hex(name))).wire[-1]) for name in names}
    finally:
        storage.close()


def _make_directory(hub: Path, plain: Path, count: int) -> None:
    """Through the storage of the hub: the real client would take minutes, and it is the listing that is measured."""
    from xetfs.testhub.storage import Storage

    files = {f"data/part-{number:06}.json": b'{"part": %d}\n' % number for number in range(count)}
    storage = Storage(hub)
    try:
        storage.commit_files(storage.create_repo("model", "bench/files"), files)
    finally:
        storage.close()
    (plain / "data").mkdir(parents=True)
    for name, content in files.items():
        (plain / name).write_bytes(content)
