"""Bringing an answer's body onto the socket: by sendfile when nobody interferes, slice by slice when it is to be slow, spoiled or
encrypted.

The unspoiled way costs one system call per megabyte or so and no copy. A task sends on its own socket only; nothing is shared but
the lines of shaping.py.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import trio

from xetfs.testhub.faults import Fault
from xetfs.testhub.messages import FileSlice, Response, iter_pieces
from xetfs.testhub.requestlog import RequestRecord
from xetfs.testhub.shaping import SLICE_BYTES, Line, pass_through
from xetfs.testhub.sockets import TLS_BYTES_MAX, close, send

_SENDFILE_BYTES: Final = 4 * 1024 * 1024
"""Asked for in one call; the socket's buffer decides what it takes."""


class ConnectionEnded(Exception):
    """The connection is over, on purpose or because the client left."""


@dataclass(slots=True)
class Spoiling:
    """What the faults on one answer do to its delivery."""

    faults: Sequence[Fault] = ()
    flips: list[int] = field(default_factory=list)

    @property
    def drip(self) -> Fault | None:
        return next((fault for fault in self.faults if fault.action == "drip"), None)


async def end_connection(sock: socket.socket, fault: Fault) -> None:
    """Close as `fault` says, by FIN or by RST."""
    if fault.action == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(sock)
    raise ConnectionEnded


async def send_bytes(sock: socket.socket, data: bytes | memoryview, record: RequestRecord | None = None) -> None:
    """All of `data`; counted into `record` as body bytes."""
    view = memoryview(data)
    while view:
        sent = await send(sock, view)
        if record is not None:
            record.bytes_sent += sent
        view = view[sent:]


async def send_body(sock: socket.socket, response: Response, record: RequestRecord, lines: list[Line]) -> None:
    """The body as it should be; slowly if there are lines."""
    if response.stream is not None:
        async with aclosing(response.stream()) as stream:
            async for data in stream:
                if lines:
                    await pass_through(lines, len(data))
                await send_bytes(sock, data, record)
        return
    for piece in response.pieces:
        if isinstance(piece, FileSlice) and not isinstance(sock, ssl.SSLSocket):
            await _send_slice(sock, piece, record, lines)
        elif lines or isinstance(piece, FileSlice):
            for data in iter_pieces([piece], SLICE_BYTES if lines else TLS_BYTES_MAX):
                if lines:
                    await pass_through(lines, len(data))
                await send_bytes(sock, data, record)
                await trio.lowlevel.checkpoint()
        else:
            await send_bytes(sock, piece, record)


async def _send_slice(sock: socket.socket, piece: FileSlice, record: RequestRecord, lines: list[Line]) -> None:
    fd, out = os.open(piece.path, os.O_RDONLY), sock.fileno()
    try:
        offset, left = piece.offset, piece.length
        while left:
            wanted = min(left, SLICE_BYTES if lines else _SENDFILE_BYTES)
            if lines:
                await pass_through(lines, wanted)
            while wanted:
                try:
                    sent = os.sendfile(out, fd, offset, wanted)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
                    continue
                if sent == 0:
                    raise ConnectionEnded(f"{piece.path.name} is shorter than promised")
                record.bytes_sent += sent
                offset, left, wanted = offset + sent, left - sent, wanted - sent
            await trio.lowlevel.checkpoint()
    finally:
        os.close(fd)


async def send_spoiled(
    sock: socket.socket, response: Response, record: RequestRecord, lines: list[Line], spoiling: Spoiling
) -> None:
    """The body as the faults want it. Raises ConnectionEnded where one of them ends it."""
    pending = [fault for fault in spoiling.faults if fault.after_bytes is not None]
    sent = 0
    async with aclosing(_parts(response)) as parts:
        async for part in parts:
            data = memoryview(_flipped(part, sent, spoiling.flips))
            while data or pending:
                for fault in [fault for fault in pending if (fault.after_bytes or 0) <= sent]:
                    pending.remove(fault)
                    await _act(sock, fault)
                if not data:
                    break
                dripping = spoiling.drip is not None and sent >= (spoiling.drip.after_bytes or 0)
                stop = min((fault.after_bytes or 0 for fault in pending), default=sent + len(data))
                length = 1 if dripping else min(len(data), stop - sent)
                if lines:
                    await pass_through(lines, length)
                await send_bytes(sock, data[:length], record)
                sent, data = sent + length, data[length:]
                if dripping and data:
                    await trio.sleep(1.0 if spoiling.drip is None or spoiling.drip.seconds is None else spoiling.drip.seconds)
    for fault in pending:  # places past the end of the body
        await _act(sock, fault)


async def _act(sock: socket.socket, fault: Fault) -> None:
    match fault.action:
        case "stall":
            await stall(fault)
        case "close" | "reset":
            await end_connection(sock, fault)


async def stall(fault: Fault) -> None:
    """Nothing for as long as the fault says; without an end, until the hub closes."""
    if fault.seconds is None:
        await trio.sleep_forever()
    else:
        await trio.sleep(fault.seconds)


async def _parts(response: Response) -> AsyncGenerator[bytes, None]:
    if response.stream is not None:
        async with aclosing(response.stream()) as stream:
            async for data in stream:
                yield data
    else:
        for data in iter_pieces(response.pieces, SLICE_BYTES):
            yield data
    yield b""


def _flipped(data: bytes, at: int, flips: Sequence[int]) -> bytes:
    inside = [offset - at for offset in flips if at <= offset < at + len(data)]
    if not inside:
        return data
    changed = bytearray(data)
    for offset in inside:
        changed[offset] ^= 0x01
    return bytes(changed)
