"""CasClient: how the files of one repo and commit are made up, and the bytes of xorbs.

Two kinds of request. Questions (reconstructions, proofs) go to the CAS with its token, which is kept fresh and replaced once when
it is refused. Data comes from wherever a signed URL points, without any token. What is learnt about a server (no version 2,
no multi-range) is kept per origin, for a while (cas/facts.py).
Source: Xet spec, "Reconstruction" and "Authentication"; xet-core cas_client/remote_client.rs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from xetfs.cas.facts import Fact, ServerFacts
from xetfs.cas.fetching import Part, fetch_parts
from xetfs.cas.refusals import REFUSAL_LIFETIME_S, refused_for_good
from xetfs.cas.token import TokenSource
from xetfs.credentials import FixedToken
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    EntryNotFound,
    Offline,
    ProtocolViolation,
    SignedUrlExpired,
    Unavailable,
    XetfsError,
)
from xetfs.net.client import Answer, HttpClient
from xetfs.net.failures import error_of_status
from xetfs.net.origins import Bearer, Origin
from xetfs.protocol.hashes import FileId
from xetfs.protocol.proof import RangeProof, parse_range_proof
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import Reconstruction, SignedUrl, parse_reconstruction
from xetfs.protocol.tree import XetToken
from xetfs.telemetry import CAS_RECONSTRUCTIONS

log = logging.getLogger(__name__)


class CasClient:
    """One per repo and commit, since a token is good for these alone."""

    def __init__(
        self,
        http: HttpClient,
        fetch_token: Callable[[], Awaitable[XetToken]],
        *,
        facts: ServerFacts | None = None,
    ) -> None:
        """fetch_token: asks the Hub, every time it is called. facts: those of the engine; by default this client's own."""
        self._http = http
        self.facts = facts or ServerFacts()
        self._tokens = TokenSource(fetch_token, nursery=http.nursery)
        self._origin: Origin | None = None

    @property
    def origin(self) -> Origin | None:
        """The CAS that was asked last, or None before the first question."""
        return self._origin

    async def prepare(self) -> None:
        """Get a token if none is at hand, so that the next request need not wait for one. Raises no XetfsError."""
        try:
            await self._tokens.get()
        except XetfsError as exc:
            log.debug("no CAS token ahead of time: %s", exc)

    async def reconstruction(self, file: FileId, span: ByteRange) -> Reconstruction:
        """What the bytes `span` of a file consist of; whole chunks, so usually a little more at both ends. span may not be empty.

        Raises RangeNotSatisfiable if it begins past the end, EntryNotFound, AuthRequired, AccessDenied, ProtocolViolation, and
        what the network brings.
        """
        what = f"reconstruction of {file.hex()[:12]}"
        headers = {"range": f"bytes={span.to_http()}"}
        self._http.counters.add(CAS_RECONSTRUCTIONS)
        origin, answer = await self._ask(f"/v2/reconstructions/{file.hex()}", headers, what, unless=Fact.V1_ONLY)
        if answer is not None and answer.status not in (404, 501):
            return self._parse(origin, answer, 2, what)
        origin, answer = await self._ask(f"/v1/reconstructions/{file.hex()}", headers, what)
        assert answer is not None
        found = self._parse(origin, answer, 1, what)
        self.facts.note(origin, Fact.V1_ONLY)  # only now: the file may be missing from both
        return found

    def _parse(self, origin: Origin, answer: Answer, version: Literal[1, 2], what: str) -> Reconstruction:
        if answer.status != 200:
            raise _refusal(answer, what)
        found = parse_reconstruction(answer.body, version)
        self.facts.note(origin, Fact.HAS_FILES)
        return found

    async def range_proof(self, file: FileId, span: ByteRange) -> RangeProof:
        """Merkle summaries of everything around `span`, from which its chunks can be proven to belong to `file`.

        Raises EntryNotFound when there is none: the server does not know the file, or has no such endpoint (404, 405, 501); else
        as `reconstruction`. Nothing is remembered: whether to ask again is up to reader/proofs.py.
        """
        what = f"range proof of {file.hex()[:12]}"
        headers = {"x-range-dirty": f"bytes={span.to_http()}"}
        _, answer = await self._ask(f"/v2/file-chunk-hashes/{file.hex()}", headers, what)
        assert answer is not None
        if answer.status == 200:
            return parse_range_proof(answer.body)
        if answer.status in (404, 405, 501):
            raise EntryNotFound(f"{what}: the server has none ({answer.status})")
        raise _refusal(answer, what)

    async def fetch(self, url: SignedUrl, parts: Sequence[Part]) -> None:
        """Fill a writer of each part with the bytes of its range of the object at `url`, side by side.

        Raises SignedUrlExpired (ask for the reconstruction again), AccessDenied, Unavailable, RateLimited, ProtocolViolation.
        """
        await fetch_parts(self._http, self.facts, url, parts)

    def refuse_for_good(self, refusal: SignedUrlExpired) -> AccessDenied:
        """The error of a fresh URL that was refused like the one before. It is remembered of the server, unless the URL expired,
        so that the next reads learn it from one request."""
        if not refusal.certain:
            self.facts.note(Origin.of(refusal.server), Fact.REFUSES_URLS, lifetime_s=REFUSAL_LIFETIME_S)
        return refused_for_good(refusal.message)

    async def _ask(
        self, path: str, headers: dict[str, str], what: str, *, unless: Fact | None = None
    ) -> tuple[Origin, Answer | None]:
        """The CAS's origin and its answer to a question; None, and no request, while `unless` holds of it."""
        token = await self._tokens.get()
        self._origin = Origin.of(token.cas_url)
        answer = await self._send(token, path, headers, what, unless)
        if answer is not None and answer.status == 401:
            token = await self._tokens.replace(token)
            answer = await self._send(token, path, headers, what, unless)
        return Origin.of(token.cas_url), answer

    async def _send(self, token: XetToken, path: str, headers: dict[str, str], what: str, unless: Fact | None) -> Answer | None:
        origin = Origin.of(token.cas_url)
        if unless is not None and self.facts.holds(origin, unless):
            return None
        credentials = Bearer(origin, FixedToken(token.access_token))
        try:
            return await self._http.request(token.cas_url + path, what, headers=headers, credentials=credentials)
        except (Offline, ProtocolViolation, Unavailable):
            if not self.facts.holds(origin, Fact.HAS_FILES):  # perhaps it is not, or no longer, where the CAS is
                self._tokens.forget(token)
            raise


def _refusal(answer: Answer, what: str) -> XetfsError:
    match answer.status:
        case 401:
            return AuthRequired(f"{what}: the CAS refused two tokens in a row")
        case 403:
            return AccessDenied(f"{what}: the CAS token does not reach this file (403)")
        case status:
            return error_of_status(status, answer.headers, what)
