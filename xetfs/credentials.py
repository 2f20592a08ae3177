"""Where a Hub's token comes from, and what happens when it ends.

A mount outlives many tokens: `hf auth login` keeps OAuth tokens of a few hours in a file and renews them there, and a Kubernetes
secret is replaced under a running pod. So nothing keeps a token: whoever sends a request asks `Credentials` for one, and reports
the one that the server refused (401), after which the next question looks for another.

An engine holds one `Credentials` per Hub. What may see its tokens is decided by net/origins.py.

The command line makes them before it forks, when nothing but the standard library may be loaded: hence trio is imported late.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from xetfs.errors import InvalidArgument
from xetfs.secret import Secret

if TYPE_CHECKING:
    import trio

log = logging.getLogger(__name__)

TOKEN_BYTES_MAX: Final = 16 * 1024
"""Longest token taken. A JWT takes one or two KiB; servers commonly refuse headers of more than 8 or 16 KiB."""
LOOK_INTERVAL_S: Final = 5.0
"""How often at most a token file is looked at: well within a minute, and no cost beside the requests."""
LOOK_TIMEOUT_S: Final = 2.0
"""How long a request waits for a look: the file may lie on a server that has gone silent."""

_TOKEN = re.compile(r"[!-~]+", re.ASCII)


class Credentials(Protocol):
    """Source of tokens for one Hub. Event loop only."""

    async def token(self) -> Secret | None:
        """The token to send now, or None to send none. Raises nothing."""
        ...

    def refused(self, token: Secret) -> None:
        """Note that the server answered 401 to `token`; the next `token()` looks for another one."""
        ...


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token that cannot change, such as one from the environment."""

    value: Secret

    async def token(self) -> Secret | None:
        return self.value

    def refused(self, token: Secret) -> None:
        """Nothing to do: there is no other."""


@dataclass(frozen=True, slots=True)
class _Version:
    """Tells one content of a file from another without reading it."""

    inode: int
    modified_ns: int
    size: int


class TokenFile:
    """A file that holds one token and is replaced when the token is renewed.

    The file is looked at when a token is asked for, at most every LOOK_INTERVAL_S, and at once after a 401; it is read only when
    it has changed. Many who ask at the same time cause one look. A file that is gone, hangs, or holds no token leaves the last
    one in use: it may be in the middle of being written, and the server decides when a token has ended.
    """

    def __init__(self, path: Path, token: Secret, version: _Version) -> None:
        """Made by `open_token_file`."""
        self._path = path
        self._token = token
        self._version = version
        self._looked_at = -math.inf
        self._lock: trio.Lock | None = None
        self._thread: trio.CapacityLimiter | None = None

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    async def token(self) -> Secret | None:
        import trio

        if self._is_due(trio.current_time()):
            self._lock = self._lock or trio.Lock()
            async with self._lock:
                if self._is_due(trio.current_time()):  # nobody else has looked while this waited
                    await self._look()
        return self._token

    def refused(self, token: Secret) -> None:
        if token == self._token:
            self._looked_at = -math.inf

    def _is_due(self, now: float) -> bool:
        return now >= self._looked_at + LOOK_INTERVAL_S

    async def _look(self) -> None:
        import trio

        self._thread = self._thread or trio.CapacityLimiter(1)
        found = None
        try:
            if not self._thread.borrowed_tokens:  # by a look that was given up and still hangs
                with trio.move_on_after(LOOK_TIMEOUT_S):
                    found = await trio.to_thread.run_sync(
                        _read_if_changed, self._path, self._version, abandon_on_cancel=True, limiter=self._thread
                    )
        except InvalidArgument as exc:
            log.debug("keeping the token at hand: %s", exc.message)
        if found is not None:
            self._token, self._version = found
            log.info("the token was renewed file=%s", self._path)
        self._looked_at = trio.current_time()


def open_token_file(path: Path, what: str) -> Credentials | None:
    """Credentials from a file, which is read now and again whenever it changes; None if it is empty or does not exist.

    What is not a regular file, such as a pipe, is read once. what: names the file in errors.
    Raises InvalidArgument if it cannot be read or holds something else than a token, which is not shown.
    """
    try:
        token, version = _read(path, what)
    except FileNotFoundError:
        return None
    if token is None:
        return None
    return FixedToken(token) if version is None else TokenFile(path.absolute(), token, version)


def checked_token(text: str, what: str) -> Secret:
    """A token that fits into a header. Raises InvalidArgument."""
    if len(text) > TOKEN_BYTES_MAX or not _TOKEN.fullmatch(text):
        raise InvalidArgument(f"{what} does not hold a token", hint="expected one word such as hf_…")
    return Secret(text)


def _read(path: Path, what: str) -> tuple[Secret | None, _Version | None]:
    """The token in a file, None if it is empty, and which version of the file that is, None if it is not a regular file."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(TOKEN_BYTES_MAX + 1).decode("ascii").strip()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise InvalidArgument(f"{what} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"{what} does not hold a token") from None
    return checked_token(text, what) if text else None, _version_of(status)


def _read_if_changed(path: Path, known: _Version) -> tuple[Secret, _Version] | None:
    """What `path` holds if that is another version than `known`. Raises InvalidArgument if no token can be had from it now."""
    try:
        version = _version_of(path.stat())  # a pipe that took the file's place would block whoever opens it
        if version is None:
            raise InvalidArgument(f"{path} is not a regular file any more")
        if version == known:
            return None
        token, version = _read(path, str(path))
    except OSError as exc:
        raise InvalidArgument(f"{path} cannot be read: {exc.strerror}") from None
    return None if token is None or version is None else (token, version)


def _version_of(status: os.stat_result) -> _Version | None:
    return _Version(status.st_ino, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
