"""Arguments and environment → Hub and Settings.

The variables are those of huggingface_hub (utils/_auth.py, constants.py), so that what works there works here; a token comes
from a variable or a file, never from an argument, which every user of the machine could read. Everything is judged here, before
anything is started: a value that cannot be is one line and exit code 2.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from xetfs.credentials import Credentials, FixedToken, checked_token, open_token_file
from xetfs.errors import InvalidArgument
from xetfs.hub.endpoint import PUBLIC_ENDPOINT, Hub, checked_endpoint
from xetfs.net.origins import HostPolicy
from xetfs.secret import Secret
from xetfs.settings import PROXY_SCHEMES, NetSettings, ReaderSettings, Settings, StoreSettings
from xetfs.units import MIB

DEFAULT_CACHE_SIZE: Final = "20G"
CACHE_BYTES_MIN: Final = 64 * MIB
"""Least budget of the store: below a few windows of a reader it would only turn over."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the arguments say; None where they say nothing."""

    cache_dir: Path | None = None
    cache_size: str | None = None
    cache: bool = True
    trust_cache_dir: bool = False
    token_file: Path | None = None
    offline: bool = False
    verify: Literal["auto", "proof", "off"] = "auto"
    allow_private_hosts: bool = False


def hub_from(choices: Choices, env: Mapping[str, str]) -> Hub:
    """The Hub to ask, with the user's token. Raises InvalidArgument."""
    allow_private = choices.allow_private_hosts or _is_set(env, "XETFS_ALLOW_PRIVATE_HOSTS")
    return Hub(find_endpoint(env), find_credentials(choices.token_file, env), HostPolicy(allow_private=allow_private))


def settings_from(choices: Choices, env: Mapping[str, str]) -> Settings:
    """Raises InvalidArgument. Paths come out absolute, as a daemon changes its directory."""
    offline = choices.offline or _is_set(env, "HF_HUB_OFFLINE") or _is_set(env, "TRANSFORMERS_OFFLINE")
    if offline and not choices.cache:
        raise InvalidArgument("offline, with --no-cache there is nothing to serve", hint="leave out one of them")
    return Settings(
        offline=offline,
        xet=not _is_set(env, "HF_HUB_DISABLE_XET"),
        reader=ReaderSettings(verify=choices.verify),
        store=StoreSettings(
            cache_bytes_max=_cache_bytes(choices.cache_size or DEFAULT_CACHE_SIZE),
            cache_dir=find_cache_dir(choices, env),
            cache_trusted=choices.trust_cache_dir,
        ),
        net=NetSettings(
            # Requests never go from https down to http, so an https Hub needs no http proxy, and that variable may be anything.
            http_proxy=find_proxy("http", env) if find_endpoint(env).startswith("http:") else None,
            https_proxy=find_proxy("https", env),
            no_proxy=tuple(_first(env, "no_proxy", "NO_PROXY").replace(",", " ").split()),
            ca_paths=find_ca_paths(env),
            multirange=_is_set(env, "HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING"),
        ),
    )


def find_cache_dir(choices: Choices, env: Mapping[str, str]) -> Path | None:
    """Where the cache lies, or None for none. Raises InvalidArgument."""
    if choices.cache:
        return (choices.cache_dir or own_base_dir(env, "XDG_CACHE_HOME", ".cache") / "xetfs").absolute()
    if choices.cache_dir is not None or choices.cache_size is not None or choices.trust_cache_dir:
        raise InvalidArgument("--no-cache leaves no cache to choose", hint="leave out --cache-dir and the like")
    return None


def own_base_dir(env: Mapping[str, str], variable: str, default: str) -> Path:
    """The same for what this process makes: of root's own home where root has the environment of somebody else.

    `sudo -E` and `su` keep HOME, and what root made there would be in its owner's way.
    """
    found = base_dir(env, variable, default)
    if os.geteuid() == 0 and not _is_roots(found):
        with suppress(KeyError):
            return Path(pwd.getpwuid(0).pw_dir) / default
    return found


def _is_roots(path: Path) -> bool:
    """Whether a directory, or what is there of those above it, belongs to root."""
    for each in (path, *path.parents):
        with suppress(OSError):
            return each.stat().st_uid == 0
    return True


