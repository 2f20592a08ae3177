"""A mounted repo against plain files, driven by Hypothesis through one mount.

XETFS_MODEL_OPERATIONS says how many operations, XETFS_MODEL_SEED which; the seed of a run is printed.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import MountModel, Session, Wrong
from stage import Stage, staged, staging

OPERATIONS = int(os.environ.get("XETFS_MODEL_OPERATIONS", "10000"))
SEED = int(os.environ.get("XETFS_MODEL_SEED", random.SystemRandom().randrange(2**32)))
STEPS = 120
"""Operations of one run of the machine."""
RUNS = 4
"""Runs for which one seed is good."""

ALL = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    verbosity=Verbosity.quiet,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(120 + OPERATIONS // 20)
def test_a_mount_does_what_plain_files_do() -> None:
    print(f"XETFS_MODEL_SEED={SEED}")
    with staging("model") as base, staged(base) as stage_of:
        stage = Stage(stage_of, "mount")
        session = Session(stage_of, stage)
        try:
            stage.start()
            number = SEED
            while session.operations < OPERATIONS:
                machine = seed(number)(lambda: MountModel(session))
                run_state_machine_as_test(machine, settings=ALL)
                number += 1
            session.close()
        except Wrong as exc:
            print("\n".join(["What was done last:", *session.journal, "The end of the daemon's log:", stage.log()[-5000:]]))
            pytest.fail(str(exc))
        finally:
            session.faulter.close()
            stage.clean_up()
    print(f"{session.operations} operations, {session.failures} of them failed as faults allow: {session.done}")
    assert min(session.done.get(name, 0) for name in ("remount", "evict", "fault", "mmap", "pread")) > 0
    assert session.done["fault"] >= OPERATIONS // 200
