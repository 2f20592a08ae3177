"""Commands print the same on a mount as on the plain files (commands.sh)."""

from __future__ import annotations

from pathlib import Path

import pytest
from mount_user import Mount
from software_runs import Software, compare, functions, output, script

COMMANDS = Path(__file__).with_name("commands.sh")


@pytest.mark.parametrize("name", functions(COMMANDS))
def test_a_command_prints_the_same(software: Software, mount: Mount, tmp_path: Path, name: str) -> None:
    places = iter(range(9))

    def answer(folder: Path) -> bytes:
        out = tmp_path / str(next(places))
        out.mkdir()
        printed = output(script(COMMANDS, name), cwd=folder, OUT=str(out))
        return printed.replace(bytes(folder), b"FOLDER").replace(bytes(out), b"OUT")

    compare(mount, software.plain, answer)
