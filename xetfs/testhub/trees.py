"""Directories as git sees them: entries, their ids, and a new tree made from an old one and some changes.

Ids are genuine: a blob's is the SHA-1 of its content with git's header, an LFS file's that of its pointer, a tree's that of its
entries. So what a client computes on its side agrees, and an unchanged directory is stored once for all commits.
Source: git, Documentation/gitformat-pack and "git hash-object"; git-lfs docs/spec.md (pointers).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from xetfs.errors import EntryNotFound, IsADirectory, NotADirectory


class Entry(NamedTuple):
    """One name in a directory. size is that of the content; sha256 (64 hex digits) is "" for plain git files and directories."""

    name: str
    is_directory: bool
    oid: str
    size: int = 0
    sha256: str = ""


Tree = Mapping[str, Entry]
"""A directory: its entries by name, in git's order."""


def blob_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer_text(sha256: str, size: int) -> bytes:
    """What git holds in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def lfs_entry(name: str, sha256: str, size: int) -> Entry:
    return Entry(name, False, blob_oid(pointer_text(sha256, size)), size, sha256)


def make_tree(entries: dict[str, Entry]) -> tuple[str, bytes, Tree]:
    """A directory of these entries: its id, its form for the store, and itself in git's order."""
    ordered = dict(sorted(entries.items(), key=lambda item: _encoded(item[0] + "/" if item[1].is_directory else item[0])))
    body = b"".join(
        (b"40000 " if entry.is_directory else b"100644 ") + _encoded(entry.name) + b"\0" + bytes.fromhex(entry.oid)
        for entry in ordered.values()
    )
    oid = hashlib.sha1(b"tree %d\0" % len(body) + body).hexdigest()
    return oid, json.dumps(list(ordered.values()), separators=(",", ":")).encode(), ordered


def load_tree(stored: bytes) -> Tree:
    return {entry[0]: Entry(*entry) for entry in json.loads(stored)}


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


EMPTY_TREE_OID: Final = make_tree({})[0]

LoadTree = Callable[[str], Tree]
SaveTree = Callable[[str, bytes, Tree], None]


class TreeEditor:
    """A tree being changed. Only the directories on the way to a change are loaded and made anew."""

    def __init__(self, load: LoadTree, root_oid: str) -> None:
        self._load = load
        self._root = _Directory(dict(load(root_oid)))

    def put(self, path: str, entry: Entry) -> None:
        """Place a file at `path`, whatever name the entry bears; missing directories appear. Raises NotADirectory,
        IsADirectory."""
        *parents, name = path.split("/")
        directory = self._root
        for parent in parents:
            directory = directory.enter(parent, self._load, create=True)
        if name in directory.children or (name in directory.entries and directory.entries[name].is_directory):
            raise IsADirectory(f"{path} is a directory")
        directory.entries[name] = entry._replace(name=name)

    def delete_file(self, path: str) -> None:
        """Raises EntryNotFound."""
        directory, name = self._parent(path)
        if name not in directory.entries or directory.entries[name].is_directory:
            raise EntryNotFound(f"no file {path}")
        del directory.entries[name]

    def delete_folder(self, path: str) -> None:
        """Raises EntryNotFound."""
        if path.strip("/") in ("", "."):
            self._root = _Directory({})
            return
        directory, name = self._parent(path.strip("/"))
        known = name in directory.children or (name in directory.entries and directory.entries[name].is_directory)
        if not known:
            raise EntryNotFound(f"no folder {path}")
        directory.entries.pop(name, None)
        directory.children.pop(name, None)

    def _parent(self, path: str) -> tuple[_Directory, str]:
        *parents, name = path.split("/")
        directory = self._root
        for parent in parents:
            directory = directory.enter(parent, self._load, create=False)
        return directory, name

    def write(self, save: SaveTree) -> str:
        """Save the changed directories, bottom up; the id of the root. Directories left empty vanish, as in git."""
        return self._write(self._root, save)

    def _write(self, directory: _Directory, save: SaveTree) -> str:
        for name, child in directory.children.items():
            oid = self._write(child, save)
            if oid == EMPTY_TREE_OID:
                directory.entries.pop(name, None)
            else:
                directory.entries[name] = Entry(name, True, oid)
        oid, stored, tree = make_tree(directory.entries)
        save(oid, stored, tree)
        return oid


class _Directory:
    """Entries as they were or have become, and the subdirectories that were entered."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries
        self.children: dict[str, _Directory] = {}

    def enter(self, name: str, load: LoadTree, *, create: bool) -> _Directory:
        if name in self.children:
            return self.children[name]
        entry = self.entries.get(name)
        if entry is not None and not entry.is_directory:
            raise NotADirectory(f"{name} is a file")
        if entry is None and not create:
            raise EntryNotFound(f"no folder {name}")
        child = self.children[name] = _Directory(dict(load(entry.oid)) if entry is not None else {})
        return child


def walk(load: LoadTree, oid: str, prefix: str = "", *, recursive: bool) -> Iterator[tuple[str, Entry]]:
    """(path, entry) of a directory, in git's order; with recursive a directory is followed by what is in it."""
    for name, entry in load(oid).items():
        path = f"{prefix}/{name}" if prefix else name
        yield path, entry
        if recursive and entry.is_directory:
            yield from walk(load, entry.oid, path, recursive=True)
