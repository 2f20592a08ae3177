from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from flat_settings import flat_settings
from hypothesis import given
from hypothesis import strategies as st

from xetfs.cli.redact import redact
from xetfs.config import Choices, hub_from, parse_size, settings_from
from xetfs.errors import InvalidArgument
from xetfs.hub.endpoint import Hub
from xetfs.settings import Settings

TOKEN = "hf_canaryCanary"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path)}


def settings(env: Mapping[str, str], **choices: object) -> Settings:
    return settings_from(Choices(**choices), env)  # type: ignore[arg-type]


def hub(env: dict[str, str], **choices: object) -> Hub:
    return hub_from(Choices(**choices), env)  # type: ignore[arg-type]


def token_of(found: Hub) -> str | None:
    token = trio.run(found.credentials.token) if found.credentials is not None else None
    return token.reveal() if token is not None else None


def test_without_anything(home: dict[str, str], tmp_path: Path) -> None:
    found = settings(home)
    assert found == flat_settings(cache_dir=tmp_path / "xetfs")
    assert (found.offline, found.store.cache_bytes_max) == (False, 20 << 30)
    assert hub(home) == Hub("https://huggingface.co")


def test_the_cache_lies_in_the_home_directory_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings({}).store.cache_dir == tmp_path / ".cache/xetfs"
    assert settings({"XDG_CACHE_HOME": "relative/is/ignored"}).store.cache_dir == tmp_path / ".cache/xetfs"
    monkeypatch.chdir(tmp_path)
    assert settings({}, cache_dir=Path("here")).store.cache_dir == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1k", 1024),
        ("20G", 20 << 30),
        ("20Gi", 20 << 30),
        ("20GiB", 20 << 30),
        ("20 gb", 20 << 30),
        ("1.5T", 3 << 39),
        ("500M", 500 << 20),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "20X", "1e9", "0x10", "20G20", "1.G", "١G", "20G\n5"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a size"):
        parse_size(text)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        assert parse_size(text) >= 0


def test_a_cache_that_would_only_turn_over(home: dict[str, str]) -> None:
    assert settings(home, cache_size="64M").store.cache_bytes_max == 64 << 20
    with pytest.raises(InvalidArgument, match="too small; at least 64M"):
        settings(home, cache_size="63M")


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000",
        "https://hub.example",
        "https://hub.example:8443/",
        "http://[::1]:80",
        "https://hub.example/artifactory/api/huggingfaceml/repo/",
    ],
)
def test_endpoints(home: dict[str, str], text: str) -> None:
    assert hub({**home, "HF_ENDPOINT": text}).endpoint == text.rstrip("/")


def test_an_empty_variable_says_nothing(home: dict[str, str]) -> None:
    empty = dict.fromkeys(
        ["HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_OFFLINE", "HTTPS_PROXY", "SSL_CERT_FILE"], ""
    )
    assert settings({**home, **empty}) == settings(home)


@pytest.mark.parametrize(
    "text",
    [
        "hub.example",
        "ftp://hub",
        "https://",
        "https://user:pw@hub",
        "https://hub/path/../x",
        "https://hub//path",
        "https://hub/path?x=1",
        "https://hub/path#x",
        "https://hub?x=1",
        "https://hub?",
        "http://h:99999",
        "x y",
    ],
)
def test_what_is_not_an_endpoint(home: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match="HF_ENDPOINT") as caught:
        settings({**home, "HF_ENDPOINT": text})
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("text", ["1", "on", "YES", "True"])
@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_by_variable(home: dict[str, str], name: str, text: str) -> None:
    assert settings({**home, name: text}).offline


def test_offline_by_argument_only_when_said(home: dict[str, str]) -> None:
    assert settings(home, offline=True).offline
    assert not settings({**home, "HF_HUB_OFFLINE": "0"}).offline


