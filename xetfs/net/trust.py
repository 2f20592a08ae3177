"""Which certificate authorities are trusted.

By default those of certifi, which come with this package and work in the barest container, and those of the system beside them:
a company that inspects TLS, or has a Hub of its own, installs its authority there (`update-ca-certificates`, `update-ca-trust`).
Both are added up, as a system's list may be old or empty, and certifi's never knows a company. Certificates that the user
names are believed in place of both.

A directory whose files are named by hash, as OpenSSL reads it, costs nothing: a certificate is looked up when it is needed. So
the system's bundle, whose reading takes as long as all else in opening a client, is read only where there is no such directory.
Sources: Go, crypto/x509 root_linux.go, for where distributions keep theirs; OpenSSL, X509_LOOKUP_hash_dir(3).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import httpx

from xetfs.errors import InvalidArgument

SYSTEM_DIRECTORIES: Final = (Path("/etc/ssl/certs"), Path("/etc/pki/ca-trust/extracted/pem/directory-hash"))
SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch, Nix
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # RHEL before
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),
)
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+", re.ASCII)
_CERTIFICATES: Final = frozenset({".pem", ".crt", ".cer"})


def make_ssl_context(ca_paths: Sequence[Path]) -> ssl.SSLContext:
    """Trust the certificates in these files and directories alone, or the usual ones if there are none.

    Raises InvalidArgument for a path without certificates.
    """
    if not ca_paths:
        return _usual_context()
    context = _empty_context()
    for path in ca_paths:
        try:
            _add(context, path)
        except (OSError, ssl.SSLError) as exc:
            reason = "none of it is a certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
            raise InvalidArgument(f"no certificates in {path}: {reason}", hint="expected PEM, see SSL_CERT_FILE") from None
    return context


@cache
def _usual_context() -> ssl.SSLContext:
    """Shared by all clients of a process, as reading the certificates takes long."""
    context = _relax(httpx.create_ssl_context(trust_env=False))
    add_system(context, SYSTEM_DIRECTORIES, SYSTEM_BUNDLES)
    return context


def add_system(context: ssl.SSLContext, directories: Sequence[Path], bundles: Sequence[Path]) -> None:
    """Trust what the system trusts as well: the first directory that OpenSSL can use, else the first bundle there is."""
    directory = next((path for path in directories if _is_hashed(path)), None)
    if directory is not None:
        context.load_verify_locations(capath=str(directory))
        return
    for path in bundles:
        try:
            context.load_verify_locations(cafile=str(path))
        except (OSError, ssl.SSLError):  # none, or an empty one: there is certifi's
            continue
        return


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _relax(context: ssl.SSLContext) -> ssl.SSLContext:
    """Verify as OpenSSL and curl do. Python 3.13 and newer also refuse authorities that lack a field of RFC 5280, as those of
    companies often do."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _add(context: ssl.SSLContext, path: Path) -> None:
    """Raises OSError, ssl.SSLError."""
    if not path.is_dir():
        context.load_verify_locations(cafile=str(path))
    elif _is_hashed(path):
        context.load_verify_locations(capath=str(path))
    else:
        files = sorted(file for file in path.iterdir() if file.suffix in _CERTIFICATES)
        if not files:
            raise FileNotFoundError(0, "an empty directory")
        for file in files:
            context.load_verify_locations(cafile=str(file))


def _is_hashed(directory: Path) -> bool:
    try:
        return any(_HASHED.fullmatch(path.name) for path in directory.iterdir())
    except OSError:
        return False
