"""Handlers called directly, over a view without a Hub."""

from __future__ import annotations

import errno
import inspect
import os
import stat
from collections.abc import Awaitable

import pyfuse3
import pytest
import trio
from fake_view import COMMIT, MODIFIED_S, FakeRepoView
from pyfuse3 import FUSEError

from xetfs.errors import CorruptData, Unavailable
from xetfs.fs.inodes import CACHED_S
from xetfs.fs.operations import Operations
from xetfs.telemetry import FS_ERRORS, FS_OPERATIONS, Counters

CTX = None


async def refused(answer: Awaitable[object]) -> int:
    with pytest.raises(FUSEError) as caught:
        await answer
    return caught.value.errno


async def open_file(operations: Operations, view: FakeRepoView, path: str) -> int:
    return (await operations.open(operations.inodes.number(view.at(path)), os.O_RDONLY, CTX)).fh


# Names and attributes


async def test_lookup_gives_number_and_attributes_that_may_be_kept(operations: Operations, view: FakeRepoView) -> None:
    found = await operations.lookup(1, b"config.json", CTX)
    assert found.st_ino == operations.inodes.number(view.at("config.json"))
    assert stat.S_ISREG(found.st_mode)
    assert found.entry_timeout == found.attr_timeout == CACHED_S >= 3600


async def test_lookup_takes_names_as_utf8(operations: Operations, view: FakeRepoView) -> None:
    assert (await operations.lookup(1, "näme ☃".encode(), CTX)).st_ino == operations.inodes.number(view.at("näme ☃"))


async def test_a_name_that_is_not_there_is_kept_as_such_once_the_directory_is_known(
    operations: Operations, view: FakeRepoView
) -> None:
    await view.children(view.root)
    for name in (b"no", b"\xff\xfe", b"config.json\n"):
        found = await operations.lookup(1, name, CTX)
        assert found.st_ino == 0
        assert found.entry_timeout == CACHED_S


async def test_a_name_in_a_directory_that_cannot_be_listed_is_an_error(operations: Operations, view: FakeRepoView) -> None:
    def fail() -> None:
        raise Unavailable("the Hub is away")

    view.waiting = fail
    assert await refused(operations.lookup(1, b"config.json", CTX)) == errno.EIO
    view.waiting = None
    assert (await operations.lookup(1, b"config.json", CTX)).st_ino == operations.inodes.number(view.at("config.json"))


async def test_lookup_in_a_file(operations: Operations, view: FakeRepoView) -> None:
    assert await refused(operations.lookup(operations.inodes.number(view.at("config.json")), b"x", CTX)) == errno.ENOTDIR


async def test_attributes_of_a_file(operations: Operations, view: FakeRepoView) -> None:
    found = await operations.getattr(operations.inodes.number(view.at("deep/er/data.bin")), CTX)
    assert found.st_mode == stat.S_IFREG | 0o644
    assert found.st_nlink == 1
    assert (found.st_size, found.st_blocks) == (4096, 8)
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    assert found.st_mtime_ns == found.st_ctime_ns == found.st_atime_ns == MODIFIED_S * 10**9


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (512, 1), (513, 2), (5 * 2**30 + 1, 10 * 2**20 + 1)])
async def test_blocks_count_begun_sectors(operations: Operations, view: FakeRepoView, size: int, blocks: int) -> None:
    node = view.at("config.json")
    node.size = size
    found = await operations.getattr(operations.inodes.number(node), CTX)
    assert (found.st_size, found.st_blocks) == (size, blocks)


async def test_a_file_with_a_time_of_its_own_has_that(operations: Operations, view: FakeRepoView) -> None:
    view.at("config.json").mtime_s = 1234
    assert (await operations.getattr(operations.inodes.number(view.at("config.json")), CTX)).st_mtime_ns == 1234 * 10**9


