"""`xetfs verify REPO|PATH`: prove a whole file, folder or repo."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xetfs.cli.arguments import path_argument
from xetfs.cli.exits import Exit, exit_of
from xetfs.cli.status import describe, duration, printable, size
from xetfs.config import Choices, hub_from, settings_from
from xetfs.errors import InvalidArgument, MountpointUnusable, Unavailable
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import RepoRef, parse_commit_id
from xetfs.settings import Settings
from xetfs.telemetry import NET_BYTES, READER_CORRUPT_WINDOWS, STORE_CORRUPT

if TYPE_CHECKING:
    from xetfs.repo.verify import Report

OPEN_S: Final = 45.0
PROGRESS_INTERVAL_S: Final = 0.25
WRONG_SHOWN_MAX: Final = 50
"""Files that are listed for people; --json has them all."""

DESCRIPTION: Final = """\
Prove a file, a folder or a whole repo against the names that the Hub lists for its content: the file id over
all chunks, the SHA-256 of LFS files, the git id of plain ones. Every byte is read: from the cache where it
is held, otherwise fetched. What was wrong in the cache is replaced.
"""
EPILOG: Final = """\
The argument is [datasets/|spaces/]owner/name[/path][@revision], or a path in a mounted repo.

examples:
  xetfs verify openai-community/gpt2
  xetfs verify openai-community/gpt2/model.safetensors@main --deep
  xetfs verify /mnt/gpt2 --json

exit codes: 0 everything is right; 8 something is not what its name says; otherwise as 'xetfs --help'
says of the first file that could not be checked.
"""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "verify",
        help="verify files against their hashes",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", metavar="REPO|PATH", help="what to prove")
    parser.add_argument("--deep", action="store_true", help="compute the SHA-256 of files in Xet too, where it is listed")
    parser.add_argument("--json", action="store_true", help="report for programs")
    parser.add_argument("-v", "--verbose", action="store_true", help="log to stderr")
    parser.add_argument("--cache-dir", metavar="DIR", type=path_argument, help="where to keep what was fetched")
    parser.add_argument("--cache-size", metavar="SIZE", help="how much of it to keep")
    parser.add_argument("--trust-cache-dir", action="store_true", help="use it although others may write to it")
    parser.add_argument("--offline", action="store_true", help="make no request; check what is in the cache")
    parser.add_argument(
        "--token-file", metavar="FILE", type=path_argument, help="read the Hub token from here, again when it changes"
    )
    parser.add_argument(
        "--allow-private-hosts",
        action="store_true",
        help="follow a public Hub to hosts at private addresses (company networks, VPNs)",
    )
    parser.set_defaults(run=run, reports=True)


def run(arguments: argparse.Namespace) -> int:
    choices = Choices(
        cache_dir=arguments.cache_dir,
        cache_size=arguments.cache_size,
        trust_cache_dir=arguments.trust_cache_dir,
        token_file=arguments.token_file,
        allow_private_hosts=arguments.allow_private_hosts,
        offline=arguments.offline,
    )
    # Parts are proven on the way where they can be: what a run that is broken off leaves in the cache is as sure as a mount's.
    hub, settings = hub_from(choices, os.environ), settings_from(choices, os.environ)
    settings = replace(settings, reader=replace(settings.reader, whole_checks=False))
    mountpoint = find_mount(arguments.what)
    if mountpoint is None:
        target = RepoRef.parse(arguments.what)
    else:
        document = ask_mount(mountpoint, os.environ)
        target = target_in(document, Path(arguments.what), mountpoint)
        settings = settings_like(document, hub, settings, choices)
    _log(verbose=arguments.verbose)

    import trio

    return trio.run(_verify, target, hub, settings, arguments.deep, arguments.json)


def _log(*, verbose: bool) -> None:
    import logging

    from xetfs.cli.log import configure

    configure(None, verbose=verbose)
    if not verbose:  # the report says what came of it
        logging.getLogger("xetfs").setLevel(logging.CRITICAL)


# What is meant


def find_mount(text: str) -> Path | None:
    """The mount of ours that a path lies in; None if the argument is no path, but the name of a repo.

    Raises MountpointUnusable for what can only be a path, and lies in none.
    """
    from xetfs.fs import mountpoint as outside

    is_path = text.startswith(("/", "./", "../")) or text in (".", "..")
    if not is_path and not os.path.lexists(text):
        return None
    path = outside.resolve(Path(text))
    found = [mount.path for mount in outside.mounts() if mount.fs_type == outside.FS_TYPE and path.is_relative_to(mount.path)]
    if found:
        return Path(max(found, key=len))
    if is_path:
        raise MountpointUnusable(f"{text} does not lie in a mount of xetfs", hint="'xetfs status' lists them")
    return None


def ask_mount(mountpoint: Path, env: Mapping[str, str]) -> Mapping[str, Any]:
    """What a mount tells of itself. Raises MountpointUnusable if it does not."""
    from xetfs.cli.state import MountRecord, record_file

    record = MountRecord.read(record_file(mountpoint, env))
    document = describe(record) if record is not None else {"state": "dead or another user's"}
    if document["state"] != "serving":
        raise MountpointUnusable(
            f"the mount at {mountpoint} is {document['state']}", hint="name the repo rather than the path: xetfs verify REPO"
        )
    return document


def target_in(document: Mapping[str, Any], path: Path, mountpoint: Path) -> RepoRef:
    """A path in a mount, of a file or a folder, as what it is in the repo.

    The commit is that of the mount, whatever its revision is by now.
    """
    from xetfs.fs import mountpoint as outside

    ref = RepoRef.parse(f"{document['repo']}@{parse_commit_id(document['commit'])}")
    parts = [document["subfolder"], *outside.resolve(path).relative_to(mountpoint).parts]
    return replace(ref, subfolder="/".join(part for part in parts if part))


def settings_like(document: Mapping[str, Any], hub: Hub, settings: Settings, choices: Choices) -> Settings:
    """The cache of the mount, unless another was chosen. Raises InvalidArgument if the mount is of another Hub: this
    environment's token is not for that one."""
    if document["endpoint"] != hub.endpoint:
        raise InvalidArgument("that mount is of another Hub", hint=f"set HF_ENDPOINT={document['endpoint']}, and its token")
    if choices.cache_dir is not None or document["cache_dir"] is None:
        return settings
    bytes_max = settings.store.cache_bytes_max if choices.cache_size is not None else int(document["cache_bytes_max"])
    store = replace(settings.store, cache_dir=Path(document["cache_dir"]), cache_bytes_max=bytes_max)
    return replace(settings, store=store)


