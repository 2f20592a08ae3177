"""What the Hub takes in: upload modes, commits, LFS batches.

A commit names LFS and Xet files by SHA-256; their content must have come before, through the CAS (whose shard ties a SHA-256 to a
file id) or through an LFS batch. Empty files are always plain.
Source: Hub API as used by huggingface_hub, _commit_api.py and lfs.py; git-lfs docs/api/batch.md.
"""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import PurePosixPath
from typing import IO, Any, Final
from urllib.parse import quote

import trio

from xetfs.errors import NotFound, XetfsError
from xetfs.testhub.accounts import Accounts
from xetfs.testhub.hub_paths import Finder, Target
from xetfs.testhub.messages import Problem, Request, Response, json_response
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.records import Commit, StoredFile
from xetfs.testhub.signing import Signer
from xetfs.testhub.storage import Storage

COMMIT_BYTES_MAX: Final = 2 * 1024**3
"""The NDJSON of a commit, with plain files in base64; the real Hub takes 1 GB."""
PLAIN_FILE_BYTES_MAX: Final = 10 * 1024 * 1024
"""Larger files are LFS whatever they are called, as at the real Hub."""
_LFS_NAMES = (
    ".7z .arrow .avro .bin .bz2 .ckpt .ftz .gguf .gz .h5 .joblib .mlmodel .model .msgpack .npy .npz .onnx .ot .parquet .pb "
    ".pickle .pkl .pt .pth .rar .safetensors .tar .tflite .tgz .wasm .xz .zip .zst"
)
_LFS_SUFFIXES = frozenset(_LFS_NAMES.split())
LFS_MEDIA: Final = "application/vnd.git-lfs+json"