async def test_attributes_of_a_directory(operations: Operations) -> None:
    found = await operations.getattr(1, CTX)
    assert (found.st_ino, found.st_mode, found.st_nlink) == (1, stat.S_IFDIR | 0o755, 2)


async def test_an_unknown_number(operations: Operations) -> None:
    assert await refused(operations.getattr(99, CTX)) == errno.ESTALE


async def test_dot_and_dotdot_of_any_inode(operations: Operations, view: FakeRepoView) -> None:
    """The kernel asks so for the inode of a file handle that it has dropped from its cache."""

    def number(path: str) -> int:
        return operations.inodes.number(view.at(path))

    file, folder = number("deep/er/data.bin"), number("deep/er")
    assert (await operations.lookup(file, b".", CTX)).st_ino == file
    assert (await operations.lookup(file, b"..", CTX)).st_ino == folder
    assert (await operations.lookup(folder, b"..", CTX)).st_ino == number("deep")
    assert (await operations.lookup(1, b"..", CTX)).st_ino == 1
    assert await refused(operations.lookup(99, b".", CTX)) == errno.ESTALE


async def test_forget_takes_anything(operations: Operations) -> None:
    await operations.forget([(1, 1), (99, 5)])
    assert (await operations.getattr(1, CTX)).st_ino == 1


async def test_there_are_no_links(operations: Operations, view: FakeRepoView) -> None:
    assert await refused(operations.readlink(operations.inodes.number(view.at("config.json")), CTX)) == errno.EINVAL


async def test_access(operations: Operations, view: FakeRepoView) -> None:
    file = operations.inodes.number(view.at("config.json"))
    assert await operations.access(file, os.R_OK, CTX)
    assert not await operations.access(file, os.W_OK, CTX)
    assert not await operations.access(file, os.X_OK, CTX)
    assert await operations.access(1, os.R_OK | os.X_OK, CTX)


async def test_extended_attributes(operations: Operations, view: FakeRepoView) -> None:
    number = operations.inodes.number(view.at("config.json"))
    assert await operations.listxattr(number, CTX) == [b"user.xetfs.repo", b"user.xetfs.commit"]
    assert await operations.getxattr(number, b"user.xetfs.commit", CTX) == COMMIT.encode()
    assert await operations.getxattr(number, b"user.xetfs.verified", CTX) == b"proof"
    assert await refused(operations.getxattr(1, b"user.xetfs.verified", CTX)) == pyfuse3.ENOATTR
    assert await refused(operations.getxattr(number, b"user.other", CTX)) == pyfuse3.ENOATTR
    assert await refused(operations.getxattr(number, b"security.selinux", CTX)) == errno.EOPNOTSUPP
    assert await refused(operations.getxattr(number, b"system.posix_acl_access", CTX)) == errno.EOPNOTSUPP
    assert await refused(operations.getxattr(number, b"user.\xff", CTX)) == pyfuse3.ENOATTR


async def test_statfs_has_no_room(operations: Operations) -> None:
    found = await operations.statfs(CTX)
    assert found.f_bavail == found.f_bfree == found.f_ffree == 0
    assert found.f_namemax == 255
    assert found.f_bsize == found.f_frsize > 0


# Directories


