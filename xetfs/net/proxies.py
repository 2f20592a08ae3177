"""Which proxy a request goes through, if any.

Names are resolved by the proxy, never here: in many companies only the proxy can. That holds for `socks5://` as for `socks5h://`,
as in httpx.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import httpx

from xetfs.errors import InvalidArgument
from xetfs.net.origins import Origin
from xetfs.secret import Secret
from xetfs.settings import PROXY_SCHEMES, NetSettings

_PORTS: Final = {"http": 80, "socks5": 1080, "socks5h": 1080}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyAuthRequired(httpx.ProxyError):
    """The proxy asks for a user name and password, or refused those that were given."""


class ProxyDenied(httpx.ProxyError):
    """The proxy does not let this connection through. Other ProxyErrors may pass."""


def proxy_port(proxy: httpx.Proxy) -> int:
    return proxy.url.port or _PORTS[proxy.url.scheme]


def proxy_name(proxy: httpx.Proxy) -> str:
    """Host and port, without user name and password."""
    return f"{proxy.url.host}:{proxy_port(proxy)}"


def make_proxy(text: Secret) -> httpx.Proxy:
    """Raises InvalidArgument, which does not show it."""
    try:
        proxy = httpx.Proxy(text.reveal())
    except (ValueError, httpx.InvalidURL):
        proxy = None
    if proxy is None or proxy.url.scheme not in PROXY_SCHEMES or not proxy.url.host:
        raise InvalidArgument("the proxy is not usable", hint="expected http://host:port or socks5://host:port")
    return proxy


class Proxies:
    """The user's choice of proxies."""

    def __init__(self, settings: NetSettings) -> None:
        """Raises InvalidArgument."""
        self._by_scheme = {
            scheme: make_proxy(text)
            for scheme, text in (("http", settings.http_proxy), ("https", settings.https_proxy))
            if text is not None
        }
        self._no_proxy = settings.no_proxy
        self._addresses = {(proxy.url.host, proxy_port(proxy)) for proxy in self._by_scheme.values()}

    def for_origin(self, origin: Origin) -> httpx.Proxy | None:
        proxy = self._by_scheme.get(origin.scheme)
        return None if proxy is None or is_exempt(origin.host, origin.port, self._no_proxy) else proxy

    def is_proxy(self, host: str, port: int) -> bool:
        """True for the proxies themselves, which the user chose."""
        return (host, port) in self._addresses


def is_exempt(host: str, port: int, no_proxy: tuple[str, ...]) -> bool:
    """True if `host` is to be asked without a proxy: this machine always, and what an entry of no_proxy names.

    Entries are read as curl reads them, and in the forms that other programs know: `*`, a name (with all below it), `.name` and
    `*.name` alike, an address, a range in CIDR notation, IPv6 with or without brackets; any with `:port`. Case does not matter.
    A name is not resolved to compare it with an address.
    Source: curl, lib/noproxy.c and curl(1), "NO_PROXY"; Go, x/net/http/httpproxy, for ports.
    """
    name = host.lower().rstrip(".")
    address = _address(name)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry.lower(), name, address, port) for entry in no_proxy)


def _matches(entry: str, name: str, address: Address | None, port: int) -> bool:
    pattern, entry_port = _split_port(entry)
    if entry_port not in ("", str(port)):
        return False
    if pattern == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    pattern = pattern.removeprefix("*").strip(".")
    return bool(pattern) and (name == pattern or name.endswith("." + pattern))


def _split_port(entry: str) -> tuple[str, str]:
    """What an entry names, without brackets, and its port or ""."""
    if entry.startswith("["):
        pattern, _, rest = entry[1:].partition("]")
        return pattern + (rest if rest.startswith("/") else ""), rest.removeprefix(":") if rest.startswith(":") else ""
    if entry.count(":") == 1:
        pattern, _, port = entry.partition(":")
        return pattern, port
    return entry, ""


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
