"""A machine with one network, which goes and comes back. To be run in a network namespace of its own.

usage: lost_link.py DIRECTORY; output: one line of JSON with what a program saw, and what was counted, while it was gone.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio
from fault_bench import User, open_bench, open_user, perform

from xetfs.net.streams import ROUTE_CHECK_AFTER_S
from xetfs.telemetry import NET_OUTAGES, NET_REQUESTS, NET_STALLS

SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1


def switch(up: bool) -> None:
    """Give the one interface its address, or take it away, and with it all routes: what is done when a link goes down
    (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        address = socket.inet_aton("127.0.0.1" if up else "0.0.0.0")
        fcntl.ioctl(sock, SIOCSIFADDR, struct.pack("16sH2x4s8x", b"lo", socket.AF_INET, address))
        if up:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


async def main(directory: Path) -> None:
    switch(True)
    async with open_bench(directory) as bench, open_user(bench, directory / "cache", outage_patience_s=0.06) as user:

        async def see(user: User, *operations: str) -> dict[str, str]:
            return {operation: await perform(bench, user, user.engine, operation) for operation in operations}

        before = await see(user, "list", "read")
        await trio.sleep(2 * ROUTE_CHECK_AFTER_S)  # as connections that bytes have just come on are taken to be good
        counters = user.engine.counters
        counted = {name: counters[name] for name in (NET_REQUESTS, NET_STALLS, NET_OUTAGES)}
        switch(False)
        gone = await see(user, "list", "read", "read plain", "read lfs")
        counts = {name: counters[name] - count for name, count in counted.items()}
        switch(True)
        with trio.fail_after(5):
            while (await see(user, "read plain"))["read plain"] != "data":
                await trio.sleep(0.05)
        back = await see(user, "list", "read", "read plain", "read lfs")
    print(json.dumps({"before": before, "gone": gone, "counts": counts, "back": back}))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
