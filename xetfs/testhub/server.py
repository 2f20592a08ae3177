"""One origin: a listening socket, its connections, and the way from a request to its answer.

h11 parses and frames; the bytes go through sockets of our own, so that an answer can be sent by sendfile, slowly, or wrongly.
Each connection is one task. Nothing else runs between two awaits, so that the log, the rules and the storage need no locks here.

Order for each request: log, faults (delay, replaced answers, endings before the head), latency, handler, faults on the answer,
delivery. A request body that the handler left unread is drained, so that a refused upload learns its status.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import Final

import h11
import trio

from xetfs.testhub.delivery import ConnectionEnded, Spoiling, end_connection, send_body, send_bytes, send_spoiled, stall
from xetfs.testhub.faults import Fault, Faults, alter, replacing_answer, settle
from xetfs.testhub.messages import Origin, Problem, Request, Response
from xetfs.testhub.requestlog import RequestLog, RequestRecord
from xetfs.testhub.shaping import Line, Shape
from xetfs.testhub.sockets import accept, close, receive, shake_hands

log = logging.getLogger(__name__)

HEAD_BYTES_MAX: Final = 256 * 1024
"""A signed URL of 500 ranges and the Range header that repeats them take some 20 KiB."""
IDLE_S: Final = 300.0
"""How long a connection may stay without a request, or a request without its body."""
_RECEIVE_BYTES = 256 * 1024
_SEND_BUFFER_BYTES = 2 * 1024 * 1024  # few wake-ups per megabyte; the kernel clips it to wmem_max
_BACKLOG = 512

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Behaviour:
    """What all origins share: the log, the rules, the shape of the network."""

    log: RequestLog
    faults: Faults
    shape: Shape = field(default_factory=Shape)
    total_line: Line | None = None

    def set_shape(self, shape: Shape) -> None:
        self.shape = shape
        self.total_line = Line(shape.total_bytes_s) if shape.total_bytes_s else None

    def lines(self, own: Line | None) -> list[Line]:
        return [line for line in (own, self.total_line) if line is not None]

    def latency_s(self) -> float:
        return self.shape.latency_s + (self.shape.jitter_s * self.faults.chance.random() if self.shape.jitter_s else 0.0)


class OriginServer:
    """One of the three origins. It can stop listening and start again on the same port."""

    def __init__(
        self,
        origin: Origin,
        host: str,
        port: int,
        behaviour: Behaviour,
        nursery: trio.Nursery,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = origin
        self._tls = tls
        self.handler: Handler = _nothing_here
        self.private_prefix = ""
        self.private_handler: Handler = _nothing_here
        self._behaviour = behaviour
        self._nursery = nursery
        self._host = host
        self._sock: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._numbers = count(1)
        self.port = port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def listen(self) -> None:
        """Bind and accept from now on. Raises OSError when the port is taken."""
        sock = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((self._host, self.port))
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        self.port = sock.getsockname()[1]
        self._sock = sock
        self._nursery.start_soon(self._accept, sock)

    def refuse(self) -> None:
        """Close the listener and every connection: from now on connecting is refused."""
        if self._sock is not None:
            close(self._sock)
            self._sock = None
        for sock in list(self._connections):
            close(sock)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock = await accept(listener)
            except (trio.ClosedResourceError, OSError) as error:
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                    log.warning("no descriptors left for a connection origin=%s", self.origin)
                    await trio.sleep(0.1)
                    continue
                return
            self._nursery.start_soon(self._serve_connection, sock)

    async def _serve_connection(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._connections.add(sock)
            if isinstance(sock, ssl.SSLSocket):
                with trio.fail_after(IDLE_S):
                    await shake_hands(sock)
            await _Connection(self, sock, next(self._numbers), self._behaviour).serve()
        except (ConnectionEnded, OSError, trio.ClosedResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
            log.debug("connection ended origin=%s error=%r", self.origin, error)
        except Exception:  # a fault's own function, an answer that is no HTTP: this connection's affair, not the hub's
            log.exception("a connection failed origin=%s", self.origin)
        finally:
            self._connections.discard(sock)
            close(sock)


async def _nothing_here(request: Request) -> Response:
    return Problem(404, "Not Found").to_response()


class _Connection:
    """One client connection and its requests, one after another."""

    def __init__(self, server: OriginServer, sock: socket.socket, number: int, behaviour: Behaviour) -> None:
        self._server = server
        self._sock = sock
        self._number = number
        self._behaviour = behaviour
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._record: RequestRecord | None = None
        self._line: Line | None = None

    async def serve(self) -> None:
        while True:
            with trio.move_on_after(IDLE_S) as idle:
                event = await self._next_event()
            if idle.cancelled_caught or not isinstance(event, h11.Request):
                return
            await trio.lowlevel.checkpoint()  # a client that never lets us wait must not starve the others
            await self._answer(event)
            await self._drain()
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._http.they_are_waiting_for_100_continue:
                await send_bytes(self._sock, self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(await receive(self._sock, _RECEIVE_BYTES))

    async def _body(self) -> AsyncGenerator[bytes, None]:
        while self._http.their_state is h11.SEND_BODY:
            with trio.fail_after(IDLE_S):
                event = await self._next_event()
            if isinstance(event, h11.Data):
                if self._record is not None:
                    self._record.bytes_received += len(event.data)
                yield bytes(event.data)
            elif not isinstance(event, h11.EndOfMessage):
                raise ConnectionEnded("the request broke off")

    async def _drain(self) -> None:
        async for _ in self._body():
            pass

    async def _answer(self, head: h11.Request) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        request = Request(self._server.origin, head.method.decode(), head.target.decode("latin-1"), headers, self._body)
        if self._server.private_prefix and request.path.startswith(self._server.private_prefix):  # not logged, never spoiled
            response = await self._handle(request, self._server.private_handler)
            await self._send_head(request, response)
            await send_body(self._sock, response, self._new_record(request), [])
            return
        record = self._record = self._new_record(request)
        self._behaviour.log.add(record)
        try:
            faults = self._behaviour.faults.firing(request)
            response = await self._respond(request, faults)
            record.status = response.status
            await self._deliver(request, response, record, faults)
        finally:
            record.end = trio.current_time()

    def _new_record(self, request: Request) -> RequestRecord:
        return RequestRecord(
            origin=request.origin,
            method=request.method,
            path=request.path,
            query="" if request.origin == "transfer" else request.query_string,
            range=request.headers.get("range", request.headers.get("x-range-dirty")),
            authorized="authorization" in request.headers,
            start=trio.current_time(),
            connection=self._number,
        )

    async def _respond(self, request: Request, faults: list[Fault]) -> Response:
        latency_s = self._behaviour.latency_s()
        if latency_s:
            await trio.sleep(latency_s)
        for fault in faults:
            if fault.action == "delay":
                await trio.sleep(fault.seconds or 0)
            elif fault.action == "ignore_range":
                request.ignore_range = True
            elif fault.action == "stall" and fault.after_bytes is None:
                await stall(fault)
            elif fault.action in ("close", "reset") and fault.after_bytes is None:
                await end_connection(self._sock, fault)
        response = replacing_answer(faults)
        if response is None:
            response = await self._handle(request, self._server.handler)
            if faults:
                await settle(response)
            alter(response, faults)
        return response

    async def _handle(self, request: Request, handler: Handler) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            return problem.to_response()
        except (ConnectionEnded, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Problem(507, "the hub's disk is full").to_response()
            raise
        except Exception:
            log.exception("the hub failed on a request method=%s path=%s", request.method, request.path)
            return Problem(500, "Internal Error").to_response()

    async def _deliver(self, request: Request, response: Response, record: RequestRecord, faults: list[Fault]) -> None:
        await self._send_head(request, response)
        spoiling = Spoiling(
            [fault for fault in faults if fault.action in ("stall", "drip", "close", "reset") and _is_late(fault)]
        )
        for fault in faults:
            if fault.action == "flip" and response.length:
                offset = fault.offset if fault.offset is not None else self._behaviour.faults.chance.randrange(response.length)
                spoiling.flips.append(offset)
        if request.method == "HEAD":
            return
        lines = self._behaviour.lines(self._own_line())
        if spoiling.faults or spoiling.flips:
            await send_spoiled(self._sock, response, record, lines, spoiling)
        else:
            await send_body(self._sock, response, record, lines)
        if response.announced_length != response.length:
            raise ConnectionEnded  # nobody knows where the next answer would begin

    def _own_line(self) -> Line | None:
        bytes_s = self._behaviour.shape.connection_bytes_s
        if bytes_s is None:
            self._line = None
        elif self._line is None or self._line.bytes_s != bytes_s:
            self._line = Line(bytes_s)
        return self._line

    async def _send_head(self, request: Request, response: Response) -> None:
        """The head, and for h11 the whole body: its bytes follow through delivery.py."""
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in response.headers]
        length = response.length
        headers.append((b"Date", formatdate(usegmt=True).encode()))
        if response.status not in (204, 304) and not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"Content-Length", b"%d" % length))
        data = self._http.send(h11.Response(status_code=response.status, headers=headers))
        if request.method != "HEAD" and response.announced_length:
            self._http.send_with_data_passthrough(h11.Data(data=_Placeholder(response.announced_length)))  # type: ignore[arg-type]
        self._http.send(h11.EndOfMessage())
        await send_bytes(self._sock, data or b"")


def _is_late(fault: Fault) -> bool:
    return fault.after_bytes is not None or fault.action == "drip"


class _Placeholder:
    """Stands for a body in h11's books, which only ask for its length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