class Listing:
    """What readdir hands to the kernel, whose buffer takes `room` entries at a time."""

    def __init__(self, operations: Operations, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.operations = operations
        self.room = room
        self.calls = 0
        self.entries: list[tuple[bytes, int, int]] = []
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def _reply(self, token: object, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        self.next_id = next_id
        self.entries.append((name, attributes.st_ino, attributes.st_mode))
        return True

    async def read(self, number: int) -> list[tuple[bytes, int, int]]:
        handle = await self.operations.opendir(number, CTX)
        self.next_id = 0
        while True:
            self.left = self.room
            await self.operations.readdir(handle, self.next_id, None)
            self.calls += 1
            if self.left == self.room:
                break
        await self.operations.releasedir(handle)
        assert await refused(self.operations.readdir(handle, 0, None)) == errno.EBADF
        return self.entries


@pytest.mark.parametrize("room", [1, 2, 3, 5, 100])
async def test_a_listing_is_whole_whatever_the_buffer(
    operations: Operations, view: FakeRepoView, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    entries = await Listing(operations, monkeypatch, room).read(1)
    assert [name.decode() for name, _, _ in entries] == [".", "..", "config.json", "deep", "empty", "näme ☃"]
    assert [number for _, number, _ in entries][:2] == [1, 1]
    assert [stat.S_ISDIR(mode) for _, _, mode in entries] == [True, True, False, True, False, False]


async def test_a_listing_names_its_parent(operations: Operations, view: FakeRepoView, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = await Listing(operations, monkeypatch, 100).read(operations.inodes.number(view.at("deep/er")))
    assert [number for _, number, _ in entries] == [
        operations.inodes.number(view.at(path)) for path in ("deep/er", "deep", "deep/er/data.bin")
    ]


async def test_a_long_listing_costs_one_look_at_each_entry(operations: Operations, monkeypatch: pytest.MonkeyPatch) -> None:
    view = FakeRepoView({f"{index:05}": b"" for index in range(20_000)})
    seen = 0

    def count(node: object) -> pyfuse3.EntryAttributes:
        nonlocal seen
        seen += 1
        return pyfuse3.EntryAttributes()

    operations = Operations(view, deadline_s=30, counters=Counters())  # type: ignore[arg-type]
    monkeypatch.setattr(operations._attributes, "of", count)
    listing = Listing(operations, monkeypatch, 25)
    assert len(await listing.read(1)) == 20_002
    # Each call makes the attributes of one entry more than fits.
    assert seen == 20_002 + listing.calls - 2


async def test_opendir_of_a_file(operations: Operations, view: FakeRepoView) -> None:
    assert await refused(operations.opendir(operations.inodes.number(view.at("config.json")), CTX)) == errno.ENOTDIR


async def test_opendir_ends_at_the_deadline(
    operations: Operations, view: FakeRepoView, autojump_clock: trio.testing.MockClock
) -> None:
    view.waiting = trio.sleep_forever
    assert await refused(operations.opendir(1, CTX)) == errno.ETIMEDOUT
    assert trio.current_time() == pytest.approx(30, abs=0.1)


# Files


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, 4096), (10, 20), (4090, 100), (4096, 10), (10**12, 1)])
async def test_read(operations: Operations, view: FakeRepoView, at_hand: bool, offset: int, size: int) -> None:
    view.at_hand = at_hand
    content = view.at("deep/er/data.bin").content
    handle = await open_file(operations, view, "deep/er/data.bin")
    assert bytes(await operations.read(handle, offset, size)) == content[offset : offset + size]


async def test_a_read_at_hand_awaits_nothing(operations: Operations, view: FakeRepoView) -> None:
    handle = await open_file(operations, view, "config.json")
    with pytest.raises(StopIteration) as ended:  # it answers at the first step, without once giving way
        operations.read(handle, 0, 10).send(None)
    assert ended.value.value == b"{}"


async def test_opening_keeps_the_page_cache(operations: Operations, view: FakeRepoView) -> None:
    info = await operations.open(operations.inodes.number(view.at("config.json")), os.O_RDONLY | os.O_NOATIME, CTX)
    assert info.keep_cache
    assert not info.direct_io


async def test_each_opening_has_its_own_handle_and_is_closed(operations: Operations, view: FakeRepoView) -> None:
    first, second = [await open_file(operations, view, "config.json") for _ in range(2)]
    assert first != second
    await operations.release(first)
    assert [reader.closed for reader in view.readers] == [True, False]
    assert await refused(operations.read(first, 0, 1)) == errno.EBADF
    assert await refused(operations.release(first)) == errno.EBADF
    assert await operations.read(second, 0, 1) == b"{"


async def test_the_end_closes_what_is_open(operations: Operations, view: FakeRepoView) -> None:
    await open_file(operations, view, "config.json")
    await open_file(operations, view, "empty")
    operations.close()
    assert [reader.closed for reader in view.readers] == [True, True]


async def test_a_directory_is_not_opened_as_a_file(operations: Operations) -> None:
    assert await refused(operations.open(1, os.O_RDONLY, CTX)) == errno.EISDIR


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
async def test_opening_to_write(operations: Operations, view: FakeRepoView, flags: int) -> None:
    assert await refused(operations.open(operations.inodes.number(view.at("config.json")), flags, CTX)) == errno.EROFS
    assert view.readers == []


@pytest.mark.parametrize("at_hand", [True, False])
async def test_a_read_that_fails_costs_one_errno(
    operations: Operations, view: FakeRepoView, counters: Counters, at_hand: bool
) -> None:
    handle = await open_file(operations, view, "config.json")
    view.at_hand = at_hand

    def fail() -> None:
        raise CorruptData("chunk 1")

    if at_hand:
        view.raising = ValueError("a slip")
    else:
        view.waiting = fail
    assert await refused(operations.read(handle, 0, 1)) == errno.EIO
    assert counters[FS_ERRORS] == 1
    view.raising = view.waiting = None
    assert await operations.read(handle, 0, 1) == b"{"
    assert counters[FS_OPERATIONS] == 3


async def test_an_error_names_the_path(operations: Operations, view: FakeRepoView, caplog: pytest.LogCaptureFixture) -> None:
    handle = await open_file(operations, view, "deep/er/data.bin")
    view.raising = CorruptData("chunk 1")
    assert await refused(operations.read(handle, 0, 1)) == errno.EIO
    assert caplog.messages == ["operation=read path='deep/er/data.bin' errno=EIO: chunk 1"]


async def test_a_stalled_read_holds_up_only_itself(
    operations: Operations, view: FakeRepoView, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await open_file(operations, view, "config.json")
    view.at_hand = False
    view.waiting = trio.sleep_forever
    outcomes: list[int] = []

    async def stalled() -> None:
        outcomes.append(await refused(operations.read(handle, 0, 1)))

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(stalled)
        await trio.testing.wait_all_tasks_blocked()
        view.at_hand = True
        assert await operations.read(handle, 0, 1) == b"{"
        assert (await operations.getattr(1, CTX)).st_ino == 1
        assert trio.current_time() == pytest.approx(0, abs=0.1)
    assert outcomes == [errno.ETIMEDOUT] * 500


# Writing


WRITING = [
    "create",
    "link",
    "mkdir",
    "mknod",
    "removexattr",
    "rename",
    "rmdir",
    "setattr",
    "setxattr",
    "symlink",
    "unlink",
    "write",
]


@pytest.mark.parametrize("name", WRITING)
async def test_whatever_would_write_is_refused(operations: Operations, name: str) -> None:
    handler = getattr(operations, name)
    arguments = [1] * (len(inspect.signature(getattr(pyfuse3.Operations, name)).parameters) - 1)
    assert await refused(handler(*arguments)) == errno.EROFS


async def test_the_kernel_is_told_not_to_ask_at_every_close(
    operations: Operations, view: FakeRepoView, counters: Counters
) -> None:
    handle = await open_file(operations, view, "config.json")
    for answer in (operations.flush(handle), operations.fsync(handle, True), operations.fsyncdir(1, False)):
        assert await refused(answer) == errno.ENOSYS
    assert counters[FS_ERRORS] == 0


def test_every_handler_of_pyfuse3_is_decided_on() -> None:
    ours = {name for name in vars(Operations) if not name.startswith("_")}
    theirs = {name for name, value in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(value)}
    # poll: without an answer the kernel takes files as always ready, which is right.
    assert theirs - ours == {"poll"}
