"""Answers made to exhaust memory: an error, and no more than 64 MiB beyond what the process had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hostile_memory import CASES, MIB, SENT_MAX

EXTRA_BYTES_MAX = 64 * MIB
PROGRAM = Path(__file__).with_name("hostile_memory.py")


@pytest.mark.parametrize("case", [*CASES, "chunks that claim much from little"])
def test_hostile_answers_take_little_memory(case: str) -> None:
    done = subprocess.run([sys.executable, PROGRAM, case], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    outcome, grown, sent = done.stdout.split()
    # What the range was cut out of may be as long as it likes: the rest of it is not read.
    assert outcome == ("accepted" if case == "endless data in place of a range" else "ProtocolViolation")
    assert int(grown) <= EXTRA_BYTES_MAX
    assert int(sent) < SENT_MAX