class Uploads:
    """The writing half of the Hub's API, as far as content goes."""

    def __init__(
        self, storage: Storage, accounts: Accounts, finder: Finder, signer: Signer, options: HubOptions, urls: HubUrls
    ) -> None:
        self._storage = storage
        self._accounts = accounts
        self._finder = finder
        self._signer = signer
        self._options = options
        self._urls = urls

    def check_write(self, target: Target) -> None:
        self._accounts.check_write(target.caller, target.repo.name.partition("/")[0])

    async def preupload(self, target: Target, request: Request, revision: str) -> Response:
        self.check_write(target)
        commit = self._finder.commit(target.repo, revision)
        files = []
        for file in (await request.read_json()).get("files", []):
            path, size = str(file["path"]), int(file["size"])
            sample = base64.b64decode(file.get("sample") or "")
            shown: dict[str, Any] = {"path": path, "uploadMode": _upload_mode(path, size, sample), "shouldIgnore": False}
            try:
                entry = self._storage.entry(commit, path)
                if not entry.is_directory:
                    shown["oid"] = entry.sha256 or entry.oid
            except NotFound:
                pass  # a new file has no oid
            files.append(shown)
        return json_response({"files": files, "commitOid": commit.oid})

    async def commit(self, target: Target, request: Request, revision: str) -> Response:
        self.check_write(target)
        with await request.spool(self._storage.temporary, COMMIT_BYTES_MAX) as file:
            commit, ref = await trio.to_thread.run_sync(self._commit, target, file, revision, request.flag("create_pr"))
        url = f"{self._urls.hub}{target.repo.content_path}/commit/{commit.oid}"
        shown: dict[str, Any] = {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""}
        if ref.startswith("refs/pr/"):
            shown["pullRequestUrl"] = f"{self._urls.hub}{target.repo.content_path}/discussions/{ref.rpartition('/')[2]}"
        return json_response(shown)

    def _commit(self, target: Target, file: IO[bytes], revision: str, create_pr: bool) -> tuple[Commit, str]:
        repo = target.repo
        header, files, deleted_files, deleted_folders = self._read_operations(file)
        with self._storage.transaction():
            if create_pr:
                ref = self._storage.new_pull_request(repo, self._finder.commit(repo, header.get("parentCommit") or revision))[1]
            else:
                found = self._storage.resolve_ref(repo, revision)
                if found is None or found.startswith("refs/tags/"):
                    raise Problem(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
                ref = found
                parent = header.get("parentCommit")
                if parent and not self._storage.commit(repo, ref).oid.startswith(parent):
                    raise Problem(412, "A commit has happened since. Please refresh and try again.")
            try:
                commit = self._storage.commit_files(
                    repo,
                    files,
                    deleted_files=deleted_files,
                    deleted_folders=deleted_folders,
                    branch=ref,
                    title=str(header.get("summary", "")),
                    message=str(header.get("description", "")),
                    author=target.caller.name,
                )
            except XetfsError as error:
                raise Problem(400, str(error)) from error
        return commit, ref

    def _read_operations(self, file: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes | StoredFile], list[str], list[str]]:
        header: dict[str, Any] = {}
        files: dict[str, bytes | StoredFile] = {}
        deleted: dict[str, list[str]] = {"deletedFile": [], "deletedFolder": []}
        for line in file:
            try:
                operation = json.loads(line)
                key, value = operation["key"], operation["value"]
                if key == "header":
                    header = dict(value)
                elif key == "file":
                    content = value["content"]
                    files[_checked_path(value["path"])] = (
                        base64.b64decode(content) if value.get("encoding", "base64") == "base64" else content.encode()
                    )
                elif key == "lfsFile":
                    files[_checked_path(value["path"])] = self._stored_file(value)
                elif key in deleted:
                    deleted[key].append(str(value["path"]))
                else:
                    raise Problem(400, f"an operation this hub does not know: {key!r:.40}")
            except (ValueError, KeyError, TypeError) as error:
                raise Problem(400, f"not an operation of a commit: {error!r:.200}") from error
        if not header.get("summary"):
            raise Problem(400, "a commit needs a summary")
        return header, files, deleted["deletedFile"], deleted["deletedFolder"]

    def _stored_file(self, value: dict[str, Any]) -> StoredFile:
        held = self._storage.lfs(str(value["oid"]))
        if held is None:
            raise Problem(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
        if "size" in value and value["size"] != held.size:
            raise Problem(400, f"{value['path']} is of {held.size} bytes, not {value['size']}")
        return StoredFile(held.sha256, held.size)

    # LFS

    async def lfs_batch(self, target: Target, request: Request) -> Response:
        """`POST /owner/name.git/info/lfs/objects/batch`."""
        asked = await request.read_json()
        upload = asked.get("operation") == "upload"
        if upload:
            self.check_write(target)
        else:
            self._accounts.check_content(target.caller, target.repo)
        transfer = (
            "multipart"
            if upload and "multipart" in asked.get("transfers", []) and self._options.multipart_upload_bytes
            else "basic"
        )
        try:
            objects = [
                self._lfs_object(target, str(item["oid"]), int(item["size"]), upload, transfer) for item in asked["objects"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(400, f"not an LFS batch: {error!r:.200}") from error
        return Response(200, [("Content-Type", LFS_MEDIA)], [json.dumps({"transfer": transfer, "objects": objects}).encode()])

    def _lfs_object(self, target: Target, oid: str, size: int, upload: bool, transfer: str) -> dict[str, Any]:
        if len(oid) != 64 or any(c not in "0123456789abcdef" for c in oid):
            raise ValueError("not a SHA-256")
        shown: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        held = self._storage.lfs(oid)
        if upload:
            if held is None:
                verify = {"href": f"{self._urls.hub}{target.repo.content_path}.git/info/lfs/verify"}
                shown["actions"] = {"upload": self._upload_action(oid, size, transfer), "verify": verify}
            return shown
        if held is None or self._storage.row("SELECT 1 FROM repo_lfs WHERE repo = ? AND sha256 = ?", target.repo.id, oid) is None:
            return {**shown, "error": {"code": 404, "message": "Object does not exist"}}
        shown["actions"] = {"download": {"href": self.download_url(oid, held.file_id)}}
        return shown

    def _upload_action(self, oid: str, size: int, transfer: str) -> dict[str, Any]:
        expires_s = self._options.url_expiry_s()
        path = f"/uploads/{oid}"
        part_bytes = self._options.multipart_upload_bytes
        if transfer == "basic" or part_bytes is None or size <= part_bytes:
            return {"href": self._signer.sign_url(self._urls.transfer, path, expires_s, query=f"size={size}")}
        header = {"chunk_size": str(part_bytes)}
        for part in range(math.ceil(size / part_bytes)):
            header[str(part + 1)] = self._signer.sign_url(self._urls.transfer, f"{path}/{part + 1}", expires_s)
        query = f"size={size}&parts={math.ceil(size / part_bytes)}"
        return {"href": self._signer.sign_url(self._urls.transfer, f"{path}/complete", expires_s, query=query), "header": header}

    async def lfs_verify(self, target: Target, request: Request) -> Response:
        self.check_write(target)
        asked = await request.read_json()
        held = self._storage.lfs(str(asked.get("oid")))
        if held is None or held.size != asked.get("size"):
            raise Problem(404, "Object does not exist")
        return json_response({})

    def download_url(self, sha256: str, file_id: bytes | None, name: str = "") -> str:
        """A signed URL of a whole object: the bridge for Xet files, the object itself otherwise."""
        path = f"/bridge/{sha256}" if file_id is not None else f"/lfs/{sha256}"
        query = f"response-content-disposition={quote(disposition(name), safe='')}" if name else ""
        return self._signer.sign_url(self._urls.transfer, path, self._options.url_expiry_s(), query=query)


def disposition(name: str) -> str:
    """Content-Disposition for a file of any name: in full as RFC 8187 encodes it, and for old clients as RFC 6266's plain
    `filename`, where whatever could end the string or the header line becomes `_`."""
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    return f"inline; filename*=UTF-8''{quote(name.encode('utf-8', 'surrogatepass'))}; filename=\"{plain}\";"


def _upload_mode(path: str, size: int, sample: bytes) -> str:
    """Text of moderate size is plain; what looks binary, is called like data, or is large is LFS."""
    if size == 0:
        return "regular"
    if PurePosixPath(path).suffix.lower() in _LFS_SUFFIXES or size > PLAIN_FILE_BYTES_MAX or b"\0" in sample:
        return "lfs"
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return "regular" if error.start > len(sample) - 4 else "lfs"  # a character cut at the end of the sample
    return "regular"


def _checked_path(path: object) -> str:
    parts = str(path).split("/")
    if not isinstance(path, str) or any(part in ("", ".", "..") for part in parts) or "\0" in path or parts[0] == ".git":
        raise Problem(400, f"not a path in a repo: {path!r:.200}")
    return path
