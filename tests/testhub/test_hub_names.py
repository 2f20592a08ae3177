"""Names with anything in them: no byte of a name or of a request reaches a header line as it is."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote

import httpx
import pytest

from xetfs.testhub import TestHub

NAMES = [
    "new\nline.bin",
    "return\r\n\r\nX-Injected: yes.bin",
    'quote"back\\slash.bin',
    "ü ☃ 名前.bin",
    "tab\tand\x7f.bin",
    "semi;colon=%41.bin",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plain_files", ["direct", "redirect"])
async def test_a_file_of_any_name_is_downloaded_under_it(hub: TestHub, http: httpx.AsyncClient, name: str, plain_files) -> None:
    hub.options.plain_files = plain_files
    _, in_xet = hub.xet.add_file_from_chunks([b"in xet"])
    spooled = hub.storage.temporary / "old"
    spooled.write_bytes(b"in lfs")
    in_lfs = hub.storage.add_lfs(hashlib.sha256(b"in lfs").hexdigest(), 6, spooled)
    repo = hub.storage.create_repo("model", "local/names")
    hub.storage.commit_files(repo, {f"xet/{name}": in_xet, f"lfs/{name}": in_lfs, f"git/{name}": b"in git"})
    for kind in ("xet", "lfs", "git"):
        url = f"{hub.endpoint}/local/names/resolve/main/{kind}/{quote(name, safe='')}"
        answer = await http.get(url, follow_redirects=True)
        assert answer.content == f"in {kind}".encode()
        assert "x-injected" not in answer.headers
        shown = re.fullmatch(
            r"inline; filename\*=UTF-8''([!#$&+.^_`|~%\w-]+); filename=\"([ !#-\[\]-~]*)\";",
            answer.headers["content-disposition"],
        )
        assert shown is not None
        assert unquote(shown[1]) == name
        assert len(shown[2]) == len(name)


async def test_what_was_asked_for_is_quoted_in_no_header(hub: TestHub, http: httpx.AsyncClient) -> None:
    hub.storage.create_repo("model", "local/names")
    for path in ("revision/a%0D%0AX-Injected:%20yes", "tree/main/a%0Ab", "tree/%C3%BC%0A"):
        answer = await http.get(f"{hub.endpoint}/api/models/local/names/{path}")
        assert answer.status_code == 404
        assert "x-injected" not in answer.headers
