"""`xetfs mount REPO DIR`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xetfs.cli.arguments import path_argument
from xetfs.cli.daemon import Failed, Ready, Started, run_in_background
from xetfs.cli.exits import Exit
from xetfs.config import DEFAULT_CACHE_SIZE, Choices, hub_from, settings_from
from xetfs.errors import InvalidArgument, MachineUnfit, XetfsError
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import RepoRef
from xetfs.settings import Settings

if TYPE_CHECKING:
    pass

WAIT_S: Final = 90.0
"""Limit for the whole way to a listed directory; the parts have limits of their own, which add up to less."""
CHECK_S: Final = 10.0
"""Limit for judging the directory to mount on; only another file system that hangs reaches it."""
FUSE_CONF: Final = Path("/etc/fuse.conf")

EPILOG: Final = """\
REPO is [datasets/|spaces/]owner/name[/subfolder][@revision] or, as in hf:// URIs,
owner/name[@revision][/subfolder]; the revision is a branch, a tag, a commit, refs/pr/N or
refs/convert/parquet (default: main).

The Hub's variables are honoured: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_OFFLINE,
HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_DISABLE_XET.

examples:
  xetfs mount openai-community/gpt2 /mnt/gpt2
  xetfs mount datasets/squad@refs/convert/parquet /mnt/squad --cache-size 50G
  xetfs mount Qwen/Qwen3-8B /mnt/qwen --prefetch 'tokenizer*' --prefetch '*.safetensors'
"""


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What is to be mounted where. prefetch: globs of the files to fetch unasked. log: None for stderr."""

    ref: RepoRef
    path: Path
    hub: Hub
    settings: Settings
    allow_other: bool
    prefetch: tuple[str, ...]
    verbose: bool
    log: Path | None


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "mount",
        help="show a repo as a read-only directory",
        description="Show a Hugging Face repo as a read-only directory. Returns when DIR can be listed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("repo", metavar="REPO", help="what to mount")
    parser.add_argument("directory", metavar="DIR", type=path_argument, help="an empty directory")
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground and log to stderr")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every request")
    parser.add_argument("--log-file", metavar="FILE", type=path_argument, help="log here rather than under ~/.local/state/xetfs")
    parser.add_argument("--cache-dir", metavar="DIR", type=path_argument, help="where to keep what was fetched (~/.cache/xetfs)")
    parser.add_argument("--cache-size", metavar="SIZE", help=f"how much of it to keep, such as 500M or 1T ({DEFAULT_CACHE_SIZE})")
    parser.add_argument("--no-cache", action="store_true", help="keep nothing on disk; what was read is fetched again later")
    parser.add_argument(
        "--trust-cache-dir",
        action="store_true",
        help="use the cache directory although others may write to it: they decide what you read",
    )
    parser.add_argument("--offline", action="store_true", help="make no request; serve what is in the cache")
    parser.add_argument(
        "--verify",
        choices=("auto", "proof", "off"),
        default="auto",
        help="auto: prove what is read where the server offers proofs; proof: give out no byte without one; "
        "off: check lengths only (auto)",
    )
    parser.add_argument(
        "--prefetch",
        metavar="GLOB",
        action="append",
        default=[],
        help="once mounted, fetch the files whose path in the repo matches into the cache, in the background; "
        "as 'hf download --include': * goes across /; may be given several times",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", type=path_argument, help="read the Hub token from here, again when it changes"
    )
    parser.add_argument(
        "--allow-private-hosts",
        action="store_true",
        help="follow a public Hub to hosts at private addresses (company networks, VPNs)",
    )
    parser.add_argument("--allow-other", action="store_true", help="let other users of this machine read the mount")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from xetfs.cli import log as logs
    from xetfs.cli.state import log_file

    ref = RepoRef.parse(arguments.repo)
    if "" in arguments.prefetch:
        raise InvalidArgument("--prefetch is empty", hint="'*' is every file")
    if arguments.prefetch and arguments.no_cache:
        raise InvalidArgument("--prefetch fills the cache, and --no-cache has none", hint="leave out one of them")
    choices = Choices(
        cache_dir=arguments.cache_dir,
        cache_size=arguments.cache_size,
        cache=not arguments.no_cache,
        trust_cache_dir=arguments.trust_cache_dir,
        token_file=arguments.token_file,
        allow_private_hosts=arguments.allow_private_hosts,
        offline=arguments.offline,
        verify=arguments.verify,
    )
    hub, settings = hub_from(choices, os.environ), settings_from(choices, os.environ)
    # Nothing is made before all of this is known to be usable: what is refused leaves no trace.
    path = check_mountpoint(arguments.directory)
    log: Path | None = None
    if not arguments.foreground or arguments.log_file is not None:
        log = arguments.log_file.absolute() if arguments.log_file is not None else log_file(path, os.environ)
    check_places(path, settings.store.cache_dir, log)
    if arguments.allow_other:
        check_allow_other(hub)
    os.umask(0o077)
    if log is not None:
        logs.open_log(log)
    plan = MountPlan(ref, path, hub, settings, arguments.allow_other, tuple(arguments.prefetch), arguments.verbose, log)
    if log is None or arguments.foreground:
        serve(plan, tell)
        return Exit.OK
    try:
        started = run_in_background(partial(serve, plan), log=log, wait_s=WAIT_S)
    except Failed as failure:
        _clear_dead_mount(path)
        print(f"xetfs: {failure}", file=sys.stderr)
        return failure.code
    tell(replace(started, message=f"{started.message}; log: {log}"))
    return Exit.OK


