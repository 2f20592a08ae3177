"""Settings by the names of their fields, whatever section these are in, and the Hub to ask: tests mostly choose two or three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from xetfs import repo
from xetfs.hub.endpoint import Hub
from xetfs.net.origins import HostPolicy
from xetfs.repo import Engine
from xetfs.settings import MountSettings, NetSettings, ReaderSettings, Settings, StoreSettings

SECTIONS = {"net": NetSettings, "store": StoreSettings, "reader": ReaderSettings, "mount": MountSettings}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings(Settings):
    """Settings, and the one Hub that is asked with them."""

    hub: Hub


def flat_settings(**chosen: Any) -> Settings:
    """Settings with these fields, such as flat_settings(attempts_max=2). Raises TypeError for a name that no section has.

    endpoint, credentials, allow_private_hosts: those of the Hub that `open_engine` below opens repos of.
    """
    nested: dict[str, dict[str, Any]] = {"store": {"cache_dir": Path("/nonexistent")}}
    top: dict[str, Any] = {}
    if "endpoint" in chosen:
        hosts = HostPolicy(allow_private=chosen.pop("allow_private_hosts", False))
        top["hub"] = Hub(chosen.pop("endpoint"), chosen.pop("credentials", None), hosts)
    for name, value in chosen.items():
        sections = [section for section, kind in SECTIONS.items() if name in {each.name for each in fields(kind)}]
        if len(sections) > 1:
            raise TypeError(f"{name} is in more than one section: {sections}")
        (nested.setdefault(sections[0], {}) if sections else top)[name] = value
    kind = HubSettings if "hub" in top else Settings
    return kind(**top, **{name: SECTIONS[name](**values) for name, values in nested.items()})


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """An engine that opens repos of the Hub that the settings were made with, where a test names no other."""
    async with repo.open_engine(settings) as engine:
        if isinstance(settings, HubSettings):
            engine.open_repo = partial(engine.open_repo, hub=settings.hub)  # type: ignore[method-assign]
        yield engine
