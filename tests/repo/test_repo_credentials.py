"""A repo stays readable when the token that it was opened with ends and another one is written to the token file."""

from __future__ import annotations

from pathlib import Path

import pytest
from flat_settings import flat_settings, open_engine

from xetfs.credentials import open_token_file
from xetfs.errors import AuthRequired, XetfsError
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.testhub import open_test_hub

REPO = "owner/secret"
FILES = {
    "first.txt": b"read before\n",
    "between.txt": b"read without a right\n",
    "plain.txt": b"never read\n",
    "folder/below.txt": b"never listed\n",
}


async def test_a_token_that_rotates_while_the_repo_is_open(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hf_first")
    async with open_test_hub(tmp_path / "hub") as hub:
        hub.accounts.add_user("owner")
        hub.accounts.add_token("hf_first", "owner", "read")
        repo = hub.storage.create_repo("model", REPO, private=True)
        hub.storage.commit_files(repo, {**FILES, "xet.bin": hub.xet.add_file_from_chunks([bytes(range(256)) * 100])[1]})
        credentials = open_token_file(path, "the token file")
        settings = flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache", credentials=credentials)
        async with open_engine(settings) as engine:
            view = await engine.open_repo(RepoRef.parse(REPO))

            async def read(name: str, folder: str = "") -> bytes:
                parent = await view.lookup(view.root, folder) if folder else view.root
                node = await view.lookup(parent, name)
                return bytes(await view.open_file(node).read(ByteRange(0, node.entry.size)))

            assert await read("first.txt") == FILES["first.txt"]
            hub.accounts.remove_token("hf_first")
            with pytest.raises(XetfsError) as caught:
                await read("between.txt")
            assert isinstance(caught.value, AuthRequired)
            hub.accounts.add_token("hf_second", "owner", "read")
            path.write_text("hf_second")
            assert await read("plain.txt") == FILES["plain.txt"]
            assert await read("below.txt", "folder") == FILES["folder/below.txt"]
            assert await read("xet.bin") == bytes(range(256)) * 100