def test_several_ranges_in_one_request_are_a_choice(home: dict[str, str]) -> None:
    assert not settings(home).net.multirange
    assert settings({**home, "HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "true"}).net.multirange


# Tokens, in the order in which they count


def test_tokens_are_looked_for_in_order(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "huggingface").mkdir()
    env = dict(home)

    def add(name: str, value: str) -> None:
        env[name] = value
        assert token_of(hub(env)) == value

    (tmp_path / "huggingface/token").write_text("hf_default\n")
    assert token_of(hub(env)) == "hf_default"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text(" hf_home ")
    env["HF_HOME"] = str(tmp_path / "home")
    assert token_of(hub(env)) == "hf_home"
    (tmp_path / "path").write_text("hf_path")
    env["HF_TOKEN_PATH"] = str(tmp_path / "path")
    assert token_of(hub(env)) == "hf_path"
    add("HUGGING_FACE_HUB_TOKEN", "hf_old_variable")
    add("HF_TOKEN", "hf_variable")
    (tmp_path / "file").write_text("hf_file\r\n")
    assert token_of(hub(env, token_file=tmp_path / "file")) == "hf_file"


def test_found_tokens_can_be_switched_off(home: dict[str, str], tmp_path: Path) -> None:
    env = {**home, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert hub(env).credentials is None
    (tmp_path / "file").write_text(TOKEN)
    assert token_of(hub(env, token_file=tmp_path / "file")) == TOKEN


def test_a_missing_default_file_means_no_token_a_missing_named_one_is_wrong(home: dict[str, str], tmp_path: Path) -> None:
    assert hub({**home, "HF_TOKEN_PATH": str(tmp_path / "no")}).credentials is None
    with pytest.raises(InvalidArgument, match=r"--token-file .*/no does not exist"):
        hub(home, token_file=tmp_path / "no")


@pytest.mark.parametrize(
    "content", [b"", b"two words " + TOKEN.encode(), TOKEN.encode() + b"\nmore", b"\xff" + TOKEN.encode(), b"x" * 20_000]
)
def test_what_is_not_a_token_is_not_shown(home: dict[str, str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidArgument, match="--token-file does not hold a token") as caught:
        hub(home, token_file=tmp_path / "file")
    assert TOKEN not in str(caught.value)


def test_a_token_that_would_break_a_header(home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="HF_TOKEN does not hold a token") as caught:
        hub({**home, "HF_TOKEN": f"{TOKEN}\r\nX: y"})
    assert TOKEN not in str(caught.value)


def test_a_token_file_that_cannot_be_read(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        hub(home, token_file=tmp_path)


def test_settings_do_not_show_the_token(home: dict[str, str]) -> None:
    assert TOKEN not in repr(hub({**home, "HF_TOKEN": TOKEN}))


# Proxy, certificates and addresses


def proxies(env: Mapping[str, str]) -> tuple[str | None, str | None]:
    found = settings(env)
    http, https = (proxy.reveal() if proxy is not None else None for proxy in (found.net.http_proxy, found.net.https_proxy))
    return http, https


def test_a_proxy_is_that_of_the_scheme(home: dict[str, str]) -> None:
    env = {**home, "HTTPS_PROXY": "http://user:pw@proxy:3128", "http_proxy": "other:80", "NO_PROXY": "a.example, .b.example,"}
    assert proxies(env) == (None, "http://user:pw@proxy:3128")  # nothing is asked by http for a Hub on https
    assert proxies({**env, "HF_ENDPOINT": "http://hub"}) == ("http://other:80", "http://user:pw@proxy:3128")
    assert settings(env).net.no_proxy == ("a.example", ".b.example")
    assert settings({**home, "no_proxy": "a b,c"}).net.no_proxy == ("a", "b", "c")


def test_all_proxy_counts_last_and_capital_http_proxy_never(home: dict[str, str]) -> None:
    assert proxies({**home, "ALL_PROXY": "proxy:1"}) == (None, "http://proxy:1")
    assert proxies({**home, "all_proxy": "socks5h://proxy:1", "https_proxy": "http://first:2"}) == (None, "http://first:2")
    assert proxies({**home, "HF_ENDPOINT": "http://hub", "HTTP_PROXY": "from-a-header:1"}) == (None, None)


@pytest.mark.parametrize("text", ["socks5://127.0.0.1:1080", "socks5h://user:pw@proxy"])
def test_socks_proxies(home: dict[str, str], text: str) -> None:
    assert proxies({**home, "all_proxy": text}) == (None, text)


@pytest.mark.parametrize(
    "text",
    ["socks4://u:canary@p:1", "https://u:canary@p:1", "http://u:canary@", "http://u:canary@p:99999", "socks5://u:canary@p:0"],
)
def test_a_proxy_that_cannot_be_is_not_shown(home: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match="HTTPS_PROXY is not a proxy that can be used; expected http://host:port") as caught:
        settings({**home, "HTTPS_PROXY": text})
    assert "canary" not in str(caught.value)
    assert redact(str(caught.value)) == str(caught.value)


def test_certificates(home: dict[str, str], tmp_path: Path) -> None:
    file, folder = tmp_path / "ca.pem", tmp_path / "certs"
    file.touch()
    folder.mkdir()

    def trusted(**env: object) -> tuple[Path, ...]:
        return settings({**home, **{name: str(value) for name, value in env.items()}}).net.ca_paths

    assert trusted() == ()
    assert trusted(SSL_CERT_FILE=file) == (file,)
    assert trusted(SSL_CERT_DIR=folder) == (folder,)
    assert trusted(SSL_CERT_DIR=f"{folder}:{tmp_path / 'missing'}", SSL_CERT_FILE=file) == (file, folder)
    assert trusted(REQUESTS_CA_BUNDLE=folder) == trusted(CURL_CA_BUNDLE=folder) == (folder,)
    assert trusted(REQUESTS_CA_BUNDLE=folder, SSL_CERT_FILE=file) == (file,)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        with pytest.raises(InvalidArgument, match="certificates does not exist"):
            trusted(**{name: tmp_path / "no.pem"})


def test_private_hosts_are_allowed_by_argument_or_variable(home: dict[str, str]) -> None:
    assert not hub(home).hosts.allow_private
    assert hub(home, allow_private_hosts=True).hosts.allow_private
    assert hub({**home, "XETFS_ALLOW_PRIVATE_HOSTS": "1"}).hosts.allow_private
    assert not hub({**home, "XETFS_ALLOW_PRIVATE_HOSTS": "0"}).hosts.allow_private


@pytest.mark.root
def test_root_with_the_environment_of_a_user_has_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under sudo -E: what root made in the user's home would be in the user's way. The user's token is read all the same."""
    theirs, own = tmp_path / "user", tmp_path / "root"
    for home in (theirs, own):
        (home / ".cache/huggingface").mkdir(parents=True)
    (theirs / ".cache/huggingface/token").write_text("hf_theirs")
    os.chown(theirs, 1000, 1000)
    os.chown(theirs / ".cache", 1000, 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=str(own)))
    monkeypatch.setenv("HOME", str(theirs))
    for env in ({}, {"XDG_CACHE_HOME": str(theirs / ".cache")}, {"XDG_CACHE_HOME": str(theirs / "absent/cache")}):
        assert settings_from(Choices(), env).store.cache_dir == own / ".cache/xetfs"
    assert settings_from(Choices(cache_dir=theirs / "here"), {}).store.cache_dir == theirs / "here"
    assert token_of(hub_from(Choices(), {})) == "hf_theirs"
    monkeypatch.setenv("HOME", str(own))
    assert settings_from(Choices(), {}).store.cache_dir == own / ".cache/xetfs"


def test_without_a_cache_there_is_no_directory(home: dict[str, str], tmp_path: Path) -> None:
    assert settings(home, cache=False).store.cache_dir is None
    refused: list[dict[str, object]] = [
        {"cache_dir": tmp_path}, {"cache_size": "1G"}, {"trust_cache_dir": True}, {"offline": True}
    ]  # fmt: skip
    for choices in refused:
        with pytest.raises(InvalidArgument, match="--no-cache"):
            settings(home, cache=False, **choices)
    with pytest.raises(InvalidArgument, match="--no-cache"):
        settings({**home, "HF_HUB_OFFLINE": "1"}, cache=False)
