"""The Hub origin: which handler answers which path, and the API that makes, moves and removes repos and refs.

Source: Hub API as used by huggingface_hub, hf_api.py.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from xetfs.errors import InvalidArgument
from xetfs.protocol.names import RepoId, RepoKind, check_revision
from xetfs.testhub.accounts import Accounts
from xetfs.testhub.content import Content
from xetfs.testhub.hub_paths import KINDS, Finder, Moved, Target
from xetfs.testhub.listings import Listings, iso_time
from xetfs.testhub.messages import Problem, Request, Response, json_response, redirect
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.quotas import Quotas
from xetfs.testhub.signing import Grant, Signer
from xetfs.testhub.storage import Storage
from xetfs.testhub.uploads import Uploads


class HubApi:
    """The handler of the Hub origin."""

    def __init__(self, storage: Storage, accounts: Accounts, signer: Signer, options: HubOptions, urls: HubUrls) -> None:
        self._storage = storage
        self._accounts = accounts
        self._signer = signer
        self._options = options
        self._urls = urls
        self._quotas = Quotas(options)
        self._finder = Finder(storage, accounts)
        self._listings = Listings(storage, self._finder, options, urls)
        self._uploads = Uploads(storage, accounts, self._finder, signer, options, urls)
        self._content = Content(storage, accounts, self._finder, self._uploads, options, urls)

    async def answer(self, request: Request) -> Response:
        prefix = self._options.path_prefix
        if prefix:
            if not request.path.startswith(f"{prefix}/"):
                raise Problem(404, "Not Found")
            request = replace(request, target=request.target.removeprefix(prefix))
        refusal = self._quotas.refusal(request)
        return refusal or self._quotas.tell(request, await self._answer(request))

    async def _answer(self, request: Request) -> Response:
        try:
            if not request.segments:
                return json_response({"hub": "xetfs test hub"})
            return await (self._api(request) if request.segments[0] == "api" else self._files(request))
        except Moved as moved:
            return redirect(307, moved.location)
        except Problem as problem:
            return problem.to_response()

    async def _files(self, request: Request) -> Response:
        if len(request.segments) < 2:
            raise Problem(404, "Not Found")
        target = self._finder.content_target(request)
        match request.method, target.word, target.rest:
            case "GET" | "HEAD", "resolve", _:
                return self._content.resolve(target, request)
            case "GET" | "HEAD", "raw", _:
                return self._content.raw(target, request)
            case "POST", "info", ("lfs", "objects", "batch"):
                return await self._uploads.lfs_batch(target, request)
            case "POST", "info", ("lfs", "verify"):
                return await self._uploads.lfs_verify(target, request)
        raise Problem(404, "Not Found")

    async def _api(self, request: Request) -> Response:
        match request.method, request.segments[1:]:
            case "GET", ("whoami-v2",):
                return self._whoami(request)
            case "POST", ("repos", "create"):
                return await self._create_repo(request)
            case "DELETE", ("repos", "delete"):
                return await self._delete_repo(request)
            case "POST", ("repos", "move"):
                return await self._move_repo(request)
            case "POST", ("validate-yaml",):
                return json_response({"errors": [], "warnings": []})
            case _, ("telemetry", *_):
                return json_response({})
            case "GET" | "HEAD", ("resolve-cache", *_):
                return self._content.resolve_cache(request)
            case "GET", (kinds,) if kinds in KINDS:
                caller = self._accounts.caller(request)
                repos = [repo for repo in self._storage.repos(KINDS[kinds]) if self._accounts.may_see(caller, repo)]
                return self._listings.repos(request, kinds, repos)
            case _, (kinds, _, *_) if kinds in KINDS:
                return await self._repo(request, self._finder.api_target(request))
        raise Problem(404, "Not Found")

    async def _repo(self, request: Request, target: Target) -> Response:
        match request.method, target.word, target.rest:
            case "GET", "", ():
                return self._listings.info(target, request, "main")
            case "GET", "revision", (revision,):
                return self._listings.info(target, request, revision)
            case "GET", "tree", (revision, *path):
                return self._listings.tree(target, request, revision, "/".join(path).strip("/"))
            case "POST", "paths-info", (revision,):
                return await self._listings.paths_info(target, request, revision)
            case "GET", "refs", ():
                return self._listings.refs(target, request)
            case "GET", "commits", (revision,):
                return self._listings.commits(target, request, revision)
            case "GET", "xet-read-token", (revision,):
                return self._xet_token(target, revision)
            case "GET", "xet-write-token", _:
                return self._xet_write_token(target)
            case "GET", "auth-check", _:
                self._accounts.check_content(target.caller, target.repo)
                return json_response({})
            case "POST", "preupload", (revision,):
                return await self._uploads.preupload(target, request, revision)
            case "POST", "commit", (revision,):
                return await self._uploads.commit(target, request, revision)
            case "PUT", "settings", ():
                return await self._change_settings(target, request)
            case "POST" | "DELETE" as method, "branch" | "tag", (name,):
                self._uploads.check_write(target)
                return await (self._add_ref(target, request, name) if method == "POST" else self._delete_ref(target, name))
        raise Problem(404, "Not Found")

    # Tokens

    def _xet_token(self, target: Target, revision: str) -> Response:
        self._accounts.check_content(target.caller, target.repo)
        self._finder.commit(target.repo, revision)
        return self._grant(Grant(target.repo.id, "read", self._options.token_expiry_s()))

    def _xet_write_token(self, target: Target) -> Response:
        self._uploads.check_write(target)
        return self._grant(Grant(target.repo.id, "write", self._options.token_expiry_s()))

    def _grant(self, grant: Grant) -> Response:
        token = self._signer.make_token(grant)
        cas_url = self._options.cas_url or self._urls.cas
        headers = [
            ("X-Xet-Cas-Url", cas_url),
            ("X-Xet-Access-Token", token),
            ("X-Xet-Token-Expiration", str(grant.expires_s)),
        ]
        return json_response({"casUrl": cas_url, "accessToken": token, "exp": grant.expires_s}, headers=headers)

    def _whoami(self, request: Request) -> Response:
        caller = self._accounts.caller(request)
        if not caller.name:
            raise Problem(401, "Invalid username or password.")
        return json_response(
            {
                "type": "user",
                "id": caller.name,
                "name": caller.name,
                "fullname": caller.name,
                "email": f"{caller.name}@localhost",
                "orgs": [{"type": "org", "id": name, "name": name, "fullname": name} for name in caller.organizations],
                "auth": {
                    "type": "access_token",
                    "accessToken": {"displayName": "testhub", "role": caller.role, "createdAt": iso_time(0)},
                },
            }
        )

    # Repos

    async def _create_repo(self, request: Request) -> Response:
        asked = await request.read_json()
        caller = self._accounts.caller(request)
        kind = _kind(asked)
        owner = str(asked.get("organization") or caller.name)
        self._accounts.check_write(caller, owner)
        name = _repo_name(kind, f"{owner}/{asked.get('name')}")
        private = bool(asked.get("private")) or asked.get("visibility") in ("private", "protected")
        prefix = "" if kind == "model" else f"/{kind}s"
        shown = {"url": f"{self._urls.hub}{prefix}/{name}", "name": name}
        try:
            repo = self._storage.create_repo(kind, name, private=private, author=caller.name)
        except sqlite3.IntegrityError:
            return json_response({"error": f"You already created this {kind} repo", **shown}, 409)
        return json_response({**shown, "id": f"{repo.id:024x}"})

    async def _delete_repo(self, request: Request) -> Response:
        asked = await request.read_json()
        caller = self._accounts.caller(request)
        owner = str(asked.get("organization") or caller.name)
        repo = self._finder.find(caller, _kind(asked), f"{owner}/{asked.get('name')}")
        self._accounts.check_write(caller, repo.name.partition("/")[0])
        self._storage.delete_repo(repo)
        return json_response({})

    async def _move_repo(self, request: Request) -> Response:
        asked = await request.read_json()
        caller = self._accounts.caller(request)
        kind = _kind(asked)
        repo = self._finder.find(caller, kind, str(asked.get("fromRepo")))
        name = _repo_name(kind, str(asked.get("toRepo")))
        for owner in (repo.name, name):
            self._accounts.check_write(caller, owner.partition("/")[0])
        try:
            self._storage.move_repo(repo, name)
        except sqlite3.IntegrityError as error:
            raise Problem(409, f"there is a {kind} repo {name} already") from error
        return json_response({})

    async def _change_settings(self, target: Target, request: Request) -> Response:
        self._uploads.check_write(target)
        asked = await request.read_json()
        gated = asked.get("gated")
        if gated not in (None, False, "auto", "manual"):
            raise Problem(400, "gated is one of false, auto, manual")
        private = asked["visibility"] == "private" if "visibility" in asked else asked.get("private")
        self._storage.update_repo(target.repo, private=private, gated=(gated or "") if gated is not None else None)
        return json_response({"private": private, "gated": gated})

    # Refs

    async def _add_ref(self, target: Target, request: Request, name: str) -> Response:
        asked = await request.read_json()
        if target.word == "branch":
            ref, start = f"refs/heads/{name}", str(asked.get("startingPoint") or "main")
            if name.startswith("refs/"):
                ref = name
        else:
            ref, start = f"refs/tags/{asked.get('tag')}", name
        try:
            check_revision(ref)
        except InvalidArgument as error:
            raise Problem(400, str(error)) from error
        commit = self._finder.commit(target.repo, start)
        if ref in self._storage.refs(target.repo):
            raise Problem(409, f"Reference {ref} already exists")
        self._storage.set_ref(target.repo, ref, commit.oid)
        return json_response({})

    async def _delete_ref(self, target: Target, name: str) -> Response:
        ref = f"refs/heads/{name}" if target.word == "branch" else f"refs/tags/{name}"
        if ref not in self._storage.refs(target.repo):
            raise Problem(404, f"Invalid rev id: {name}", code="RevisionNotFound")
        if ref == "refs/heads/main":
            raise Problem(403, "the branch main is protected")
        self._storage.delete_ref(target.repo, ref)
        return json_response({})


def _kind(asked: dict[str, Any]) -> RepoKind:
    kind = KINDS.get(f"{asked.get('type') or 'model'}s")
    if kind is None:
        raise Problem(400, "type is one of model, dataset, space")
    return kind


def _repo_name(kind: RepoKind, name: str) -> str:
    try:
        return RepoId(kind, name).name
    except InvalidArgument as error:
        raise Problem(400, str(error)) from error
