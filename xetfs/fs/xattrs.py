"""Extended attributes of files and directories: what the listing says of them, and the verification level.

Programs that copy attributes (`cp -a`, `rsync -X`) copy those that are listed. What names the origin of a copy (repo, commit,
hashes) may travel with it. `user.xetfs.verified` may not: it is this mount's word on bytes that this mount serves, and would go
on vouching for a copy that anybody can change. It is answered by name and not listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xetfs.reader.filemap import level_name

if TYPE_CHECKING:
    from xetfs.repo import FileDetails

VERIFIED: Final = "user.xetfs.verified"


def listed_xattrs(details: FileDetails) -> dict[str, bytes]:
    """Return the attributes that are listed, by name."""
    found = {"user.xetfs.repo": str(details.repo), "user.xetfs.commit": details.commit}
    if details.oid:
        found["user.xetfs.oid"] = details.oid
    if details.file_id is not None:
        found["user.xetfs.hash"] = details.file_id.hex()
    if details.sha256 is not None:
        found["user.xetfs.sha256"] = details.sha256.hex()
    return {name: value.encode() for name, value in found.items()}


def xattr(details: FileDetails, name: str) -> bytes | None:
    """Return the value of one attribute, or None if there is none of that name."""
    if name == VERIFIED and not details.is_directory:
        return level_name(details.level).encode()
    return listed_xattrs(details).get(name)
