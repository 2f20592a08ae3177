"""Which commit a revision is, and who may know.

The answer is kept, so that a repo that was mounted once can be mounted without a network. What is kept of a repo that is not open
to everybody is filed under a fingerprint of the token that could read it: another token, or none, does not find it.

Rights are judged anew by each mount that reaches the Hub, also of a commit id, which never moves: a repo may have become private.
Offline, what the Hub said last counts, a refusal included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import trio
from blake3 import blake3

from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    InvalidArgument,
    Offline,
    RateLimited,
    RepoNotFound,
    Unavailable,
    XetfsError,
)
from xetfs.hub.client import HubClient
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import RepoId, RepoRef, parse_commit_id
from xetfs.protocol.tree import RepoInfo
from xetfs.reader.shelf import Shelf
from xetfs.settings import Settings

log = logging.getLogger(__name__)

REVISION_RECORD = "revision"
"""Kind of the store's records that hold what a revision was when it was last asked for, and who was refused a repo since."""
EVERYBODY = "everybody"
NOBODY = "nobody"
"""Readers without a token of their own: all who ask for a repo that is open to all, and one who sends none."""
PATIENCE_S = 3.0
"""How long a silent Hub is waited for when the last known commit could be served instead. One that refuses is given up sooner
(net/reachability.py)."""

_REFUSED, _GRANTED = b"refused", b"granted"
_FINGERPRINT_KEY = blake3(b"xetfs: fingerprint of the token that could read a repo").digest()


class Revisions:
    def __init__(self, hub: Hub, client: HubClient, shelf: Shelf, settings: Settings) -> None:
        self._hub = hub
        self._client = client
        self._shelf = shelf
        self._settings = settings

    async def resolve(self, ref: RepoRef) -> RepoInfo:
        """The commit of `ref` and what else the Hub says of the repo; fails for a repo that these credentials may not read.

        When the Hub cannot be reached, the last known answer is taken, with a warning. Raises the errors of HubClient.repo_info
        and check_readable; Offline when nothing is known.
        """
        reader = await self._fingerprint()
        known = await self._known(ref, reader)
        if self._settings.offline:
            if known is None:
                if await self._was_refused(ref.repo, reader):
                    raise Offline(f"offline, and the Hub refused {ref.repo} when it was last asked", hint="mount it while online")
                raise Offline(f"offline, and {ref} was never opened from here", hint="open it once while online")
            return known
        try:
            with trio.fail_after(PATIENCE_S if known is not None else self._settings.operation_deadline_s):
                info = await self._client.repo_info(ref.repo, ref.revision)
                await self._client.check_readable(info)
        except (Offline, RateLimited, Unavailable, trio.TooSlowError) as exc:
            if known is None:
                if isinstance(exc, trio.TooSlowError):
                    raise Unavailable(f"{self._hub.endpoint} does not answer") from None
                raise
            log.warning(
                "the Hub cannot be reached, serving the last known commit repo=%s commit=%s: %s", ref, known.commit[:12], exc
            )
            return known
        except (RepoNotFound, AuthRequired, AccessDenied) as exc:
            if known is not None:
                await self._note_refusal({ref.repo, known.repo}, reader, exc)
            raise
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
        """What was said of `ref` to this reader, or to everybody, unless they were refused the repo since."""
        readers = (reader, EVERYBODY)
        keys = [self._key(ref, name) for name in readers] + [self._rights_key(ref.repo, name) for name in readers]
        *records, of_reader, of_all = await self._shelf.records(REVISION_RECORD, keys)
        for record, rights in zip(records, (of_reader, of_all), strict=True):
            if record is not None and rights != _REFUSED:
                return _decode(record)
        return None

    async def _was_refused(self, repo: RepoId, reader: str) -> bool:
        keys = [self._rights_key(repo, name) for name in (reader, EVERYBODY)]
        return _REFUSED in await self._shelf.records(REVISION_RECORD, keys)

    async def _remember(self, ref: RepoRef, info: RepoInfo, reader: str) -> None:
        """Keep an answer under the name that was asked for and the canonical one: after a rename both are typed."""
        repos = {ref.repo, info.repo}
        if info.private or info.gated:
            await self._set_rights(repos, EVERYBODY, _REFUSED)
            if reader != await self._fingerprint():
                return  # nobody knows with which of two tokens it was read
        else:
            reader = EVERYBODY
        await self._set_rights(repos, reader, _GRANTED)
        for repo in repos:
            for revision in (ref.revision, info.commit):
                await self._shelf.put_record(REVISION_RECORD, self._key(RepoRef(repo, revision=revision), reader), _encode(info))

    async def _note_refusal(self, repos: set[RepoId], reader: str, error: XetfsError) -> None:
        """Let nothing that is kept be found by whom the Hub refuses."""
        await self._set_rights(repos, reader, _REFUSED)
        if reader == NOBODY or isinstance(error, RepoNotFound):  # a token that is refused may just be a wrong one
            await self._set_rights(repos, EVERYBODY, _REFUSED)

    async def _set_rights(self, repos: set[RepoId], reader: str, rights: bytes) -> None:
        keys = [self._rights_key(repo, reader) for repo in repos]
        for key, kept in zip(keys, await self._shelf.records(REVISION_RECORD, keys), strict=True):
            if kept != rights and (kept is not None or rights == _REFUSED):
                await self._shelf.put_record(REVISION_RECORD, key, rights)

    def _rights_key(self, repo: RepoId, reader: str) -> str:
        return f"{self._hub.endpoint} {repo} {reader}"

    def _key(self, ref: RepoRef, reader: str) -> str:
        return f"{self._hub.endpoint} {ref.repo}@{ref.revision} {reader}"

    async def _fingerprint(self) -> str:
        """Names the token that is sent now, without telling it."""
        credentials = self._hub.credentials
        token = await credentials.token() if credentials is not None else None
        if token is None:
            return NOBODY
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
