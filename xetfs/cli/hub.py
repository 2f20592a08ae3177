"""`xetfs hub serve DIR`: a Hub of one's own."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xetfs.cli.arguments import path_argument
from xetfs.cli.exits import Exit
from xetfs.errors import InvalidArgument

if TYPE_CHECKING:
    from xetfs.testhub import TestHub

PORT_MAX = 65535
PROFILES = ("lenient", "production")
"""Those of `testhub.profiles`, which is imported only when a hub is served."""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "hub",
        help="serve a local Hub",
        description="A local Hub to try xetfs on, or to serve models where there is no network.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="COMMAND", dest="action", required=True)
    serve = actions.add_parser(
        "serve",
        help="serve until Ctrl-C",
        description="Serve a Hub, its CAS and its transfer host on three ports of this machine, until Ctrl-C. "
        "Prints the line that points clients to it.",
        allow_abbrev=False,
    )
    serve.add_argument("directory", metavar="DIR", type=path_argument, help="where it keeps its data; created if missing")
    serve.add_argument("--port", metavar="PORT", type=int, default=0, help="of the Hub; the other two follow it (default: any)")
    serve.add_argument(
        "--profile",
        choices=PROFILES,
        default="lenient",
        help="lenient: whatever a client asks for, at once; production: as far away and as strict as the public service "
        "(default: %(default)s)",
    )
    serve.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    first: int = arguments.port
    if not 0 <= first <= PORT_MAX - 2:
        raise InvalidArgument(f"--port {first} is not a port", hint=f"between 1 and {PORT_MAX - 2}, or 0 for any")

    import trio

    from xetfs.cli.log import configure

    configure(None, verbose=False)
    trio.run(_serve, arguments.directory, (first, first + 1, first + 2) if first else (0, 0, 0), arguments.profile)
    return Exit.OK


async def _serve(directory: Path, ports: tuple[int, int, int], profile_name: str) -> None:
    import signal

    import trio

    from xetfs.testhub import profiles, serve_hub

    profile = profiles.PROFILES[profile_name]()

    def announce(hub: TestHub) -> None:
        print(f"export HF_ENDPOINT={hub.endpoint}", flush=True)

    async def end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal, signals, nursery.cancel_scope)
            await serve_hub(directory, ports=ports, options=profile.options, shape=profile.shape, on_ready=announce)
