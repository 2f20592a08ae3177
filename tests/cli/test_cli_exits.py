from __future__ import annotations

import errno
import os

import pytest

from xetfs import errors
from xetfs.cli.daemon import describe
from xetfs.cli.exits import EXIT, MEANING, Exit, cause_of, exit_of, table


def leaves(kind: type[BaseException]) -> list[type[BaseException]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


@pytest.mark.parametrize("kind", leaves(errors.XetfsError), ids=lambda kind: kind.__name__)
def test_every_error_has_its_own_code(kind: type[errors.XetfsError]) -> None:
    assert kind in EXIT
    assert exit_of(kind("what happened")) == EXIT[kind] != Exit.OK


def test_codes_are_below_those_of_the_shell_and_explained() -> None:
    assert set(MEANING) == set(Exit) - {Exit.INTERRUPTED}
    assert max(MEANING) < 126
    assert all(f"  {code:<4}{meaning}" in table() for code, meaning in MEANING.items())


def test_anything_else_is_a_bug() -> None:
    assert exit_of(ValueError()) == Exit.BUG


def test_the_cause_of_a_group_is_its_bug_or_its_first_error() -> None:
    missing, slow = errors.RepoNotFound("a"), errors.Unavailable("b")
    assert cause_of(missing) is missing
    assert cause_of(ExceptionGroup("", [ExceptionGroup("", [missing]), slow])) is missing
    bug = KeyError()
    assert cause_of(ExceptionGroup("", [missing, ExceptionGroup("", [bug])])) is bug


@pytest.mark.parametrize(
    ("exc", "what"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "not enough memory"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x"), "too many open files"),
        (ExceptionGroup("", [OSError(errno.ENFILE, os.strerror(errno.ENFILE))]), "too many open files"),
        (RuntimeError("can't start new thread"), "not enough threads"),
    ],
)
def test_what_a_machine_has_too_little_of_is_no_bug(exc: Exception, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = describe(exc)
    assert code == Exit.MACHINE
    assert message.startswith(f"{what}; raise the limit")
    assert capsys.readouterr().err == ""
