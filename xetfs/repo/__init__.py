"""What a repo looks like as files, and the wiring of everything under it. The fronts begin here.

engine.py   open_engine(): one engine for all mounts of a process
view.py     RepoView and Node: one repo at one commit as a tree
registry.py  ViewRegistry: the views that are held, and a few more
listing.py  directory listings: from the store or the Hub, with names that cannot be served left out
patience.py  waiting as long as a server asks, in the background
verify.py   proving whole files
preload.py  fetching chosen files before they are read
shards.py   fetching the headers of a model's shards when its index is opened
revisions.py  which commit a revision is, and who may know
"""

from xetfs.repo.engine import Engine, open_engine
from xetfs.repo.view import FileDetails, Node, RepoView

__all__ = ["Engine", "FileDetails", "Node", "RepoView", "open_engine"]
