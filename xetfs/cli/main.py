"""The entry of the `xetfs` command: which command is meant, and how it ends.

Every command ends by its return value or by an exception, which becomes one line on stderr and an exit code here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from xetfs import __version__
from xetfs.cli import hub, mount, status, umount, verify
from xetfs.cli.daemon import describe
from xetfs.cli.exits import Exit, cause_of, table
from xetfs.cli.redact import redact
from xetfs.cli.streams import lost_output, open_streams

COMMANDS: Final = {
    "mount": mount.add_parser,
    "umount": umount.add_parser,
    "status": status.add_parser,
    "verify": verify.add_parser,
    "hub": hub.add_parser,
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and which option was probably meant."""

    def parse_known_args(  # type: ignore[override]  # of several overloads, the one that is called
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = re.findall(r"--[a-z-]+", self.format_usage())
            self.error(f"unknown argument {unknown[0]!r:.80}{_meant(unknown[0].partition('=')[0], options)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"{self.prog}: {redact(message)}; see '{self.prog} --help'\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xetfs",
        description="Hugging Face models and datasets as plain read-only files; only what is read is fetched.",
        epilog=f"exit codes:\n{table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xetfs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, parser_class=Parser)
    for add_parser in COMMANDS.values():
        add_parser(commands)
    # Whether the command's product is what it prints, so that it has failed when that is lost.
    parser.set_defaults(reports=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code, and never raises."""
    open_streams()
    reports = True
    try:
        parser = build_parser()
        parsed = parser.parse_args(_check_command(parser, sys.argv[1:] if argv is None else list(argv)))
        reports = parsed.reports
        code: int = parsed.run(parsed)
    except SystemExit as exc:  # --help, --version, and wrong usage
        code = exc.code if isinstance(exc.code, int) else Exit.OK
    except BaseException as exc:
        if isinstance(cause_of(exc), KeyboardInterrupt):
            return Exit.INTERRUPTED
        code, message = describe(exc)
        print(f"xetfs: {message}", file=sys.stderr)
    lost = lost_output()
    if lost and reports and code == Exit.OK:
        print(f"xetfs: standard output cannot be written: {lost}", file=sys.stderr)
        return Exit.MACHINE
    return code


def _check_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments; name the command that was probably meant, which argparse does not."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command is None or command in COMMANDS:
        return arguments
    parser.error(f"unknown command {command!r:.80}{_meant(command, COMMANDS)}")


def _meant(typed: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(typed, list(known), n=1)
    return f", did you mean '{near[0]}'?" if near else ""
