"""A Hub as a value: where it is, with whose right it is asked, and where it may lead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from xetfs.credentials import Credentials
from xetfs.errors import InvalidArgument, ProtocolViolation
from xetfs.net.origins import PUBLIC_HOSTS, HostPolicy
from xetfs.protocol.urls import split_url

PUBLIC_ENDPOINT: Final = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Hub:
    """One Hub, asked with one set of credentials. Two values that are equal share their clients and repos.

    endpoint: scheme, host and port of the Hub, and perhaps a path. credentials: where its token comes from, or None for anonymous
    access. hosts: where it may send requests to. Raises InvalidArgument for an endpoint that cannot be one.
    """

    endpoint: str = PUBLIC_ENDPOINT
    credentials: Credentials | None = None
    hosts: HostPolicy = PUBLIC_HOSTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", checked_endpoint(self.endpoint, "the endpoint"))


def checked_endpoint(text: str, what: str) -> str:
    """Return an endpoint without a slash at its end. what: names it in errors. Raises InvalidArgument."""
    text = text.rstrip("/")
    hint = "write https://host or http://host:port/path"
    try:
        split_url(text, f"{what} is not usable")
    except ProtocolViolation as exc:
        raise InvalidArgument(exc.message, hint=hint) from None
    if "?" in text or any(part in ("", ".", "..") for part in urlsplit(text).path.split("/")[1:]):
        raise InvalidArgument(f"{what} has a query, or a path that leads nowhere", hint=hint)
    return text
