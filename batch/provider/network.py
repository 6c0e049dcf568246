"""aiohttp's sessions and errors, as this package needs them.

A submission is never sent on a connection that has been idle: the server may have closed it already,
and the request would be lost, perhaps after it was read. Each submission opens a connection of its
own, for some 3 ms of CPU and two round trips over TLS. Its socket has TCP_USER_TIMEOUT set, so that
the kernel gives up what is not acknowledged within `DELIVERED_WITHIN_S`, even when this process is
gone. Only Linux has that option; elsewhere a request written into a dead link may still arrive minutes
after the process that sent it.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from aiohttp.abc import ResolveResult

from batch.job import Failure, FailureKind
from batch.provider.protocol import DELIVERED_WITHIN_S
from batch.redact import clean

CONNECT_TIMEOUT_S = 15.0
MAX_HEAD_LINE_BYTES = 256 * 1024  # servers and CDNs send headers of 10 to 60 kB
MAX_HEADERS = 1_000
FROM_ENVIRONMENT = "env"  # in place of a proxy's URL: HTTPS_PROXY and NO_PROXY say it
_ERRNO = re.compile(r"\[Errno (\d+)\]")
USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


def api_session(
    key: str,
    *,
    timeout_s: float,
    traces: list[aiohttp.TraceConfig],
    most: int = 0,
    reuses: bool,
    proxy: str | None = None,
) -> aiohttp.ClientSession:
    """Return a session for the API, of *most* connections at once (0: any number).

    Without *reuses*, each request has a connection of its own.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=most,
            resolver=_Resolver(),
            ttl_dns_cache=60,
            force_close=not reuses,
            socket_factory=None if reuses else _impatient_socket,
        ),
        headers={
            "Authorization": f"Bearer {key}",
            "Accept": "application/json",
            # Answers are short; packed, few bytes may become many.
            "Accept-Encoding": "identity",
            "User-Agent": "kling-batch",
        },
        # The whole request is bounded, not only each read: an answer that trickles in byte by byte
        # must not hold a slot.
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
        trace_configs=traces,
        **_common(proxy),
    )


def file_session(
    *, stall_timeout_s: float, read_ahead_bytes: int, proxy: str | None = None
) -> aiohttp.ClientSession:
    """Return a session for signed links; it has no key."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=_Resolver(), ttl_dns_cache=60),
        headers={"Accept-Encoding": "identity", "User-Agent": "kling-batch"},
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=stall_timeout_s
        ),
        read_bufsize=read_ahead_bytes,
        auto_decompress=False,
        requote_redirect_url=False,
        **_common(proxy),
    )


class _Resolver(aiohttp.ThreadedResolver):
    """Resolves names in a thread; where none can be had, that is an error of the network."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            return await super().resolve(host, port, family)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "no thread to look it up") from error


def _common(proxy: str | None) -> dict[str, Any]:
    return {
        "trust_env": proxy == FROM_ENVIRONMENT,
        "proxy": None if proxy == FROM_ENVIRONMENT else proxy,
        "cookie_jar": aiohttp.DummyCookieJar(),
        "max_line_size": MAX_HEAD_LINE_BYTES,
        "max_field_size": MAX_HEAD_LINE_BYTES,
        "max_headers": MAX_HEADERS,
    }


def _impatient_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    if USER_TIMEOUT is not None:
        with suppress(OSError):  # a sandboxed kernel may know the name and not the option
            opened.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, int(DELIVERED_WITHIN_S * 1_000))
    return opened


def network_failure(error: Exception, url: str, kind: FailureKind = FailureKind.NETWORK) -> Failure:
    """Say what a network error on the way to *url* was, without the path that it was about."""
    return Failure(kind, clean(_unconnected(error, url) or _interrupted(error)))


def _unconnected(error: Exception, url: str) -> str | None:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "the server's certificate cannot be trusted"
        case aiohttp.ClientProxyConnectionError():
            return f"cannot connect to the proxy {error.host}:{error.port} ({_reason(error)})"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refuses the connection (HTTP {error.status})"
        case aiohttp.ClientConnectorDNSError():
            return f"the host name {error.host!r} cannot be resolved{_ignored_proxy(url)}"
        case aiohttp.ClientConnectorError():
            where = f"{error.host}:{error.port}"
            return f"cannot connect to {where} ({_reason(error)}){_ignored_proxy(url)}"
        case aiohttp.ConnectionTimeoutError():
            return f"connecting took too long{_ignored_proxy(url)}"
        case aiohttp.InvalidURL():
            return "the address is not a valid URL"
        case _:
            return None


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Return the system's words; asyncio's quote an address in Python's spelling, once for each.

    Where several addresses of a host were tried, the first one's error stands for all.
    """
    said = str(error.os_error.strerror or error.os_error)
    found = _ERRNO.search(str(error.os_error))
    return os.strerror(int(found[1])).lower() if found and "Connect call failed" in said else said


def _interrupted(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the body ended early"
        case aiohttp.ClientResponseError():
            # The parser's first line gives the reason; those below quote the answer.
            reason = error.message.strip().partition("\n")[0].rstrip(": ")
            return f"the answer breaks HTTP ({reason})"
        case _:
            return f"the connection broke ({type(error).__name__})"


def _ignored_proxy(url: str) -> str:
    """Name the proxy of the environment that would have been used by most other programs."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    name = next((name for name in (parts.scheme, "all") if name in proxies), None)
    host = parts.hostname or ""
    if name is None or host in {"127.0.0.1", "localhost"} or proxy_bypass(host):
        return ""
    return f"; {name.upper()}_PROXY is set, and not used"
