"""The control endpoint, at /_testhub/ of the Hub origin: what tests in other processes need. JSON in and out; never logged.

GET    /_testhub/                 the three URLs
GET    /_testhub/requests         records since the last reset, and totals (?origin=cas)
DELETE /_testhub/requests         forget them
POST   /_testhub/faults           add a rule: the fields of faults.Fault, but `rewrite`
GET    /_testhub/faults           the rules, with how often each fired
DELETE /_testhub/faults           remove all
PUT    /_testhub/shape            the fields of shaping.Shape
GET    /_testhub/options          the fields of options.HubOptions
PUT    /_testhub/options          those to change
POST   /_testhub/users            {"name", "admin", "organizations"}
POST   /_testhub/tokens           {"token", "user", "role"}; DELETE likewise {"token"}
POST   /_testhub/repos            {"kind", "name", "private", "gated", "disabled", "alias", "grant"}: changes one that exists
POST   /_testhub/refuse           {"origin", "seconds"}: connections are refused for so long (the Hub origin included)
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import trio

from xetfs.errors import RepoNotFound
from xetfs.testhub.faults import Fault
from xetfs.testhub.messages import Problem, Request, Response, json_response
from xetfs.testhub.shaping import Shape

if TYPE_CHECKING:
    from xetfs.testhub.hub import TestHub
    from xetfs.testhub.server import OriginServer

CONTROL_PREFIX: Final = "/_testhub"


class Control:
    """The handler of the control endpoint."""

    def __init__(self, hub: TestHub, nursery: trio.Nursery) -> None:
        self._hub = hub
        self._nursery = nursery

    async def answer(self, request: Request) -> Response:
        hub = self._hub
        asked = await request.read_json() if request.method in ("POST", "PUT", "DELETE") else {}
        try:
            match request.method, request.segments[1:]:
                case "GET", ():
                    return json_response({"endpoint": hub.endpoint, "cas": hub.cas_url, "transfer": hub.transfer_url})
                case "GET", ("requests",):
                    origin = request.argument("origin") or None
                    records = [record.to_json() for record in hub.log.records(origin)]  # type: ignore[arg-type]
                    return json_response({"requests": records, "totals": hub.log.totals()})
                case "DELETE", ("requests",):
                    hub.log.reset()
                case "GET", ("faults",):
                    return json_response([fault.describe() for fault in hub.faults.rules])
                case "POST", ("faults",):
                    hub.faults.add(Fault(**{name: value for name, value in asked.items() if name != "rewrite"}))
                case "DELETE", ("faults",):
                    hub.faults.clear()
                case "PUT", ("shape",):
                    hub.shape = Shape(**asked)
                case "GET", ("options",):
                    return json_response(asdict(hub.options))
                case "PUT", ("options",):
                    hub.options.change(asked)
                case "POST", ("users",):
                    hub.accounts.add_user(
                        asked["name"], admin=bool(asked.get("admin")), organizations=tuple(asked.get("organizations", ()))
                    )
                case "POST", ("tokens",):
                    hub.accounts.add_token(asked["token"], asked["user"], asked.get("role", "write"))
                case "DELETE", ("tokens",):
                    hub.accounts.remove_token(asked["token"])
                case "POST", ("repos",):
                    self._change_repo(asked)
                case "POST", ("refuse",):
                    self._nursery.start_soon(_refuse, hub.servers[asked["origin"]], float(asked["seconds"]))
                case _:
                    raise Problem(404, "no such control")
        except (TypeError, KeyError, ValueError, RepoNotFound) as error:
            raise Problem(400, f"not understood: {error!r:.200}") from error
        return json_response({})

    def _change_repo(self, asked: dict[str, Any]) -> None:
        storage = self._hub.storage
        repo = storage.require_repo(asked.get("kind", "model"), asked["name"])
        storage.update_repo(repo, private=asked.get("private"), gated=asked.get("gated"), disabled=asked.get("disabled"))
        if asked.get("alias"):
            storage.add_old_name(repo, asked["alias"])
        if asked.get("grant"):
            self._hub.accounts.grant_access(repo, asked["grant"])


async def _refuse(server: OriginServer, seconds: float) -> None:
    await trio.sleep(0.05)  # the answer to whoever asked for this must leave first
    server.refuse()
    await trio.sleep(seconds)
    server.listen()
