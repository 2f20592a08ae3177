"""Libraries and system calls give the same results on a mount as on the plain files."""

from __future__ import annotations

import pytest
import software_probes
from mount_user import Mount
from software_runs import Software, compare, probing


@pytest.mark.parametrize("name", software_probes.PROBES)
def test_a_library_reads_the_same(software: Software, mount: Mount, name: str) -> None:
    with probing(name) as probe:
        compare(mount, software.plain, probe)
