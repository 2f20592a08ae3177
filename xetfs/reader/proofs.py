"""Whether a range proof is asked for, and what follows when there is none. `--verify auto` only.

In `auto` only a proof that is wrong fails a read. A server that refuses one, has none, takes too long or answers oddly lowers the
level of what is read and nothing else: a CAS can always withhold proofs, so nothing is given up by going on without. Three
things keep that cheap for the reader and for the server:

* each question has a short timeout of its own, which runs while the data is fetched;
* a verdict for each file: one without a proof is not asked about again for a while, which says nothing of other files;
* a circuit breaker for each origin: it opens after failures of several files in a row, and after a pause one question finds out
  whether proofs can be had again. The pause doubles with each question that fails.

A link that is down says nothing of a server, so it opens no breaker. Event loop only; seconds on
trio's clock.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

import trio

from xetfs import telemetry
from xetfs.errors import EntryNotFound, Offline, RateLimited, RepoNotFound, RevisionNotFound, XetfsError
from xetfs.protocol.hashes import FileId
from xetfs.protocol.proof import RangeProof
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

FAILURES_MAX: Final = 3
"""Files in a row whose failures open a breaker: one may be chance, and three cost a reader no more than three timeouts."""
FILES_WITHOUT_MAX: Final = 3
"""Files without a proof, in a row, after which a server that never gave one is taken to offer none."""
PAUSE_MIN_S: Final = 60.0
PAUSE_MAX_S: Final = 600.0
"""How long a breaker stays open: an outage is mostly over after a minute, and one question in ten minutes is no load."""
FILE_PAUSE_S: Final = 600.0
"""How long a file of which there is no proof is not asked about."""
FAILED_FILE_PAUSE_S: Final = 10.0
"""The same after a failure that may pass, which doubles with each that follows: a reader of one file waits for one timeout in
that time."""
FILES_KEPT_MAX: Final = 4096
"""Verdicts that are remembered. One that is forgotten costs a question."""


class Breaker:
    """Counts failures in a row. Pure: the time is passed in."""

    def __init__(self) -> None:
        self._failures = 0
        self._open = False
        self._probing = False
        self._pause_s = PAUSE_MIN_S
        self._until_s = -math.inf  # nobody is let through before

    def admits(self, now_s: float, probe_s: float) -> bool:
        """Whether to ask. When the pause is over only one question is let through in `probe_s`, until its outcome is known."""
        if not self._open:
            return True
        if now_s < self._until_s:
            return False
        self._probing, self._until_s = True, now_s + probe_s
        return True

    @property
    def is_open(self) -> bool:
        return self._open

    def succeed(self) -> bool:
        """Note an answer. True if that closes the breaker."""
        was_open, self._open, self._probing = self._open, False, False
        self._failures, self._pause_s = 0, PAUSE_MIN_S
        return was_open

    def fail(self, now_s: float, *, at_once: bool = False, pause_s: float = 0.0) -> bool:
        """Note a failure. True if that opens the breaker, which was closed.

        at_once: do not wait for more of them. pause_s: stay open for this long at the least.
        """
        self._failures += 1
        if self._open:
            if self._probing:  # else it is the answer to a question from before it opened
                self._probing, self._pause_s = False, min(2 * self._pause_s, PAUSE_MAX_S)
                self._until_s = now_s + max(self._pause_s, pause_s)
            return False
        self._open = at_once or self._failures >= FAILURES_MAX
        if self._open:
            self._until_s = now_s + max(self._pause_s, pause_s)
        return self._open


@dataclass(slots=True, eq=False)
class _Origin:
    """gave: whether it ever gave a proof. without: files in a row of which it had none, while it never gave one."""

    breaker: Breaker
    gave: bool = False
    without: int = 0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A file is not asked about before `until_s`, which was `pause_s` away when it was last asked about."""

    until_s: float
    pause_s: float


