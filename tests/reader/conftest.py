"""Makes the doubles of this directory importable, and its fixtures known."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest_reader import cas, inline_threads, make_file

__all__ = ["cas", "inline_threads", "make_file"]
