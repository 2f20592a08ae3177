"""The views of an engine: those that somebody holds, and the ones used last.

A view is its repo's listings and nodes, which may take megabytes, so a process that shows thousands of repos cannot keep all of
them. A front holds the views that it shows; the registry keeps a few more for the next opening, within limits of views and of
entries listed. A view that nobody holds goes with its nodes, its client for the CAS and that client's token. Event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from xetfs.cas.client import CasClient
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import CommitId, RepoId, RepoRef
from xetfs.repo.view import RepoView

VIEWS_KEPT_MAX: Final = 64
ENTRIES_KEPT_MAX: Final = 250_000
"""Views that are kept though nobody may hold them, and entries that they list together: some 90 MiB with their nodes."""


@dataclass(frozen=True, slots=True)
class ViewKey:
    """What a view is of. ref: as it was asked for, which the view tells; commit: what its revision was then."""

    hub: Hub
    ref: RepoRef
    repo: RepoId
    commit: CommitId


class ViewRegistry:
    def __init__(self) -> None:
        self._views: WeakValueDictionary[ViewKey, RepoView] = WeakValueDictionary()
        self._kept: OrderedDict[ViewKey, RepoView] = OrderedDict()
        self._clients: WeakValueDictionary[tuple[Hub, RepoId, CommitId], CasClient] = WeakValueDictionary()

    def view(self, key: ViewKey, make: Callable[[CasClient], RepoView], make_client: Callable[[], CasClient]) -> RepoView:
        """Return the view of this key, made if there is none; one made for another subfolder or revision shares its client."""
        view = self._views.get(key)
        if view is None:
            of_client = (key.hub, key.repo, key.commit)
            client = self._clients.get(of_client)
            if client is None:
                client = self._clients[of_client] = make_client()
            view = self._views[key] = make(client)
        return view

    def keep(self, key: ViewKey, view: RepoView) -> None:
        """Note that a view was opened, and let go of those unused for longest that are too many."""
        self._kept[key] = view
        self._kept.move_to_end(key)
        entries = sum(kept.entries_listed for kept in self._kept.values())
        while len(self._kept) > VIEWS_KEPT_MAX or (entries > ENTRIES_KEPT_MAX and len(self._kept) > 1):
            entries -= self._kept.popitem(last=False)[1].entries_listed

    def __len__(self) -> int:
        """Number of views that are held or kept."""
        return len(self._views)
