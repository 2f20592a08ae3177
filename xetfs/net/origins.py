"""Where a request may go, and what it may take along.

Every URL that is not typed by the user comes from a server: redirects, the CAS's address, signed transfer URLs, next pages. A
server that lies, or is not the one it seems, could send us into the user's own network (SSRF) or have a token carried to
itself. So:

* `Authorization` goes only to the origin (scheme, host, port) it belongs to; following a redirect never widens that.
* https is left for http only when the endpoint itself is http.
* Addresses are judged after the name is resolved, and connected to as judged (net/connector.py). Loopback, private, link-local
  and other special addresses are refused, unless the endpoint's own address is of that same kind. Private ones, those of
  split horizons, carriers and VPNs (100.64/10, 198.18/15) among them, may be allowed by the user. The addresses at which clouds
  hand out credentials are refused always.
* Ports below 1024 other than 80, 443 and the endpoint's own are refused: no HTTP server of a Hub listens there.

URLs are shown without their query, which may be a credential.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit

from xetfs.credentials import Credentials
from xetfs.errors import ProtocolViolation
from xetfs.protocol.urls import UrlParts, split_url

AddressKind = Literal["public", "loopback", "private", "link-local", "special", "metadata"]

REDIRECTS_MAX: Final = 5
"""Redirects of one request. A file behind a renamed repo takes two or three."""
_FIRST_FREE_PORT: Final = 1024
_WEB_PORTS: Final = (80, 443)

_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",  # AWS, GCP, Azure, Oracle and others
            "fd00:ec2::254",  # AWS over IPv6
            "169.254.170.2",  # AWS, for containers
            "169.254.170.23",  # AWS, for pods of Kubernetes
            "fd00:ec2::23",
            "fd20:ce::254",  # GCP over IPv6
            "fd00:c1::a9fe:a9fe",  # Oracle over IPv6
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's wire server
        ),
    )
)
_HUB_PATH: Final = re.compile(
    r"/api/(?:models|datasets|spaces|resolve-cache)/|/(?:(?:datasets|spaces)/)?(?:[^/?]+/){1,2}resolve/"
)
"""Paths at which the Hub answers questions about repos and their files."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token belongs to, and what connections are shared within."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises ProtocolViolation for a URL that cannot be taken apart safely."""
        return cls.of_parts(split_url(url, "URL"))

    @classmethod
    def of_parts(cls, parts: UrlParts) -> Origin:
        return cls(parts.scheme, parts.host, parts.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Credentials, and the one origin that may see their tokens."""

    origin: Origin
    credentials: Credentials


def address_kind(text: str) -> AddressKind:
    """What kind of network an IP address belongs to; IPv4 in the disguises of IPv6 is unwrapped. Raises ValueError for a name."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return address_kind(str(inner))
    if address in _METADATA:
        return "metadata"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return "special"
    return "public" if address.is_global else "private"


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Which hosts a Hub may lead to.

    allow_private: hosts at private addresses, as company networks and some VPNs need. Any server on the way can then have
    requests sent into the user's network, though no token to it.
    """

    allow_private: bool = False


PUBLIC_HOSTS: Final = HostPolicy()


class OriginPolicy:
    """The rules above for one endpoint. What the endpoint's own name resolves to is learned when it is first connected to.

    An endpoint with a path may redirect as the Hub behind it does: to a path of the Hub, which is one below its own.
    """

    def __init__(self, endpoint: str, hosts: HostPolicy = PUBLIC_HOSTS) -> None:
        parts = split_url(endpoint, "endpoint")
        self.endpoint = Origin.of_parts(parts)
        self._path = urlsplit(endpoint).path.rstrip("/")
        self._kinds: set[AddressKind] = {"public", "private"} if hosts.allow_private else {"public"}
        if _is_address(parts.host):
            self._kinds.add(address_kind(parts.host))

    def check_url(self, url: str, what: str) -> UrlParts:
        """Whether a URL that a server gave may be asked at all, as far as its text tells. Raises ProtocolViolation."""
        parts = split_url(url, what)
        origin = Origin.of_parts(parts)
        if origin == self.endpoint:
            return parts
        if parts.scheme != "https" and self.endpoint.scheme == "https":
            raise ProtocolViolation(f"{what}: refused to go from https to http, to {parts.host:.80}")
        if parts.port < _FIRST_FREE_PORT and parts.port not in (*_WEB_PORTS, self.endpoint.port):
            raise ProtocolViolation(f"{what}: refused to go to port {parts.port} of {parts.host:.80}")
        if _is_address(parts.host):
            self.check_addresses(parts.host, parts.port, [parts.host])
        return parts

    def check_redirect(self, current: str, location: str | None, what: str) -> str:
        """The absolute URL that a redirect from `current` leads to. Raises ProtocolViolation if it may not be followed."""
        if not location:
            raise ProtocolViolation(f"{what}: a redirect that does not say where to")
        try:
            target = urljoin(current, self._below_endpoint(current, location))
        except ValueError as error:
            raise ProtocolViolation(f"{what}: a redirect to something that is not a URL") from error
        target = target.partition("#")[0]
        parts = self.check_url(target, f"{what}: redirect")
        if parts.scheme != "https" and current.startswith("https:"):
            raise ProtocolViolation(f"{what}: refused a redirect from https to http, to {parts.host:.80}")
        return target

    def _below_endpoint(self, current: str, location: str) -> str:
        """Where a redirect of the endpoint leads, the endpoint's own path put before a path of the Hub."""
        is_ours = bool(self._path) and Origin.of(current) == self.endpoint and urlsplit(current).path.startswith(f"{self._path}/")
        if is_ours and not location.startswith(f"{self._path}/") and _HUB_PATH.match(location):
            return self._path + location
        return location

    def check_addresses(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """Whether `host` may be connected to at these addresses; of the endpoint itself they are noted.

        Raises ProtocolViolation.
        """
        kinds = {address_kind(address) for address in addresses}
        if host == self.endpoint.host and port == self.endpoint.port:
            self._kinds |= kinds - {"metadata"}
            return
        refused = kinds - self._kinds
        if refused:
            raise ProtocolViolation(
                f"refused to connect to {host:.80}:{port}, whose address is {' and '.join(sorted(refused))}",
                hint="your company's network or VPN may need that: --allow-private-hosts"
                if refused == {"private"}
                else "the Hub or a proxy on the way named an address inside this network",
            )


def _is_address(host: str) -> bool:
    try:
        address_kind(host)
    except ValueError:
        return False
    return True
