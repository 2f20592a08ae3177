from __future__ import annotations

import pytest
import trio
from loopback import Authority, Names, make_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def names() -> Names:
    service = Names()
    trio.socket.set_custom_hostname_resolver(service)
    return service
