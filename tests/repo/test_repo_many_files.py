"""More files open at once than readers are kept for."""

from __future__ import annotations

from pathlib import Path

from flat_settings import flat_settings, open_engine

from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo.engine import CONTENTS_KEPT_MAX
from xetfs.testhub import open_test_hub


async def test_no_reader_in_use_is_dropped_however_many_there_are(tmp_path: Path) -> None:
    files = {f"{number:04}.txt": b"%d" % number for number in range(CONTENTS_KEPT_MAX + 40)}
    async with open_test_hub(tmp_path / "hub") as hub:
        hub.storage.commit_files(hub.storage.create_repo("model", "acme/many"), files)
        async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
            view = await engine.open_repo(RepoRef.parse("acme/many"))
            nodes = await view.children(view.root)
            readers = [view.open_file(node) for node in nodes]
            assert [view.open_file(node).content for node in nodes] == [reader.content for reader in readers]
            for node, reader in zip(nodes[::37], readers[::37], strict=True):
                assert bytes(await reader.read(ByteRange(0, node.size))) == files[node.name]
            for reader in readers * 2:
                reader.close()
