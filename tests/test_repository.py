"""The house is in order: rooms import one way, few speak or know FUSE, what is documented exists, and the other way round."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from xetfs import errors
from xetfs.cli.exits import EXIT, MEANING
from xetfs.fs.errno import ERRNO
from xetfs.net.hedging import CREDIT_MAX, HEDGE_AFTER_MIN_S, HEDGE_FACTOR, HEDGE_SHARE
from xetfs.net.latency import SAMPLES_MIN, STALL_FACTOR
from xetfs.net.origins import REDIRECTS_MAX
from xetfs.net.pool import ORIGINS_MAX
from xetfs.net.reachability import IDLE_PAUSE_MAX_S, PROBE_PAUSE_S, SUSPECT_PROBES_MIN
from xetfs.net.transport import KEEPALIVE_S
from xetfs.settings import NetSettings
from xetfs.telemetry import METRICS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xetfs"
MODULES = sorted(PACKAGE.rglob("*.py"))

GROUND = {"errors", "units", "secret", "settings", "telemetry", "credentials", "detached", "__init__"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "units": set(),
    "secret": set(),
    "settings": set(),
    "telemetry": set(),
    "credentials": set(),
    "detached": set(),
    "__init__": {"api"},
    "protocol": set(),
    "net": {"protocol"},
    "hub": {"net", "protocol"},
    "cas": {"net", "protocol"},
    "store": {"protocol"},
    "reader": {"cas", "hub", "store", "protocol"},
    "repo": {"hub", "cas", "store", "reader", "net", "protocol"},
    "fs": {"repo", "reader", "protocol"},
    "control": {"repo", "reader"},
    "config": {"hub", "net", "protocol"},
    "api": {"config", "repo", "reader", "hub", "net", "protocol"},
    "testhub": {"protocol"},
    "cli": {"config", "protocol", "net", "hub", "cas", "store", "reader", "repo", "fs", "control", "testhub"},
    "__main__": {"cli"},
}
"""Which rooms a room may import. All may import GROUND; `protocol` only `errors` and `secret` of it, as it parses tokens."""

PROTOCOL_FOREIGN = {"blake3", "lz4", "numpy"}
IMPORTED_BY_ONE = {
    "pyfuse3": {"fs"},
    "httpx": {"net"},
    "h11": {"testhub", "net"},
    "diskcache": {"store"},
    "argparse": {"cli", "testhub"},
}
"""Foreign packages that only some rooms know."""


@cache
def tracked() -> tuple[Path, ...]:
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists())


def room_of(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(module: Path) -> Iterator[str]:
    """Dotted names that a module imports, those for type checking only included."""
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                assert level == 0, f"{module} imports relatively"
                yield from (f"{name}.{alias.name}" for alias in names)


def called(module: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)}


def attributes(module: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Attribute)}


def module_id(module: Path) -> str:
    return str(module.relative_to(ROOT))


def leaves(kind: type[errors.XetfsError]) -> Iterator[type[errors.XetfsError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for inner in below:
        yield from leaves(inner)


# --- rooms


def test_every_room_is_known() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_rooms_form_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room, below in ROOMS.items() if room not in done and below <= done}
        assert ready, f"a cycle among {set(ROOMS) - done}"
        done |= ready


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_a_module_imports_only_from_rooms_below(module: Path) -> None:
    room = room_of(module)
    allowed = ROOMS[room] | ({"errors", "secret"} if room == "protocol" else GROUND) | {room}
    rooms = {name.split(".")[1] for name in imported(module) if name.startswith("xetfs.")}
    packages = {item.name.removesuffix(".py") for item in PACKAGE.iterdir()}
    assert (rooms & packages) - allowed == set()


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_foreign_packages_stay_in_their_rooms(module: Path) -> None:
    room = room_of(module)
    packages = {name.split(".")[0] for name in imported(module)}
    for package, rooms in IMPORTED_BY_ONE.items():
        assert package not in packages or room in rooms, f"{package} is for {rooms}"
    assert not packages & {"asyncio", "anyio", "pickle", "huggingface_hub", "hf_xet"}
    if room == "protocol":
        foreign = {name for name in packages if name not in sys.stdlib_module_names} - {"xetfs"}
        assert foreign <= PROTOCOL_FOREIGN


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_only_the_command_line_prints_and_only_it_and_the_api_read_the_environment(module: Path) -> None:
    if room_of(module) == "cli" or module == PACKAGE / "testhub" / "__main__.py":
        return
    assert "print" not in called(module)
    assert "input" not in called(module)
    assert not attributes(module) & {"sys.argv", "sys.stdout", "sys.stderr", "os.getenv"}
    written_for_a_child = {"{**os.environ, 'LC_ALL': 'C'}"}
    if "os.environ" in attributes(module) and room_of(module) != "api":
        assert any(ast.unparse(node) in written_for_a_child for node in ast.walk(ast.parse(module.read_text())))


def test_metrics_are_named_by_their_constants() -> None:
    for module in tracked():
        if module.suffix == ".py" and module != PACKAGE / "telemetry.py":
            strings = {node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant)}
            assert not strings & set(METRICS), module


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_a_module_says_what_it_is(module: Path) -> None:
    assert module.stat().st_size == 0 or ast.get_docstring(ast.parse(module.read_text())), "no docstring"


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_nothing_is_left_to_do_and_nothing_swallowed(module: Path) -> None:
    text = module.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            names = {ast.unparse(part) for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            silent = all(isinstance(statement, ast.Pass) for statement in node.body)
            assert not (silent and names & {"Exception", "BaseException"}), f"errors vanish in line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_no_task_can_end_the_process(module: Path) -> None:
    """An unexpected error in a system task is trio's own end: tasks belong to a nursery (xetfs/detached.py)."""
    assert not {name for name in called(module) | attributes(module) if name.endswith("spawn_system_task")}


