"""`python -m xetfs.testhub DIR [--json-ready] [--port N] [--profile NAME] [--options JSON] [--tls CERTIFICATE KEY]`: a hub
with the control endpoint, for tests and benchmarks."""

from __future__ import annotations

import argparse
import json
import signal
import ssl
from pathlib import Path

import trio

from xetfs.testhub.hub import TestHub, serve_hub
from xetfs.testhub.profiles import PROFILES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xetfs.testhub", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the hub keeps its data; created if missing")
    parser.add_argument("--port", type=int, default=0, help="of the Hub; the CAS and the transfer host take the two after it")
    parser.add_argument("--json-ready", action="store_true", help="print one line of JSON with the three URLs once it listens")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="lenient", help="what it is like (default: lenient)")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="HubOptions, those that differ from it")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERTIFICATE", "KEY"), help="speak HTTPS, with these PEM files")
    arguments = parser.parse_args()
    profile = PROFILES[arguments.profile]()
    profile.options.change(arguments.options)
    tls = None
    if arguments.tls:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*arguments.tls)
    ports = (arguments.port, arguments.port + 1, arguments.port + 2) if arguments.port else (0, 0, 0)

    def announce(hub: TestHub) -> None:
        urls = {"endpoint": hub.endpoint, "cas": hub.cas_url, "transfer": hub.transfer_url}
        print(json.dumps(urls) if arguments.json_ready else f"HF_ENDPOINT={hub.endpoint}", flush=True)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signalled, nursery.cancel_scope)
            await serve_hub(
                arguments.directory,
                ports=ports,
                options=profile.options,
                shape=profile.shape,
                control=True,
                tls=tls,
                on_ready=announce,
            )

    trio.run(serve)


async def _until_signalled(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    main()