def base_dir(env: Mapping[str, str], variable: str, default: str) -> Path:
    """A base directory as XDG has it: the variable if it is an absolute path, otherwise `default` under the home directory."""
    value = Path(env.get(variable, ""))
    if value.is_absolute():
        return value
    try:
        return Path.home() / default
    except RuntimeError:
        raise InvalidArgument("there is no home directory", hint=f"set HOME or {variable}") from None


def parse_size(text: str) -> int:
    """`20G`, `20Gi`, `20GiB` and `20gb` are 20 · 2³⁰ bytes, `500M` likewise. Raises InvalidArgument."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"not a size: {text!r:.80}", hint="write 500M, 20G or 1T")
    return int(float(found[1]) * 1024 ** _POWER[found[2].lower()])


def _cache_bytes(text: str) -> int:
    size = parse_size(text)
    if size < CACHE_BYTES_MIN:
        raise InvalidArgument(f"--cache-size {text} is too small", hint=f"at least {CACHE_BYTES_MIN // MIB}M")
    return size


def find_endpoint(env: Mapping[str, str]) -> str:
    """HF_ENDPOINT or the public Hub, without a slash at the end; it may have a path. Raises InvalidArgument."""
    return checked_endpoint(env.get("HF_ENDPOINT") or PUBLIC_ENDPOINT, "HF_ENDPOINT")


def find_credentials(token_file: Path | None, env: Mapping[str, str]) -> Credentials | None:
    """The Hub token: --token-file, HF_TOKEN, or the file that `hf auth login` writes. Both files are read again when they change.

    Raises InvalidArgument, which never shows a token.
    """
    if token_file is not None:
        found = open_token_file(token_file, "--token-file")
        if found is None:
            if token_file.exists():
                raise InvalidArgument("--token-file does not hold a token", hint="it is empty")
            raise InvalidArgument(f"--token-file {token_file} does not exist")
        return found
    if _is_set(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        text = env.get(variable, "").strip()
        if text:
            return FixedToken(checked_token(text, variable))
    home = Path(env["HF_HOME"]).expanduser() if env.get("HF_HOME") else base_dir(env, "XDG_CACHE_HOME", ".cache") / "huggingface"
    path = Path(env["HF_TOKEN_PATH"]).expanduser() if env.get("HF_TOKEN_PATH") else home / "token"
    return open_token_file(path, f"the token file {path}")


def find_proxy(scheme: Literal["http", "https"], env: Mapping[str, str]) -> Secret | None:
    """The proxy for URLs of that scheme, from the usual variables. Raises InvalidArgument, which does not show it."""
    # HTTP_PROXY in capitals is not read: a web server sets it from a request's header.
    names = ("https_proxy", "HTTPS_PROXY") if scheme == "https" else ("http_proxy",)
    name = next((name for name in (*names, "all_proxy", "ALL_PROXY") if env.get(name, "").strip()), None)
    if name is None:
        return None
    text = env[name].strip()
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgument(
            f"{name} is not a proxy that can be used",
            hint="expected http://host:port or socks5://host:port, user:password@ before the host if need be",
        )
    return Secret(text)


def find_ca_paths(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Files and directories of certificates to trust, from OpenSSL's variables, else from those of requests and curl.

    SSL_CERT_DIR may name several directories, of which some may be missing. Raises InvalidArgument.
    """
    file, directories = env.get("SSL_CERT_FILE", ""), [part for part in env.get("SSL_CERT_DIR", "").split(os.pathsep) if part]
    if not file and not directories:
        file = _first(env, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    if file and not Path(file).exists():
        raise InvalidArgument(f"the file of certificates does not exist: {Path(file).absolute()}", hint="see SSL_CERT_FILE")
    found = [Path(part) for part in (file, *directories) if part and Path(part).exists()]
    if directories and not found:
        raise InvalidArgument(f"the directory of certificates does not exist: {directories[0]}", hint="see SSL_CERT_DIR")
    return tuple(path.absolute() for path in found)


def _first(env: Mapping[str, str], *names: str) -> str:
    return next((env[name] for name in names if env.get(name)), "")


def _is_set(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").upper() in _TRUE