# --- private names of other libraries

PUBLIC_ALL_THE_SAME = {"os._exit", "_replace", "_asdict", "_fields", "argparse._SubParsersAction"}
"""os._exit and the methods of named tuples are documented; argparse has no other name for this type."""
PRIVATE_PATH = re.compile(r"\b(?:httpx|httpcore|h11|trio|pyfuse3|diskcache|blake3|lz4|numpy|outcome|ssl|socket)[\w.]*\._[a-z]")


def named_here(tree: ast.Module) -> set[str]:
    """All names that a module gives to something: functions, classes, variables, attributes, slots."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[A-Za-z]\w*(?<!_)", name) is not None


def private_uses(text: str) -> Iterator[str]:
    """Private names that a module uses and does not define, so that somebody else's are among them."""
    tree = ast.parse(text)
    own = named_here(tree) | {name.rpartition(".")[2] for name in PUBLIC_ALL_THE_SAME}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases if any(map(is_private, alias.name.split("."))))
            case ast.ImportFrom(module=path, names=aliases):
                names = (f"{path}.{alias.name}" for alias in aliases)
                yield from (name for name in names if any(map(is_private, name.split("."))))
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield from [name] if is_private(name) and name not in own else []
            case ast.Constant(value=str(words)):
                yield from PRIVATE_PATH.findall(words)


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_no_private_name_of_another_library_is_used(module: Path) -> None:
    assert sorted(private_uses(module.read_text())) == []


@pytest.mark.parametrize("text", [
    "import httpx._main", "from httpx import _config", "from trio._core import x", "pool._connections", "self._con.execute('')",
    "import sys; sys.modules['httpx._main'] = None", "getattr(pool, '_requests')",
])  # fmt: skip
def test_a_private_name_would_be_found(text: str) -> None:
    assert list(private_uses(text))


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_no_private_name_of_a_foreign_class_is_overridden(module: Path) -> None:
    if module.name == "__main__.py":
        return
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    written = named_here(ast.parse(module.read_text()))
    for kind in vars(importlib.import_module(name)).values():
        if isinstance(kind, type) and kind.__module__ == name:
            foreign = [base for base in kind.__mro__[1:] if base.__module__.split(".")[0] != "xetfs"]
            mine = set(filter(is_private, vars(kind))) & written  # and not put there by Python itself
            for base in foreign:
                assert not mine & set(vars(base)), f"{kind.__qualname__} overrides private names of {base.__qualname__}"


