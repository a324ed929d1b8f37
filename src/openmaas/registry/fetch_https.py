"""``https:`` sources: one file, from a public address that is looked up once and kept.

Off unless allowed, and then only with a sha256: a name in a request must never lead the
server to its own network (127.1, mapped IPv6, ``\\@``, redirects, names that resolve anew).
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from openmaas.errors import SourceUnavailable
from openmaas.registry.artifacts import CHUNK
from openmaas.registry.fetching import MAX_BYTES, Progress, Wanted

SECONDS = 60.0  # of silence
_URL = re.compile(r"https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[!-\[\]-~]{0,2000}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(wanted: Wanted, folder: Path, progress: Progress) -> Path:
    """Downloads the file into ``folder``.

    Raises:
        SourceUnavailable: the address is not public, or the server did not just send the file.
    """
    return download(wanted, folder, progress)


def download(
    wanted: Wanted,
    folder: Path,
    progress: Progress,
    *,
    allowed: Callable[[Address], bool] | None = None,
    context: ssl.SSLContext | None = None,
) -> Path:
    """``fetch`` with other notions of which addresses and certificates are good."""
    host, port, target = _parts(wanted.source)
    address = _resolve(host, port, allowed or is_public)
    limit = wanted.size if wanted.size is not None else MAX_BYTES
    name = target.partition("?")[0].rsplit("/", 1)[-1]
    path = folder / (name if _NAME.fullmatch(name) else "model")
    connection = _Pinned(host, port, address, context or ssl.create_default_context())
    try:
        connection.request("GET", target, headers={"Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SourceUnavailable(f"{host} answered {answer.status}; redirects are not followed.")
        _save(answer, path, limit, progress)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise
        raise SourceUnavailable(f"{host} could not be reached: {type(error).__name__}.") from None
    finally:
        connection.close()
    return path


def is_public(address: Address) -> bool:
    """Whether an address is on the open internet, and does not stand for another one."""
    if isinstance(address, ipaddress.IPv6Address):
        stands_for = address.ipv4_mapped or address.sixtofour or address.teredo
        if stands_for or address in _NAT64 or address.scope_id:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _parts(url: str) -> tuple[str, int, str]:
    if _URL.fullmatch(url) is None:
        raise SourceUnavailable("An https: source reads https://HOST/PATH, without user or spaces.")
    parts = urlsplit(url)
    if parts.hostname is None or parts.username is not None or parts.fragment:
        raise SourceUnavailable("An https: source has a host, and neither user nor fragment.")
    try:
        port = parts.port or 443
    except ValueError:
        raise SourceUnavailable("An https: source's port is at most 65535.") from None
    return parts.hostname, port, parts.path + (f"?{parts.query}" if parts.query else "")


def _resolve(host: str, port: int, allowed: Callable[[Address], bool]) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise SourceUnavailable(f"There is no host {host}.") from None
    addresses = [str(entry[4][0]) for entry in found]
    # All must be public: a name that has a private address beside a public one is a trick.
    if not addresses or not all(allowed(ipaddress.ip_address(text)) for text in addresses):
        raise SourceUnavailable(f"{host} is not on the open internet; push the file instead.")
    return addresses[0]


class _Pinned(http.client.HTTPSConnection):
    """Connects to the address that was checked, whatever the name resolves to now."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=SECONDS, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _save(answer: http.client.HTTPResponse, path: Path, limit: int, progress: Progress) -> None:
    total = answer.length
    if total is not None and total > limit:
        raise SourceUnavailable(f"The file has {total:,} bytes; {limit:,} were expected.")
    done = 0
    with open(path, "xb") as out:
        while chunk := answer.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise SourceUnavailable(f"The file has more than the {limit:,} bytes expected.")
            out.write(chunk)
            progress(done, total, f"fetching {path.name}")
    if total is not None and done != total:
        raise SourceUnavailable("The connection ended before the file did; try again.")
