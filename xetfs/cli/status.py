"""`xetfs status [DIR]`: the status of your mounts."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from xetfs.cli.arguments import path_argument
from xetfs.cli.exits import Exit
from xetfs.cli.redact import redact
from xetfs.cli.state import MountRecord, all_records
from xetfs.cli.umount import mounted_elsewhere
from xetfs.errors import MountpointUnusable, XetfsError
from xetfs.telemetry import NET_BYTES, NET_REQUESTS, READER_CORRUPT_WINDOWS, READER_WHOLE_WRONG

Document = Mapping[str, Any]

DESCRIPTION: Final = """\
Show the status of each of your mounts: what it serves, what it has read and fetched, how the files that were
read are verified, and how full the cache is. States: serving; silent (its process runs but does not answer);
dead (its process has ended, the directory is still mounted: 'xetfs umount DIR'); detached (unmounted, but its
process still serves what is open or mounted elsewhere); unknown (it has left no record).
"""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "status",
        help="show the status of your mounts",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", type=path_argument, nargs="?", help="only the mount at this directory")
    parser.add_argument("--json", action="store_true", help='print {"mounts": [...]}, for programs')
    parser.set_defaults(run=run, reports=True)


def run(arguments: argparse.Namespace) -> int:
    from xetfs.fs import mountpoint as outside

    path = outside.resolve(arguments.directory) if arguments.directory is not None else None
    found = list(describe_mounts(os.environ, path))
    if path is not None and not found:
        raise MountpointUnusable(f"no mount of yours is at {path}", hint="'xetfs status' lists them")
    if arguments.json:
        print(json.dumps({"mounts": found}, indent=2))
    else:
        print("\n\n".join(in_words(document) for document in found) or "nothing is mounted")
    return Exit.MOUNTPOINT if path is not None and found[0]["state"] != "serving" else Exit.OK


def describe_mounts(env: Mapping[str, str], only: Path | None) -> Iterator[Document]:
    """Yield the status of this user's mounts, by mount point, each with a `state`; of those that do not answer, only what their
    records say."""
    from xetfs.fs import mountpoint as outside

    mine = (0, None) if os.geteuid() == 0 else (os.geteuid(),)
    devices = {mount.path: mount.device for mount in outside.mounts() if mount.fs_type == outside.FS_TYPE and mount.owner in mine}
    records = {record.mountpoint: record for record in all_records(env)}
    # A bind mount of one that has a record is a part of that, and no mount of its own.
    parts = {path for path, device in devices.items() if path not in records and _has_record(device, records.values())}
    for path in sorted((set(devices) - parts) | {path for path, record in records.items() if record.is_running()}):
        if only is None or path == str(only):
            record = records.get(path)
            if record is None:
                yield {"state": "unknown", "mountpoint": path}
            elif record.device and record.is_running() and devices.get(path) != record.device:
                yield {**describe(record), "state": "detached", "held_by": list(mounted_elsewhere(record.device))}
            else:
                yield describe(record)


def _has_record(device: str, records: Iterable[MountRecord]) -> bool:
    return any(record.device == device and record.is_running() for record in records)


def describe(record: MountRecord) -> Document:
    """The status of one mount, from its process if that answers."""
    from xetfs.control.client import ask

    known = {"mountpoint": record.mountpoint, "repo": record.repo, "commit": record.commit, "pid": record.pid}
    if not record.is_running():
        return {"state": "dead", **known}
    if not record.control:
        return {"state": "silent", **known, "reason": "it has no control socket"}
    try:
        document = ask(Path(record.control), "status")
    except XetfsError as exc:
        return {"state": "silent", **known, "reason": redact(str(exc))}
    return {"state": "serving", **document}


# In words


def in_words(document: Document) -> str:
    lines = [f"{printable(document['mountpoint'])}: {document['state']}"]
    if "repo" in document:
        folder = f"/{document['subfolder']}" if document.get("subfolder") else ""
        revision = f"@{document['revision']}" if "revision" in document else ""
        lines.append(f"  repo      {printable(document['repo'] + folder + revision)} ({document['commit'][:12]})")
    if "counters" not in document:
        if "pid" in document:
            lines.append(f"  process   {document['pid']}")
        if document.get("reason"):
            lines.append(f"  reason    {printable(document['reason'])}")
        if document["state"] == "dead":
            lines.append(f"  to do     xetfs umount {printable(document['mountpoint'])}, or mount it again")
        return "\n".join(lines)
    return "\n".join([*lines, *_details(document)])


def _details(document: Document) -> Iterator[str]:
    if document["state"] == "detached":
        yield f"  held by   {printable(', '.join(document['held_by']) or 'what programs have open')}"
    counters, store, memory = document["counters"], document["store"], document["memory"]
    yield f"  process   {document['pid']}, for {duration(document['uptime_s'])}, {size(memory['resident_bytes'])} of memory"
    fetched, requests = counters.get(NET_BYTES, 0), counters.get(NET_REQUESTS, 0)
    yield f"  fetched   {size(fetched)} in {requests} requests"
    levels = ", ".join(f"{count} {level}" for level, count in document["files"].items() if count)
    yield f"  verified  {levels or 'nothing read yet'} (--verify {document['verify']})"
    for place, reason in list(document.get("detours", {}).items())[:DETOURS_SHOWN_MAX]:
        yield f"  NOT XET   {printable(place)} is read through the Hub, without proof: {printable(reason)}"
    if document.get("prefetch"):
        yield f"  prefetch  {prefetch_in_words(document['prefetch'])}"
    wrong = counters.get(READER_CORRUPT_WINDOWS, 0) + counters.get(READER_WHOLE_WRONG, 0)
    if wrong:
        yield f"  CORRUPT   {wrong} responses failed verification; see the log"
    failing = f", {store['state']}: {printable(store['failure'])}" if store["state"] != "ok" else ""
    where = f"in {printable(document['cache_dir'])}" if document["cache_dir"] is not None else "in memory (--no-cache)"
    yield f"  cache     {size(store['bytes'])} of {size(store['bytes_max'])} {where}{failing}"


DETOURS_SHOWN_MAX: Final = 5
"""Lines about what is not read from a CAS; --json has them all."""
_PREFETCH_WORDS: Final = {
    "waiting": ", waiting",
    "done": ", done",
    "full": ", stopped",
    "failed": ", failed",
    "cancelled": ", cancelled",
}


def prefetch_in_words(progress: Document) -> str:
    """How far it is, and why it does not go on."""
    globs = printable(" ".join(progress["globs"]))
    if progress["state"] == "matching":
        return f"choosing files ({globs})"
    words = f"{size(progress['bytes_done'])} of {size(progress['bytes'])}, {progress['files_done']} of {progress['files']} files"
    words += f" ({globs}){_PREFETCH_WORDS.get(progress['state'], '')}"
    if progress["files_failed"]:
        words += f", {progress['files_failed']} left out"
    if progress["unmatched"]:
        words += f", nothing matches {printable(' '.join(progress['unmatched']))}"
    return f"{words}: {printable(progress['reason'])}" if progress["reason"] else words


def printable(text: object) -> str:
    """Names come from anywhere: nothing may move the cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in redact(str(text)))


def size(count: int) -> str:
    """2.5 MiB, 300 B."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """5 s, 3 min, 2 h 5 min, 4 d 1 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if not minutes:
        return f"{seconds:.0f} s"
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if not days else f"{days} d {hours % 24} h"
