"""A whole hub: storage, three origins, and the handles by which tests watch and spoil it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from xetfs.errors import StoreFailed
from xetfs.testhub.accounts import Accounts
from xetfs.testhub.cas_api import CasApi
from xetfs.testhub.control import CONTROL_PREFIX, Control
from xetfs.testhub.faults import Faults
from xetfs.testhub.hub_api import HubApi
from xetfs.testhub.messages import Origin
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.requestlog import RequestLog, RequestRecord
from xetfs.testhub.server import Behaviour, OriginServer
from xetfs.testhub.shaping import Shape
from xetfs.testhub.signing import Signer
from xetfs.testhub.storage import Storage
from xetfs.testhub.transfer import Transfer
from xetfs.testhub.xetstore import XetStore

ORIGINS: Final[tuple[Origin, ...]] = ("hub", "cas", "transfer")


class TestHub:
    """A running hub.

    storage and xet make repos and files without HTTP; accounts adds users and tokens; options and shape may be changed at any
    time; faults holds the rules of misbehaviour; servers are the three origins, each of which can refuse connections and listen
    again."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, directory: Path, options: HubOptions, *, seed: int, shape: Shape | None = None) -> None:
        self.storage = Storage(directory)
        self.xet = XetStore(self.storage)
        self.accounts = Accounts(self.storage)
        self.options = options
        self.log = RequestLog()
        self.faults = Faults(seed)
        self.urls = HubUrls()
        self.servers: dict[Origin, OriginServer] = {}
        self._behaviour = Behaviour(self.log, self.faults)
        self._shape_at_first = self.shape = shape or Shape()

    @property
    def endpoint(self) -> str:
        return self.urls.hub + self.options.path_prefix

    @property
    def cas_url(self) -> str:
        return self.urls.cas

    @property
    def transfer_url(self) -> str:
        return self.urls.transfer

    @property
    def shape(self) -> Shape:
        return self._behaviour.shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._behaviour.set_shape(shape)

    def requests(self, origin: Origin | None = None) -> list[RequestRecord]:
        """What was asked since the last reset."""
        return self.log.records(origin)

    def reset(self) -> None:
        """Forget the requests so far and every fault; the network has the shape again that it began with."""
        self.log.reset()
        self.faults.clear()
        self.shape = self._shape_at_first

    def start(
        self, host: str, ports: tuple[int, int, int], nursery: trio.Nursery, *, control: bool, tls: ssl.SSLContext | None
    ) -> None:
        """Listen on the three origins. Raises OSError when a port is taken."""
        for origin, port in zip(ORIGINS, ports, strict=True):
            self.servers[origin] = OriginServer(origin, host, port, self._behaviour, nursery, tls)
        for server in self.servers.values():
            server.listen()
        self.urls.hub, self.urls.cas, self.urls.transfer = (self.servers[origin].url for origin in ORIGINS)
        signer = Signer(self.storage.secret)
        self.servers["hub"].handler = HubApi(self.storage, self.accounts, signer, self.options, self.urls).answer
        self.servers["cas"].handler = CasApi(self.storage, self.xet, signer, self.options, self.urls).answer
        self.servers["transfer"].handler = Transfer(self.storage, self.xet, signer, self.options).answer
        if control:
            self.servers["hub"].private_prefix = CONTROL_PREFIX
            self.servers["hub"].private_handler = Control(self, nursery).answer


@asynccontextmanager
async def open_test_hub(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    ports: tuple[int, int, int] = (0, 0, 0),
    options: HubOptions | None = None,
    shape: Shape | None = None,
    control: bool = True,
    seed: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[TestHub]:
    """A hub on `directory` (created if missing), listening at three ports of `host` (0: any free one) until the context ends.

    control: offer the control endpoint, by which any local program may change everything about the hub.
    tls: a server's context, to speak HTTPS on all three.
    Raises StoreFailed when the directory cannot be used, OSError when a port is taken.
    """
    hub = TestHub(directory, options or HubOptions(), seed=seed, shape=shape)
    try:
        async with trio.open_nursery() as nursery:
            hub.start(host, ports, nursery, control=control, tls=tls)
            try:
                yield hub
            finally:
                for server in hub.servers.values():
                    server.refuse()
                nursery.cancel_scope.cancel()
    finally:
        hub.storage.close()


async def serve_hub(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    ports: tuple[int, int, int] = (0, 0, 0),
    options: HubOptions | None = None,
    shape: Shape | None = None,
    control: bool = False,
    tls: ssl.SSLContext | None = None,
    on_ready: Callable[[TestHub], None] = lambda hub: None,
) -> None:
    """Serve a hub until cancelled; on_ready is called once it listens. Raises StoreFailed, also for a port that is taken."""
    for port in ports:
        _check_port(host, port)
    async with open_test_hub(directory, host=host, ports=ports, options=options, shape=shape, control=control, tls=tls) as hub:
        on_ready(hub)
        await trio.sleep_forever()


def _check_port(host: str, port: int) -> None:
    """Outside the nursery, so that the error arrives as itself rather than in a group."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StoreFailed(f"cannot listen at {host}:{port}: {error.strerror}", hint="choose another port") from error
