"""The public interface: everything that a program may rely on when it uses xetfs as a library.

For programs on trio: an engine is opened, then repos of any Hub, then files.

    async with open_engine(settings_from_env()) as engine:
        view = await engine.open_repo(RepoRef.parse("openai-community/gpt2"), hub_from_env())
        with view.open_file(await view.find("config.json")) as reader:
            data = await reader.read(ByteRange(0, reader.size))

For all others there is `xetfs.api.blocking`. Names, signatures and meanings of what stands in `__all__` change only with a line
in CHANGELOG.md; what has a leading underscore, or stands elsewhere in the package, may change at any time. Errors are those of
`errors`, and trio.TooSlowError where a deadline of the settings has passed. Metrics are those of `telemetry`.
"""

from xetfs import errors, telemetry
from xetfs.api.environment import hub_from_env, settings_from_env
from xetfs.credentials import Credentials, FixedToken, open_token_file
from xetfs.hub.endpoint import Hub
from xetfs.net.origins import HostPolicy
from xetfs.protocol.names import CommitId, RepoId, RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.repo.engine import Engine, EngineStatistics, open_engine
from xetfs.repo.verify import Verdict
from xetfs.repo.view import FileDetails, Node, RepoView
from xetfs.secret import Secret
from xetfs.settings import NetSettings, ReaderSettings, Settings, StoreSettings

__all__ = [
    "ByteRange",
    "CommitId",
    "Credentials",
    "Engine",
    "EngineStatistics",
    "FileDetails",
    "FileReader",
    "FixedToken",
    "HostPolicy",
    "Hub",
    "Level",
    "NetSettings",
    "Node",
    "ReaderSettings",
    "RepoId",
    "RepoRef",
    "RepoView",
    "Secret",
    "Settings",
    "StoreSettings",
    "Verdict",
    "errors",
    "hub_from_env",
    "open_engine",
    "open_token_file",
    "settings_from_env",
    "telemetry",
]
