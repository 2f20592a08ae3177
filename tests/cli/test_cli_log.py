from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from xetfs.cli.log import RedactingFormatter, open_log
from xetfs.cli.redact import redact
from xetfs.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token hf_abcDEF123 used", "token hf_… used"),
        ("Authorization: Bearer eyJ0.e30.sig, next", "Authorization: Bearer …, next"),
        ("{'authorization': 'bearer xyz'}", "{'authorization': 'bearer …'}"),
        ("GET https://cdn.example/x?X-Amz-Signature=abc&Expires=1 200", "GET https://cdn.example/x?… 200"),
        ("'https://cdn/x?sig=abc'", "'https://cdn/x?…'"),
        ("proxy http://user:pw@proxy:3128/", "proxy http://…@proxy:3128/"),
        ("cut: X-Amz-Signature=abcdef&x=1", "cut: X-Amz-Signature=…&x=1"),
        ("x-xet-signature=abc", "x-xet-signature=…"),
        ("https://huggingface.co/owner/repo path='a?b'", "https://huggingface.co/owner/repo path='a?b'"),
    ],
)
def test_secrets_are_cut_out(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_arguments_and_tracebacks_are_covered() -> None:
    try:
        raise ValueError("with hf_canaryCanary")
    except ValueError as exc:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "header %r", (b"Bearer canaryCanary",), (type(exc), exc, exc.__traceback__)
        )
    text = RedactingFormatter().format(record)
    assert "ValueError" in text
    assert "canary" not in text


def test_a_new_log_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new/mount.log"
    open_log(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def test_the_mode_of_a_log_that_is_there_is_left(tmp_path: Path) -> None:
    """Whoever made it may have let others read it."""
    path = tmp_path / "log"
    path.write_text("earlier\n")
    path.chmod(0o644)
    open_log(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_text() == "earlier\n"


@pytest.mark.root
def test_a_device_is_left_as_it_is(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(tmp_path / "null", 0o666)
    open_log(tmp_path / "null")
    assert stat.S_IMODE((tmp_path / "null").stat().st_mode) == 0o666


@pytest.mark.parametrize("is_read", [False, True])
def test_a_fifo_is_refused_at_once(tmp_path: Path, is_read: bool) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    with pytest.raises(InvalidArgument, match="neither a file nor a character device; choose another with --log-file"):
        open_log(path)
    if reader is not None:
        os.close(reader)


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        open_log(tmp_path / "link")
    assert not (tmp_path / "target").exists()
