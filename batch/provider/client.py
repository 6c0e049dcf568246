"""The edge to the network: `VideoApi` over aiohttp, and nothing but that.

Sessions of two kinds: those for the API carry the key, follow no redirect and read bounded bodies;
the one for the signed links has never seen the key.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from batch.clock import Clock
from batch.job import Failure, FailureKind
from batch.provider.answers import Ambiguous, QueryAnswer, Stale, SubmitAnswer, Unavailable, Unsent
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError, Stream, UselessPartError
from batch.provider.wire import SUBMIT_PATH, read_query, read_submit, task_path
from batch.redact import Mask, clean

MAX_ANSWER_BYTES = 1024 * 1024
MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 15.0
# Each download goes on reading up to twice so much while what came before is hashed and written.
READ_AHEAD_BYTES = 512 * 1024
EXPIRED_STATUSES = frozenset({401, 403, 404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$")


class StaleIntentError(Exception):
    """Raised inside aiohttp, between the connection and the first byte, to send nothing."""


class Client:
    """`VideoApi` over HTTP. Use as an async context manager.

    *base_url* is an origin, with or without a path; *key* goes there and nowhere else.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        request_timeout_s: float,
        stall_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._mask = Mask(key)
        self._request_timeout_s = request_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._check_intent)
        trace.on_connection_reuseconn.append(self._check_intent)
        self._submits = await self._exits.enter_async_context(self._api_session([trace]))
        self._queries = await self._exits.enter_async_context(self._api_session([]))
        self._files = await self._exits.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "kling-batch"},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._stall_timeout_s
                ),
                read_bufsize=READ_AHEAD_BYTES,
                auto_decompress=False,
                requote_redirect_url=False,
            )
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._exits.aclose()

    def __repr__(self) -> str:
        return f"<Client {self._base_url}>"

    def _api_session(self, traces: list[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Authorization": f"Bearer {self._key}",
                "Accept": "application/json",
                # Answers are short; packed, few bytes may become many.
                "Accept-Encoding": "identity",
                "User-Agent": "kling-batch",
            },
            # The whole request is bounded, not only each read: an answer that trickles in byte by
            # byte must not hold a slot.
            timeout=aiohttp.ClientTimeout(
                total=self._request_timeout_s, sock_connect=CONNECT_TIMEOUT_S
            ),
            trace_configs=traces,
        )

    # -- the API

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> SubmitAnswer | Unsent | Stale:
        """Send the request once and read its answer; see `VideoApi.submit`."""
        try:
            async with self._submits.post(
                self._base_url + SUBMIT_PATH,
                data=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                trace_request_ctx=SimpleNamespace(not_after=not_after),
            ) as response:
                raw = self._mask.body(await _bounded(response))
                headers = self._mask.headers(response.headers)
                return read_submit(
                    response.status, headers, raw, resent=resent, now=self._clock.now()
                )
        except StaleIntentError:
            return Stale(Failure(FailureKind.NETWORK, "too much time passed before sending"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Unsent(_failure(error))
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
            return Unsent(_failure(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Ambiguous(_failure(error))

    async def query(self, identifier: str) -> QueryAnswer:
        """Ask for a task; see `VideoApi.query`."""
        try:
            async with self._queries.get(
                self._base_url + task_path(identifier), allow_redirects=False
            ) as response:
                raw = self._mask.body(await _bounded(response))
                headers = self._mask.headers(response.headers)
                return read_query(response.status, headers, raw, now=self._clock.now())
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
            return Unavailable(_failure(error), None)

    async def _check_intent(
        self, _session: aiohttp.ClientSession, context: SimpleNamespace, _params: object
    ) -> None:
        # aiohttp calls this when it has the connection and is about to write the request.
        limits = context.trace_request_ctx
        if limits is not None and self._clock.monotonic() > limits.not_after:
            raise StaleIntentError

    # -- the files

    def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a signed link; see `VideoApi.fetch`."""
        return self._fetch(url, start, validator)

    @asynccontextmanager
    async def _fetch(self, url: str, start: int, validator: str | None) -> AsyncIterator[Stream]:
        headers = {}
        if start and validator:
            headers = {"Range": f"bytes={start}-", "If-Range": validator}
        until = asyncio.get_running_loop().time() + self._stall_timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            if not _is_http(url):
                raise ExpiredLinkError(
                    _broken("the link leads to something that is no http address")
                )
            async with _mapped(), AsyncExitStack() as opened:
                # aiohttp bounds each read; a head that comes byte by byte, or after any number of
                # interim answers, would never be late.
                async with asyncio.timeout_at(until):
                    response = await opened.enter_async_context(self._open(url, headers))
                location = response.headers.get("Location")
                if response.status in {301, 302, 303, 307, 308} and location:
                    url = urljoin(url, location)
                    continue
                yield _read_head(response, start if headers else 0)
                return
        raise BrokenFetchError(_broken(f"more than {MAX_REDIRECTS} redirects"))

    def _open(
        self, url: str, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        # encoded=True: the signature covers the link as it is; not a byte of it may be rewritten.
        return self._files.get(URL(url, encoded=True), headers=headers, allow_redirects=False)


@dataclass(frozen=True, slots=True)
class _Body:
    """A `Stream` whose body is an aiohttp response."""

    start: int
    total: int | None
    validator: str | None
    response: aiohttp.ClientResponse

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes off the socket."""
        content = self.response.content
        if self.response.content_length is None:
            # Chunked, in pieces of the server's choice, even of one byte each.
            async for piece in content.iter_any():
                yield piece
        else:  # as it came off the socket; iter_any would copy all that waits into one
            async for piece, _ in content.iter_chunks():
                yield piece


def _read_head(response: aiohttp.ClientResponse, asked: int) -> _Body:
    """Decide from status and headers what the body is."""
    status, headers = response.status, response.headers
    if status in EXPIRED_STATUSES:
        raise ExpiredLinkError(_broken(f"the link is no longer served (HTTP {status})", status))
    if status == 416:
        raise UselessPartError(_broken("the server refuses to go on with the part", status))
    if status not in {200, 206}:
        raise BrokenFetchError(_broken(f"the file server answered HTTP {status}", status))
    if "html" in headers.get("Content-Type", "") or "json" in headers.get("Content-Type", ""):
        raise ExpiredLinkError(_broken("the file server sent a page instead of a video", status))
    length = response.content_length
    validator = _validator(headers.get("ETag"), headers.get("Last-Modified"))
    if status == 200:
        return _Body(0, length, validator, response)
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != asked:
        raise UselessPartError(
            _broken("the server continues at a byte that was not asked for", status)
        )
    total = None if match[3] == "*" else int(match[3])
    return _Body(asked, total, validator, response)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _validator(etag: str | None, last_modified: str | None) -> str | None:
    """If-Range takes a strong ETag or a date (RFC 9110, 13.1.5)."""
    if etag is not None:
        return None if etag.startswith("W/") else etag
    return last_modified


@asynccontextmanager
async def _mapped() -> AsyncIterator[None]:
    """Translate aiohttp's errors once, at the edge."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
        raise BrokenFetchError(
            _failure(error, FailureKind.DOWNLOAD)
        ) from None  # holds the signed link


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read a body, at most `MAX_ANSWER_BYTES` of it: the rest could only be garbage."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            response.close()
            break
    return b"".join(pieces)[:MAX_ANSWER_BYTES]


def _failure(error: Exception, kind: FailureKind = FailureKind.NETWORK) -> Failure:
    """Say what a network error was, without the address it was about."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            text = "the server's certificate cannot be trusted"
        case aiohttp.ClientConnectorDNSError():
            text = f"the host name {error.host!r} cannot be resolved"
        case aiohttp.ClientConnectorError():
            text = f"cannot connect to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
        case aiohttp.ConnectionTimeoutError():
            text = "connecting took too long"
        case TimeoutError():
            text = "no answer in time"
        case aiohttp.ServerDisconnectedError():
            text = "the server closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            text = "the body ended early"
        case aiohttp.InvalidURL():
            text = "the address is no valid URL"
        case _:
            text = f"the connection broke ({type(error).__name__})"
    return Failure(kind, clean(text))


def _broken(text: str, status: int | None = None) -> Failure:
    return Failure(FailureKind.DOWNLOAD, text, http_status=status)