# --- tests


def test_tests_do_not_sleep_to_wait() -> None:
    for module in tracked():
        if module.suffix == ".py" and "tests" in module.relative_to(ROOT).parts:
            assert "time.sleep" not in called(module), module


def test_file_names_of_tests_are_unique() -> None:
    names = [module.name for module in tracked() if module.name.startswith("test_") and module.suffix == ".py"]
    assert sorted(names) == sorted(set(names))


# --- the repository


def test_scripts_are_executable_and_stop_at_the_first_error() -> None:
    scripts = [path for path in tracked() if path.parent.name in ("scripts", ".ci") and path.suffix == ""]
    assert {path.name for path in scripts} >= {"setup", "demo", "test", "check", "run"}
    for script in scripts:
        assert script.stat().st_mode & 0o111 == 0o111, script
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env bash\n"), script
        assert "set -euo pipefail" in text, script


def test_no_machine_and_no_registry_is_named() -> None:
    """Paths of whoever wrote it, and hosts of package registries, are of no use to whoever reads it."""
    # Some letters stand in brackets so that the pattern does not find itself.
    forbidden = re.compile(r"/wor[k]/|/roo[t]/|/home/\w+/|index[-]url|py[p]i\.org|python[h]osted|find[-]links")
    for path in tracked():
        if path.suffix in (".py", ".md", ".toml", ".yml", ""):
            found = forbidden.search(path.read_text())
            assert found is None, f"{path}: {found and found.group()}"


def test_links_between_documents_lead_somewhere() -> None:
    for page in tracked():
        if page.suffix == ".md":
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
                if "://" not in target:
                    assert (page.parent / target).exists(), f"{page}: {target}"


# --- what is documented


def test_every_leaf_error_has_an_errno_and_an_exit_code() -> None:
    for kind in leaves(errors.XetfsError):
        assert kind in ERRNO, kind
        assert kind in EXIT, kind


def test_the_readme_lists_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {int(row) for row in rows} >= {int(code) for code in MEANING}


def test_the_semantics_list_every_errno() -> None:
    import errno

    text = (ROOT / "docs" / "semantics.md").read_text()
    for number in set(ERRNO.values()):
        assert f"`{errno.errorcode[number]}`" in text


def test_the_page_on_the_network_gives_the_limits_that_hold() -> None:
    text = (ROOT / "docs" / "network.md").read_text()
    net = NetSettings()
    for row in (
        f"(`net.connections_max`) | {net.connections_max} |",
        f"(`net.attempts_max`) | {net.attempts_max} |",
        f"(`net.connect_timeout_s`) | {net.connect_timeout_s:g} s |",
        f"| stall timeout | {net.stall_timeout_min_s:g} or {net.answer_timeout_min_s:g} to {net.stall_timeout_s:g} s, "
        f"{net.stall_timeout_first_s:g} s at first |",
        f"{SUSPECT_PROBES_MIN} at least,",
        f"for {net.outage_patience_s:g} s",
        f"next in {PROBE_PAUSE_S:g} to {IDLE_PAUSE_MAX_S:g} s",
        f"fewer than {SAMPLES_MIN} answers",
        f"stall timeout {STALL_FACTOR:g} × p95",
        f"hedge after {HEDGE_FACTOR:g} × p95, at least {HEDGE_AFTER_MIN_S:g} s",
        f"1 per {1 / HEDGE_SHARE:g} requests, {CREDIT_MAX:g} in a row",
        f"| redirects | {REDIRECTS_MAX} |",
        f"| origins at a time | {ORIGINS_MAX} |",
        f"| idle connections | {KEEPALIVE_S:g} s |",
    ):
        assert row in text, row


def test_every_promise_names_a_test_that_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "semantics.md").read_text()))
    assert named
    for path, function in named:
        assert re.search(rf"\bdef {function}\(", (ROOT / path).read_text()), f"{path}::{function}"
