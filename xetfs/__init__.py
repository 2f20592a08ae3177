"""Hugging Face models and datasets as plain read-only files; docs/architecture.md shows the house.

`open` and the names of the public interface (xetfs/api) are loaded when they are first used: `import xetfs` costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from xetfs.api import Engine, FileReader, Hub, RepoRef, RepoView, Settings, open_engine
    from xetfs.api.blocking import open

__all__ = ["Engine", "FileReader", "Hub", "RepoRef", "RepoView", "Settings", "__version__", "open", "open_engine"]


def __getattr__(name: str) -> object:
    if name not in __all__:  # such as a submodule that is not loaded yet
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("xetfs.api.blocking" if name == "open" else "xetfs.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
