"""Settings by the names of their fields, whatever section these are in: tests mostly choose two or three of all."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from xetfs.settings import MountSettings, NetSettings, ReaderSettings, Settings, StoreSettings

SECTIONS = {"net": NetSettings, "store": StoreSettings, "reader": ReaderSettings, "mount": MountSettings}


def flat_settings(**chosen: Any) -> Settings:
    """Settings with these fields, such as flat_settings(attempts_max=2). Raises TypeError for a name that no section has."""
    nested: dict[str, dict[str, Any]] = {"store": {"cache_dir": Path("/nonexistent")}}
    top: dict[str, Any] = {}
    for name, value in chosen.items():
        sections = [section for section, kind in SECTIONS.items() if name in {each.name for each in fields(kind)}]
        if len(sections) > 1:
            raise TypeError(f"{name} is in more than one section: {sections}")
        (nested.setdefault(sections[0], {}) if sections else top)[name] = value
    return Settings(**top, **{name: SECTIONS[name](**values) for name, values in nested.items()})
