"""The transfer host: bytes for signed URLs, and places to put uploads.

Xorb ranges go out by sendfile, several of them as `multipart/byteranges`; LFS objects likewise. The bridge decodes whole Xet
files for clients that know nothing of Xet. No request bears a token here: the URL is the credential.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import trio

from xetfs.errors import EntryNotFound, ProtocolViolation
from xetfs.protocol.hashes import FileId, MerkleHash, XorbHash
from xetfs.testhub.messages import FileSlice, Piece, Problem, Request, Response, clip_range, json_response, parse_ranges
from xetfs.testhub.options import HubOptions
from xetfs.testhub.signing import Signer
from xetfs.testhub.storage import Storage
from xetfs.testhub.xetstore import XetStore

LFS_BYTES_MAX: Final = 1024**4
_BRIDGE_BYTES = 8 * 1024 * 1024  # decoded per job in a worker thread
_COPY_BYTES = 1024 * 1024


class Transfer:
    """The handler of the transfer origin."""

    def __init__(self, storage: Storage, xet: XetStore, signer: Signer, options: HubOptions) -> None:
        self._storage = storage
        self._xet = xet
        self._signer = signer
        self._options = options

    async def answer(self, request: Request) -> Response:
        self._signer.check_url(request, self._options)
        match request.method, request.segments:
            case "GET" | "HEAD", ("xorbs", _, xorb):
                return await self._xorb(request, xorb)
            case "GET" | "HEAD", ("lfs", sha256):
                return self._lfs(request, sha256)
            case "GET" | "HEAD", ("bridge", sha256):
                return self._bridge(request, sha256)
            case "PUT", ("uploads", sha256):
                return await self._put(request, sha256)
            case "PUT", ("uploads", sha256, part):
                return await self._put_part(request, sha256, int(part))
            case "POST", ("uploads", sha256, "complete"):
                return await self._complete(request, sha256)
        raise Problem(404, "NoSuchKey: there is nothing here")

    # Reading

    async def _xorb(self, request: Request, text: str) -> Response:
        try:
            index = self._xet.index(XorbHash(MerkleHash.from_hex(text)))
        except (EntryNotFound, ProtocolViolation) as error:
            raise Problem(404, "NoSuchKey: there is no such xorb") from error
        size = int(index.wire[-1])
        headers = [("Content-Type", "application/octet-stream"), ("ETag", f'"{text}"')]
        ranges = [(first, last if last is not None else size - 1) for first, last in parse_ranges(request.headers["range"]) or ()]
        if request.ignore_range or (len(ranges) > 1 and self._options.several_ranges == "whole"):
            return Response(200, headers, [FileSlice(index.path, 0, size)])
        if len(ranges) > 1:
            await trio.sleep(self._options.range_cost_s * (len(ranges) - 1))
            return _many_parts(index.path, size, ranges)
        response = _one_part(index.path, size, ranges[0], headers)
        if self._options.range_answers != "labelled":
            response.remove_header("Content-Range")
            response.status = 206 if self._options.range_answers == "unlabelled" else 200
        return response

    def _lfs(self, request: Request, sha256: str) -> Response:
        path = self._storage.lfs_path(sha256)
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise Problem(404, "NoSuchKey: there is no such object") from error
        headers = [*_disposition(request), ("Accept-Ranges", "bytes"), ("ETag", f'"{sha256}"')]
        part = None if request.ignore_range else clip_range(request.headers.get("range"), size)
        return Response(200, headers, [FileSlice(path, 0, size)]) if part is None else _one_part(path, size, part, headers)

    def _bridge(self, request: Request, sha256: str) -> Response:
        held = self._storage.lfs(sha256)
        if held is None or held.file_id is None:
            raise Problem(404, "NoSuchKey: there is no such file")
        try:
            record = self._xet.record(FileId(MerkleHash.from_raw(held.file_id)))
        except EntryNotFound as error:  # it lies in somebody else's CAS (HubOptions.cas_url)
            raise Problem(404, "NoSuchKey: there is no such file") from error
        headers = [*_disposition(request), ("Accept-Ranges", "bytes"), ("ETag", f'"{sha256}"')]
        part = None if request.ignore_range else clip_range(request.headers.get("range"), record.size)
        first, last = part or (0, record.size - 1)

        async def content() -> AsyncGenerator[bytes, None]:
            for start in range(first, last + 1, _BRIDGE_BYTES):
                end = min(start + _BRIDGE_BYTES, last + 1)
                yield await trio.to_thread.run_sync(lambda span: b"".join(self._xet.read(record, *span)), (start, end))

        if part is not None:
            headers.append(("Content-Range", f"bytes {first}-{last}/{record.size}"))
        return Response(200 if part is None else 206, headers, stream=content, stream_length=last + 1 - first)

    # Writing

    async def _put(self, request: Request, sha256: str) -> Response:
        path = await self._receive(request)
        await self._keep(path, sha256, int(request.argument("size", "-1")))
        return Response(200, [("ETag", f'"{sha256}"')])

    async def _put_part(self, request: Request, sha256: str, part: int) -> Response:
        path = await self._receive(request)
        path.replace(self._part_path(sha256, part))
        return Response(200, [("ETag", f'"{part}-{sha256[:16]}"')])

    async def _complete(self, request: Request, sha256: str) -> Response:
        await request.read()
        parts = [self._part_path(sha256, part) for part in range(1, int(request.argument("parts")) + 1)]
        if not all(part.exists() for part in parts):
            raise Problem(400, "InvalidPart: not all parts have been uploaded")
        await self._keep(await trio.to_thread.run_sync(self._join, parts), sha256, int(request.argument("size")))
        return json_response({})

    def _part_path(self, sha256: str, part: int) -> Path:
        return self._storage.temporary / f"{sha256}.part{part}"

    def _join(self, parts: Sequence[Path]) -> Path:
        with parts[0].open("ab") as whole:
            for part in parts[1:]:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, _COPY_BYTES)
                part.unlink()
        return parts[0]

    async def _receive(self, request: Request) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self._storage.temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                await request.save(file, LFS_BYTES_MAX)
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    async def _keep(self, path: Path, sha256: str, size: int) -> None:
        if not await trio.to_thread.run_sync(_is_content, path, sha256, size):
            raise Problem(400, "BadDigest: the content is not what its SHA-256 and size say")
        self._storage.add_lfs(sha256, size, path)


def _one_part(path: Path, size: int, part: tuple[int, int], headers: list[tuple[str, str]]) -> Response:
    first, last = part
    if first >= size:
        raise Problem(416, "InvalidRange", headers=[("Content-Range", f"bytes */{size}")])
    last = min(last, size - 1)
    return Response(
        206, [*headers, ("Content-Range", f"bytes {first}-{last}/{size}")], [FileSlice(path, first, last + 1 - first)]
    )


def _many_parts(path: Path, size: int, ranges: Sequence[tuple[int, int]]) -> Response:
    boundary = os.urandom(12).hex()
    pieces: list[Piece] = []
    for first, last in ranges:
        head = f"--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
        pieces += [(("\r\n" if pieces else "") + head).encode(), FileSlice(path, first, last + 1 - first)]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return Response(206, [("Content-Type", f"multipart/byteranges; boundary={boundary}")], pieces)


def _disposition(request: Request) -> list[tuple[str, str]]:
    disposition = request.argument("response-content-disposition")
    headers = [("Content-Type", "application/octet-stream")]
    return [*headers, ("Content-Disposition", disposition)] if disposition else headers


def _is_content(path: Path, sha256: str, size: int) -> bool:
    """Whether an upload is what it should be; removed if not."""
    with path.open("rb") as file:
        good = path.stat().st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
    if not good:
        path.unlink()
    return good
