"""Test data: generated once, uploaded by the real client, and kept for the next run.

    DIR/SIZES/hub/        directory of the test hub
    DIR/SIZES/plain/      the same files on this disk, to compare with
    DIR/SIZES/data.json   what is complete; a part that is missing here is made again

Each part is made when a scenario first needs it. Everything comes from seeded generators: two machines with the same numpy
measure the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from benchlib.hub import Hub
from benchlib.scale_data import Scale, prepare_scale

MIB = 1024 * 1024
GIB = 1024 * MIB
FORMAT = 3
"""Raised when anything below changes what is made."""
_PIECE = 8 * MIB

NOISE, FLOATS, LARGE, MODEL = "noise", "floats", "large", "model"
FILES, WHOLE, SCALE = "files", "whole", "scale"
PARTS: Final = (NOISE, FLOATS, LARGE, MODEL, WHOLE, FILES, SCALE)
WHOLE_MB: Final = (0.3, 1, 5, 10, 30, 100)
"""Sizes of the files that are read whole, in 10⁶ bytes."""
ALIKE: Final = 6
"""Files of ALIKE_MB that are read at the same time."""
ALIKE_MB: Final = 10
FIRST: Final = "first.bin"
"""A small file, read before anything is measured: the first read of a mount brings requests of its own."""

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
    """Sizes in bytes, and a number of files."""

    stream: int = GIB
    """The files read from end to end."""
    large: int = 4 * GIB
    """The file read at places far apart."""
    model: int = GIB
    files: int = 100_000

    def name(self) -> str:
        return f"{self.stream // MIB}-{self.large // MIB}-{self.model // MIB}-{self.files}"


QUICK = Sizes(stream=512 * MIB, large=GIB, model=512 * MIB, files=100_000)


class Stored(TypedDict):
    """A repo in the manifest: total bytes of its chunks, and the names of its xorbs."""

    bytes: int
    xorbs: list[str]


@dataclass(frozen=True, slots=True)
class Content:
    """One file of one repo. stored_bytes: its chunks as stored in xorbs, the least that has to be transferred. xorbs: their paths
    in the hub's directory."""

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
    """Everything prepared. contents: by the name of the part; the files read whole share one repo, so they are in it by name.
    files_repo: a repo with one directory of `files` small files."""

    sizes: Sizes
    hub_directory: Path
    contents: Mapping[str, Content] = field(default_factory=dict)
    scale: Scale | None = None
    files_repo: str = f"bench/{FILES}"

    def content(self, name: str) -> Content:
        """Raises LookupError if it was not prepared: the scenario has to name it in `needs`."""
        if name not in self.contents:
            raise LookupError(f"{name} was not prepared")
        return self.contents[name]

    @property
    def noise(self) -> Content:
        return self.content(NOISE)

    @property
    def large(self) -> Content:
        return self.content(LARGE)

    @property
    def model(self) -> Content:
        return self.content(MODEL)

    @property
    def files_plain(self) -> Path:
        return self.hub_directory.parent / "plain" / FILES


def whole_name(megabytes: float) -> str:
    return f"{megabytes:g}MB.bin"


def alike_name(number: int) -> str:
    return f"alike-{number}.bin"


def prepare(base: Path, sizes: Sizes, parts: Collection[str], say: Callable[[str], None]) -> Data:
    """The data for these parts; whatever is missing is made."""
    directory = base / sizes.name()
    kept = directory / "data.json"
    manifest: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if manifest.get("format") != FORMAT:
        shutil.rmtree(directory, ignore_errors=True)
        manifest = {"format": FORMAT, "parts": {}}
    directory.mkdir(parents=True, exist_ok=True)
    hub = directory / "hub"
    for part in PARTS:
        if part in parts and part != SCALE and part not in manifest["parts"]:
            folder = directory / "plain" / part
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            manifest["parts"][part] = _make(part, folder, hub, sizes, say)
            os.sync()
            kept.write_text(json.dumps(manifest))
    data = Data(sizes, hub, _contents(directory, manifest["parts"]))
    return replace(data, scale=prepare_scale(directory, hub, say)) if SCALE in parts else data


def _make(part: str, folder: Path, hub: Path, sizes: Sizes, say: Callable[[str], None]) -> Stored:
    if part == FILES:
        say(f"making a directory of {sizes.files} files")
        _make_directory(hub, folder, sizes.files)
        return {"bytes": 0, "xorbs": []}
    say(f"making {part}, and uploading it with huggingface_hub and hf_xet")
    for name, pieces in _files(part, sizes).items():
        with (folder / name).open("wb") as file:
            file.writelines(pieces)
    before = _stored_xorbs(hub) if hub.exists() else {}
    with Hub(hub) as running:
        _upload(running, f"bench/{part}", folder)
    found = _stored_xorbs(hub)
    new = sorted(found.keys() - before.keys())
    return {"bytes": sum(found[xorb] for xorb in new), "xorbs": new}


def _files(part: str, sizes: Sizes) -> Mapping[str, Iterator[bytes]]:
    """The files of a part. Their seeds differ, so that no two have a chunk in common."""
    if part == WHOLE:
        megabytes = {FIRST: 0.1, **{whole_name(size): size for size in WHOLE_MB}}
        megabytes |= {alike_name(number): ALIKE_MB for number in range(ALIKE)}
        return {name: noise(int(size * 1e6), seed=100 + seed) for seed, (name, size) in enumerate(megabytes.items())}
    return {
        NOISE: {"noise.bin": noise(sizes.stream, seed=1)},
        FLOATS: {"floats.bin": floats(sizes.stream, seed=2)},
        LARGE: {"large.bin": noise(sizes.large, seed=3)},
        MODEL: {"model.safetensors": model(sizes.model, seed=4)},
    }[part]


def _contents(directory: Path, parts: Mapping[str, Stored]) -> dict[str, Content]:
    contents = {}
    for part, stored in parts.items():
        if part == FILES:
            continue
        xorbs = tuple(directory / "hub" / "xorbs" / xorb[:2] / xorb for xorb in stored["xorbs"])
        for plain in (directory / "plain" / part).iterdir():
            name, size = (plain.name, plain.stat().st_size) if part == WHOLE else (part, stored["bytes"])
            contents[name] = Content(f"bench/{part}", plain.name, plain.stat().st_size, size, plain, xorbs)
    return contents


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


def model(size: int, *, seed: int) -> Iterator[bytes]:
    """A safetensors file: the length of the header, the header, the tensors one after the other."""
    header: dict[str, Any] = {}
    at = 0
    for name, shape in tensor_shapes(size).items():
        length = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    yield from floats(at, seed=seed)


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