# Doing it


async def _verify(target: RepoRef, hub: Hub, settings: Settings, deep: bool, as_json: bool) -> int:
    import trio

    from xetfs.control.report import describe_report
    from xetfs.repo import open_engine
    from xetfs.repo.verify import Report, files_under, verify_files

    begin = time.monotonic()
    report = Report()
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count

    async with open_engine(settings) as engine, trio.open_nursery() as nursery:
        if sys.stderr.isatty():
            nursery.start_soon(_show_progress, report, lambda: done)
        with trio.move_on_after(OPEN_S) as limit:
            view, node = await engine.open_path(target, hub)
        if limit.cancelled_caught:
            raise Unavailable(f"{target}: no answer from the Hub within {OPEN_S:g} s", hint="check the network")
        files = await files_under(view, node)
        await verify_files(view, engine.shelf, files, report, deep=deep, on_bytes=on_bytes)
        nursery.cancel_scope.cancel()
    document = describe_report(report, view, node.path, deep=deep)
    for failure in document["failures"]:
        failure["message"] = printable(failure["message"])
    document["fetched_bytes"] = engine.counters[NET_BYTES]
    document["dropped_blocks"] = engine.counters[STORE_CORRUPT]
    document["refused_answers"] = engine.counters[READER_CORRUPT_WINDOWS]
    document["seconds"] = round(time.monotonic() - begin, 3)
    document["exit"] = code = int(exit_code(report))
    print(json.dumps(document, indent=2) if as_json else in_words(document))
    sys.stdout.flush()
    return code


def exit_code(report: Report) -> Exit:
    """Corrupt data before everything else, otherwise the first error."""
    if report.kinds["corrupt"]:
        return Exit.DATA
    errors = (verdict.error for verdict in report.wrong if verdict.error is not None)
    return next((exit_of(error) for error in errors), Exit.OK)


async def _show_progress(report: Report, done: Callable[[], int]) -> None:
    """One line on the terminal, again and again, and none at the end."""
    import trio

    try:
        while True:
            checked = report.kinds.total()
            line = f"{checked} of {report.files} files, {size(max(done(), 0))} of {size(report.bytes)}"
            print(f"\r\x1b[K{line if report.files else 'listing…'}", end="", file=sys.stderr, flush=True)
            await trio.sleep(PROGRESS_INTERVAL_S)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def in_words(document: Mapping[str, Any]) -> str:
    place = f"{document['repo']}{'/' if document['path'] else ''}{document['path']}"
    lines = []
    for failure in document["failures"][:WRONG_SHOWN_MAX]:
        word = "CORRUPT" if failure["kind"] == "corrupt" else "not checked"
        lines.append(f"{word}: {printable(failure['path'])}: {failure['message']}")
    if len(document["failures"]) > WRONG_SHOWN_MAX:
        lines.append(f"… and {len(document['failures']) - WRONG_SHOWN_MAX} more; --json lists them all")
    counts = [f"{document['right']} of {document['files']} files right"]
    counts += [f"{document[kind]} {word}" for kind, word in _SHOWN if document[kind]]
    lines.append(f"{printable(place)} ({document['commit'][:12]}): {', '.join(counts)}")
    names = ", ".join(f"{count} by {_NAMES[kind]}" for kind, count in document["names"].items() if count)
    lines.append(
        f"{size(document['bytes'])} in {duration(document['seconds'])}, {size(document['fetched_bytes'])} fetched"
        + (f"; proven {names}" if names else "")
    )
    return "\n".join(lines)


_SHOWN: Final = (
    ("corrupt", "corrupt"),
    ("failed", "not to be had"),
    ("unchecked", "given up"),
    ("nameless", "without a name to check"),
    ("replaced", "were wrong in the cache and are replaced"),
    ("dropped_blocks", "blocks of the cache were no good and are dropped"),
    ("refused_answers", "times wrong data came from the network"),
)
_NAMES: Final = {"file_id": "file id", "sha256": "SHA-256", "git_oid": "git id"}
