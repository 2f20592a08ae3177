"""Types of arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def path_argument(text: str) -> Path:
    """Return a path. The empty text is refused: it would be the working directory, and comes from a variable that is unset."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, not an empty text")
    return Path(text)
