"""The opening of a connection through a SOCKS 5 proxy, such as `ssh -D` and most VPN clients offer.

Source: RFC 1928; RFC 1929 for user name and password.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import httpx

from xetfs.net.proxies import ProxyAuthRequired, ProxyDenied
from xetfs.net.streams import Stream

_NO_AUTH, _PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_NOT_ALLOWED: Final = 0x02
_REPLIES: Final = {
    0x01: "general failure",
    _NOT_ALLOWED: "not allowed by its rules",
    0x03: "network unreachable",
    0x04: "host unreachable",
    0x05: "connection refused",
    0x06: "time to live expired",
    0x07: "command not supported",
    0x08: "address type not supported",
}


async def open_tunnel(stream: Stream, host: str, port: int, auth: tuple[bytes, bytes] | None) -> None:
    """Have the proxy at the other end of `stream` connect to `host`, which it resolves itself; what follows on the stream is that
    connection. auth: user name and password.

    Raises ProxyAuthRequired, ProxyDenied, httpx.ProxyError; OSError if the connection breaks.
    """
    await stream.send_all(bytes([5, 1, _NO_AUTH]) if auth is None else bytes([5, 2, _NO_AUTH, _PASSWORD]))
    version, method = await _receive(stream, 2)
    if version != 5:
        raise httpx.ProxyError("it does not speak SOCKS 5")
    if method == _PASSWORD and auth is not None:
        await _authenticate(stream, *auth)
    elif method in (_NONE_ACCEPTABLE, _PASSWORD):
        raise ProxyAuthRequired("it asks for a user name and password")
    elif method != _NO_AUTH:
        raise httpx.ProxyError("it does not speak SOCKS 5")
    await stream.send_all(bytes([5, 1, 0]) + _destination(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _receive(stream, 4)
    if version != 5:
        raise httpx.ProxyError("it does not speak SOCKS 5")
    if reply == _NOT_ALLOWED:
        raise ProxyDenied(_REPLIES[reply])
    if reply:
        raise httpx.ProxyError(_REPLIES.get(reply, f"reply {reply}"))
    length = {_IPV4: 4, _IPV6: 16}.get(kind) or (await _receive(stream, 1))[0]
    await _receive(stream, length + 2)  # the address that it connects from, which is of no use


async def _authenticate(stream: Stream, user: bytes, password: bytes) -> None:
    if not (0 < len(user) < 256 and len(password) < 256):
        raise ProxyAuthRequired("a user name or password is too long for it")
    await stream.send_all(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    _, status = await _receive(stream, 2)
    if status:
        raise ProxyAuthRequired("it refused the user name and password")


def _destination(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna") if not host.isascii() else host.encode()
        if len(name) > 255:
            raise httpx.ProxyError("a host name is too long for it") from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


async def _receive(stream: Stream, count: int) -> bytes:
    """Exactly so many bytes, and none of what follows them."""
    received = bytearray(count)
    filled = 0
    while filled < count:
        some = await stream.receive_into(memoryview(received)[filled:])
        if not some:
            raise ConnectionResetError("the proxy closed the connection")
        filled += some
    return bytes(received)
