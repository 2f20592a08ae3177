"""Which commit a revision is, and who may know.

The answer is kept, so that a repo that was mounted once can be mounted without a network. What is kept of a repo that is not open
to everybody is filed under a fingerprint of the token that could read it: another token, or none, does not find it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import trio
from blake3 import blake3

from xetfs.errors import InvalidArgument, Offline, RateLimited, Unavailable
from xetfs.hub.client import HubClient
from xetfs.protocol.names import RepoId, RepoRef, is_commit_id, parse_commit_id
from xetfs.protocol.tree import RepoInfo
from xetfs.reader.shelf import Shelf
from xetfs.settings import Settings

log = logging.getLogger(__name__)

REVISION_RECORD = "revision"
"""Kind of the store's records that hold what a revision was when it was last asked for."""
PATIENCE_S = 3.0
"""How long a silent Hub is waited for when the last known commit could be served instead. One that refuses is given up sooner
(net/reach.py)."""

_FINGERPRINT_KEY = blake3(b"xetfs: fingerprint of the token that could read a repo").digest()


class Revisions:
    def __init__(self, hub: HubClient, shelf: Shelf, settings: Settings) -> None:
        self._hub = hub
        self._shelf = shelf
        self._settings = settings

    async def resolve(self, ref: RepoRef) -> RepoInfo:
        """The commit of `ref` and what else the Hub says of the repo; fails for a repo that these credentials may not read.

        A commit id that was resolved before is not asked for again. When the Hub cannot be reached, the last known answer is
        taken, with a warning. Raises the errors of HubClient.repo_info and check_readable; Offline when nothing is known.
        """
        reader = await self._fingerprint()
        known = await self._known(ref, reader)
        if known is not None and (self._settings.offline or is_commit_id(ref.revision)):
            return known
        if self._settings.offline:
            raise Offline(f"offline, and {ref} was never opened from here", hint="open it once while online")
        try:
            with trio.fail_after(PATIENCE_S if known is not None else self._settings.operation_deadline_s):
                info = await self._hub.repo_info(ref.repo, ref.revision)
                await self._hub.check_readable(info)
        except (Offline, RateLimited, Unavailable, trio.TooSlowError) as exc:
            if known is None:
                if isinstance(exc, trio.TooSlowError):
                    raise Unavailable(f"{self._settings.endpoint} does not answer") from None
                raise
            log.warning(
                "the Hub cannot be reached, serving the last known commit repo=%s commit=%s: %s", ref, known.commit[:12], exc
            )
            return known
        if not (info.private or info.gated):
            await self._remember(ref, info, "everybody")
        elif reader == await self._fingerprint():  # else nobody knows with which of two tokens it was read
            await self._remember(ref, info, reader)
        return info

    async def known_first(self, readings: Sequence[RepoRef]) -> Sequence[RepoRef]:
        """The same readings, those before the others that led to a commit before."""
        if len(readings) == 1:
            return readings
        reader = await self._fingerprint()
        known = {reading for reading in readings if await self._known(reading, reader) is not None}
        return sorted(readings, key=lambda reading: reading not in known)

    async def _known(self, ref: RepoRef, reader: str) -> RepoInfo | None:
        keys = [self._key(ref, name) for name in (reader, "everybody")]
        for record in await self._shelf.records(REVISION_RECORD, keys):
            if record is not None:
                return _decode(record)
        return None

    async def _remember(self, ref: RepoRef, info: RepoInfo, reader: str) -> None:
        commit = RepoRef(ref.repo, revision=info.commit)
        for known_as in (ref, commit):
            await self._shelf.put_record(REVISION_RECORD, self._key(known_as, reader), _encode(info))

    def _key(self, ref: RepoRef, reader: str) -> str:
        return f"{self._settings.endpoint} {ref.repo}@{ref.revision} {reader}"

    async def _fingerprint(self) -> str:
        """Names the token that is sent now, without telling it."""
        credentials = self._settings.credentials
        token = await credentials.token() if credentials is not None else None
        if token is None:
            return "nobody"
        return blake3(token.reveal().encode(), key=_FINGERPRINT_KEY).hexdigest()


def _encode(info: RepoInfo) -> bytes:
    return json.dumps([info.repo.kind, info.repo.name, info.commit, info.modified_s, info.private, info.gated]).encode()


def _decode(record: bytes) -> RepoInfo | None:
    try:
        kind, name, commit, modified_s, private, gated = json.loads(record)
        repo = RepoId(kind, name)
    except (ValueError, TypeError, InvalidArgument):
        return None  # written by another version: the Hub is asked again
    return RepoInfo(repo, parse_commit_id(commit), modified_s, bool(private), bool(gated), disabled=False)
