"""What pyfuse3 logs of answers that the kernel no longer wants."""

from __future__ import annotations

import logging

import pytest

from xetfs.cli.log import is_news


@pytest.mark.parametrize(("reason", "news"), [("No such file or directory", False), ("Invalid argument", True)])
def test_only_what_the_kernel_gave_up_is_no_news(reason: str, news: bool) -> None:
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, "fuse_read(): fuse_reply_* failed with %s", (reason,), None)
    assert is_news(record) is news