def tell(started: Started) -> None:
    print(started.message, flush=True)
    for warning in started.warnings:
        print(f"xetfs: warning: {warning}", file=sys.stderr, flush=True)


def check_mountpoint(directory: Path) -> Path:
    """Check that a directory can be mounted on, and that this machine can mount; the path to mount on.

    Raises MountpointUnusable, MachineUnfit. Waits for a foreign file system that hangs there, but not for ever.
    """
    from xetfs.fs import mountpoint as outside

    found: list[Path | XetfsError] = []

    def check() -> None:
        try:
            outside.check_machine()
            found.append(outside.check(directory))
        except XetfsError as exc:
            found.append(exc)

    asking = threading.Thread(target=check, daemon=True)
    asking.start()
    asking.join(CHECK_S)
    if not found:
        raise outside.does_not_answer(directory)
    if isinstance(found[0], XetfsError):
        raise found[0]
    return found[0]


def check_places(mountpoint: Path, cache_dir: Path | None, log: Path | None) -> None:
    """Raises InvalidArgument when something that the mount needs would lie under it, where it could not be reached any more."""
    from xetfs.cli.state import state_dir

    places = (
        ("the cache directory", cache_dir, "name another with --cache-dir"),
        ("the log", log, "name another with --log-file"),
        ("the record of the mount", state_dir(os.environ), "set XDG_STATE_HOME to a directory elsewhere"),
    )
    for what, place, hint in places:
        if place is not None and Path(os.path.realpath(place)).is_relative_to(mountpoint):
            raise InvalidArgument(f"{what} {place} would lie inside the mount", hint=hint)


def check_allow_other(hub: Hub) -> None:
    """Raises MachineUnfit when this user may not let others in; warns when that lends them a token."""
    if os.geteuid() != 0 and not _user_allow_other():
        raise MachineUnfit("--allow-other is not allowed here", hint=f"add the line 'user_allow_other' to {FUSE_CONF}")
    if hub.credentials is not None:
        print("xetfs: warning: --allow-other lets every user of this machine read what your token can", file=sys.stderr)


def _user_allow_other() -> bool:
    try:
        return "user_allow_other" in (line.strip() for line in FUSE_CONF.read_text().splitlines())
    except OSError:
        return False


def serve(plan: MountPlan, ready: Ready) -> None:
    """Mount and serve until it is unmounted; everything that is heavy is loaded here."""
    from xetfs.cli.log import configure
    from xetfs.cli.process import prepare_process

    prepare_process()
    configure(plan.log, verbose=plan.verbose)
    try:
        import trio

        from xetfs.cli.job import MountJob
    except ImportError as exc:
        if "fuse" not in f"{exc.name} {exc}":
            raise MachineUnfit(f"a library is missing: {exc}", hint="install xetfs again") from None
        raise MachineUnfit(f"pyfuse3 cannot be loaded: {exc}", hint="install libfuse3: apt install fuse3 libfuse3-3") from None
    trio.run(MountJob(plan, ready).run)


def _clear_dead_mount(path: Path) -> None:
    """After a child that had to be killed: nothing stays mounted."""
    from xetfs.fs import mountpoint as outside

    mount = outside.mount_at(path)
    if mount is not None and mount.fs_type == outside.FS_TYPE and outside.state_of(path) == "dead":
        outside.unmount(path, lazily=True)
