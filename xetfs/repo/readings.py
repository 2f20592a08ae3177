"""Which of several readings of what a user typed is meant: the first under which the Hub knows something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from xetfs.errors import EntryNotFound, NotADirectory, Offline, RevisionNotFound, XetfsError
from xetfs.protocol.names import RepoRef

T = TypeVar("T")


async def open_first(readings: Iterable[RepoRef], open_one: Callable[[RepoRef], Awaitable[T]]) -> T:
    """What `open_one` gives for the first reading that leads anywhere.

    Raises the error of the reading that came furthest: of a missing folder rather than of a missing revision.
    """
    furthest: XetfsError | None = None
    for reading in readings:
        try:
            return await open_one(reading)
        except (EntryNotFound, NotADirectory) as error:
            if not isinstance(furthest, EntryNotFound | NotADirectory):
                furthest = error
        except (RevisionNotFound, Offline) as error:
            furthest = furthest or error
    if furthest is None:
        raise ValueError("there is no reading")
    raise furthest
