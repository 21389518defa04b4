"""Which certificate authorities the parts inside a cluster must trust to reach the cloud.

Always holds: the parts get authorities only if the user names some, by ``cacert`` or by a variable that requests heeds; a
variable is the whole host's, and counts only if an address of the cloud is HTTPS. A bundle that is too large for user data, as
a whole system's is, is reduced to the authorities that the cloud's own certificates lead to.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from moyai.core.errors import UsageError

#: requests takes them where clouds.yaml names no ``cacert``.
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CERTIFICATE = re.compile(r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)
#: Bytes: user data hold them twice and take 64 kB.
_MOST = 24_000
_CONNECT_SECONDS = 10.0


def authorities(verify: Any, urls: Iterable[str], *, cloud: str) -> str:
    """The authorities in PEM form; empty where those of the parts' own image are enough.

    ``verify``: as requests has it. ``urls``: the cloud's addresses. Raises UsageError for a file that cannot be read or holds
    no certificate, and for more authorities than user data can hold.
    """
    secure = [url for url in urls if url.startswith("https:")]
    source = "`cacert`"
    if verify is True or verify is None:
        source = next((name for name in _BUNDLE_VARIABLES if os.environ.get(name)), "")
        verify = os.environ[source] if source else ""
        verify = verify if secure else ""
    if not verify:
        return ""
    path = Path(str(verify))
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = list(dict.fromkeys(one for file in files for one in _CERTIFICATE.findall(read(file, source))))
    if not found:
        raise UsageError(f"cloud {cloud}: {source}: {path} holds no certificate", hint="should be a file in PEM form")
    text = "\n".join(found) + "\n"
    if len(text) <= _MOST:
        return text
    try:
        # a cloud often has all its services at one address
        hosts = dict.fromkeys((parts.hostname or "", parts.port or 443) for parts in map(urlsplit, secure))
        return "\n".join(dict.fromkeys(_root(host, text) for host in hosts)) + "\n"
    except OSError:
        # an address behind a proxy, say: nobody here sees which authority it is that counts
        raise UsageError(
            f"cloud {cloud}: {source}: {path} holds {len(found)} certificates, more than a machine's user data can hold",
            hint="name a file with only the authorities that sign the cloud's own certificates",
        ) from None


def read(file: Path, source: str) -> str:
    """A file that the cloud's configuration names; ``source``: the setting that names it. Raises UsageError."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{source} of the cloud's configuration: {file} cannot be read ({error.strerror})") from None


def _root(host: tuple[str, int], trusted: str) -> str:
    """The trusted authority at the end of the chain of a name and port. Raises OSError for no connection and for no trust."""
    context = ssl.create_default_context(cadata=trusted)
    with (
        socket.create_connection(host, timeout=_CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host[0]) as secure,
    ):
        # public from Python 3.13 on; before, it is there without the name
        chain = cast("Any", secure)._sslobj.get_verified_chain()
    return str(chain[-1].public_bytes()).strip()
