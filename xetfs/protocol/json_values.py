"""JSON from a server, read strictly: what is not exactly as promised is a ProtocolViolation, and nothing else is ever raised.

Python's own reader is more generous than a wire format should be: `true` is an int, `NaN` a number, a repeated name overwrites
the first, UTF-16 is guessed, a deep nesting is a RecursionError. Fields that are not asked for are ignored, whatever they hold:
the services add some now and then.
"""

from __future__ import annotations

import json
from typing import Final

from xetfs.errors import ProtocolViolation

INT_MAX: Final = 2**53
"""Largest number believed: JSON's own limit for exact integers, and far above any file size."""

VALUES_MAX: Final = 250_000
"""Values of one answer, about: each takes up to 250 bytes of memory and may take two of the wire. A page of 1000 entries has some
20,000 of them, a reconstruction of 10,000 terms or a proof of 64 Ki nodes not quite 200,000."""
WIDE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest text with other characters than those of ASCII: one of them can make the whole text four times as large."""
TEXT_SHOWN_MAX: Final = 20
TEXT_START: Final = 12
"""Longest text that a message repeats, and what it repeats of a longer one: less than any credential."""
_SEPARATORS: Final = (b",", b"[", b"{")


def load_json(body: bytes, what: str) -> object:
    """Decode a JSON text in UTF-8. `what` names the answer in messages. Raises ProtocolViolation.

    The caller bounds the length of `body`; here it is seen to that what comes out takes no more than some 60 MiB.
    """
    if sum(map(body.count, _SEPARATORS)) > VALUES_MAX or (len(body) > WIDE_BYTES_MAX and not body.isascii()):
        raise ProtocolViolation(f"{what}: far more than such an answer can hold, in {len(body)} bytes")
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise ProtocolViolation(f"{what}: nested too deeply") from error
    except ValueError as error:  # malformed JSON, malformed UTF-8, a number of thousands of digits, and the two hooks below
        raise ProtocolViolation(f"{what}: not the JSON it should be: {error!s:.120}") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):  # which of the two counts would depend on the reader
        raise ValueError("a name occurs twice in one object")
    return members


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a number")


def as_object(value: object, what: str) -> dict[str, object]:
    if type(value) is not dict:
        raise ProtocolViolation(f"{what}: expected an object, got {shown(value)}")
    return value


def as_list(value: object, what: str, *, count_max: int) -> list[object]:
    if type(value) is not list:
        raise ProtocolViolation(f"{what}: expected a list, got {shown(value)}")
    if len(value) > count_max:
        raise ProtocolViolation(f"{what}: {len(value)} entries, more than {count_max}")
    return value


def as_int(value: object, what: str, *, least: int = 0, most: int = INT_MAX) -> int:
    """An integer within [least, most]; a bool, a float or a number in quotes is none."""
    if type(value) is not int or not least <= value <= most:
        raise ProtocolViolation(f"{what}: expected an integer from {least} to {most}, got {shown(value)}")
    return value


def as_bool(value: object, what: str) -> bool:
    if type(value) is not bool:
        raise ProtocolViolation(f"{what}: expected true or false, got {shown(value)}")
    return value


def as_text(value: object, what: str, *, length_max: int) -> str:
    """A string of 1 to length_max characters."""
    if type(value) is not str or not 0 < len(value) <= length_max:
        raise ProtocolViolation(f"{what}: expected a text of at most {length_max} characters, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """A few words about a value, for a message: never a whole list, never thousands of digits, and never a long text whole, as it
    may be a token or a signature in the wrong place."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"{value!r}" if len(value) <= TEXT_SHOWN_MAX else f"{value[:TEXT_START]!r}… ({len(value)} characters)"
    if isinstance(value, int | float) and abs(value) < 2**64:
        return repr(value)
    return f"a {type(value).__name__}"
