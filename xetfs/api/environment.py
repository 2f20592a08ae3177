"""The Hub and the settings that the environment of this process describes, as the command line reads them."""

from __future__ import annotations

import os

from xetfs.config import Choices, hub_from, settings_from
from xetfs.hub.endpoint import Hub
from xetfs.settings import Settings


def hub_from_env() -> Hub:
    """Return the Hub of HF_ENDPOINT with the user's token: HF_TOKEN, or the file that `hf auth login` writes, followed as it
    changes. Raises InvalidArgument."""
    return hub_from(Choices(), os.environ)


def settings_from_env() -> Settings:
    """Return settings with the cache directory, proxies, certificates and switches of the environment's variables.

    `dataclasses.replace` changes them. Raises InvalidArgument.
    """
    return settings_from(Choices(), os.environ)