class ProofPolicy:
    """One per engine."""

    def __init__(self, timeout_s: float, counters: Counters) -> None:
        """timeout_s: of one question, whatever it takes."""
        self.timeout_s = timeout_s
        self._counters = counters
        self._origins: dict[Hashable, _Origin] = {}
        self._files: OrderedDict[FileId, _Verdict] = OrderedDict()  # of those that had no proof when last asked about

    def admits(self, origin: Hashable | None, file: FileId) -> bool:
        """Whether to ask now. origin: of the server that would be asked, None while that is not known."""
        now_s = trio.current_time()
        verdict = self._files.get(file)
        if verdict is not None and verdict.until_s > now_s:
            return False
        known = self._origins.get(origin) if origin is not None else None
        return known is None or known.breaker.admits(now_s, self.timeout_s)

    async def ask(
        self, origin: Callable[[], Hashable | None], file: FileId, question: Callable[[], Awaitable[RangeProof]]
    ) -> RangeProof | None:
        """Return what `question` returns, or None if it fails for any reason or takes too long. Cancellation changes nothing.

        origin: gives the server that was asked, once `question` has ended.
        """
        try:
            with trio.fail_after(self.timeout_s):
                proof = await question()
        except trio.TooSlowError:
            self._note_failure(origin(), file, f"no answer within {self.timeout_s:g} s", None)
        except EntryNotFound as exc:
            self._note_none(origin(), file, exc)
        except XetfsError as exc:
            self._note_failure(origin(), file, str(exc), exc)
        else:
            self._note_proof(origin(), file)
            return proof
        return None

    def _note_proof(self, origin: Hashable | None, file: FileId) -> None:
        self._files.pop(file, None)
        if origin is None:
            return
        known = self._origin(origin)
        known.gave, known.without = True, 0
        if known.breaker.succeed():
            log.info("range proofs can be had again server=%s", origin)

    def _note_none(self, origin: Hashable | None, file: FileId, exc: EntryNotFound) -> None:
        """There is no proof of this file; or, if none was ever seen, perhaps of no file."""
        if origin is None:
            return  # there was no token, so nobody was asked
        known = self._origin(origin)
        first_of_file = file not in self._files
        self._remember(file, FILE_PAUSE_S)
        self._counters.add(telemetry.READER_PROOFS_MISSED)
        log.info("served without proof: there is none of this file file=%s server=%s: %s", file.hex()[:12], origin, exc)
        if known.gave or not first_of_file:
            return
        known.without += 1
        if known.without == 1:
            log.warning("a server offers no proofs: files are checked when they are known whole server=%s", origin)
        if known.without >= FILES_WITHOUT_MAX:
            known.breaker.fail(trio.current_time(), at_once=True)

    def _note_failure(self, origin: Hashable | None, file: FileId, why: str, exc: XetfsError | None) -> None:
        if isinstance(exc, RepoNotFound | RevisionNotFound):
            return  # the Hub gives no token for one repo; others may have the file, too, and be given proofs
        verdict = self._files.get(file)
        self._remember(file, FAILED_FILE_PAUSE_S if verdict is None else min(2 * verdict.pause_s, FILE_PAUSE_S))
        self._counters.add(telemetry.READER_PROOFS_MISSED)
        log.info("served without proof file=%s server=%s: %s", file.hex()[:12], origin, why)
        if origin is None or isinstance(exc, Offline):
            return
        limited = isinstance(exc, RateLimited)
        if verdict is not None and not limited and not self._origin(origin).breaker.is_open:
            return  # the failure of one file, again, says nothing of others
        asked_s = (exc.retry_after_s or 0.0) if isinstance(exc, RateLimited) else 0.0
        if self._origin(origin).breaker.fail(trio.current_time(), at_once=limited, pause_s=asked_s):
            log.warning(
                "range proofs fail and are not asked for for a while: files are checked when they are known whole server=%s: %s",
                origin,
                why,
            )

    def _origin(self, origin: Hashable) -> _Origin:
        return self._origins.setdefault(origin, _Origin(Breaker()))

    def _remember(self, file: FileId, pause_s: float) -> None:
        self._files[file] = _Verdict(trio.current_time() + pause_s, pause_s)
        self._files.move_to_end(file)
        if len(self._files) > FILES_KEPT_MAX:
            self._files.popitem(last=False)
