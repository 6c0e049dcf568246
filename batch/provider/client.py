"""The edge to the network: `VideoApi` over aiohttp, and nothing but that.

Sessions of three kinds: one for submissions and one for queries carry the key, follow no redirect and
read bounded bodies; the one for signed links has never seen the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import SimpleNamespace
from typing import Any, Self

import aiohttp

from batch.clock import Clock
from batch.job import Failure, FailureKind
from batch.provider.answers import (
    Ambiguous,
    QueryAnswer,
    Stale,
    SubmitAnswer,
    Unavailable,
    Unsent,
)
from batch.provider.fields import parse_date
from batch.provider.files import Files
from batch.provider.network import api_session, network_failure
from batch.provider.protocol import Stream
from batch.provider.wire import SUBMIT_PATH, read_query, read_submit, task_path
from batch.redact import Mask

MAX_ANSWER_BYTES = 1024 * 1024
_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    UnicodeError,
)


class StaleIntentError(Exception):
    """Raised inside aiohttp, between the connection and the first byte, to send nothing."""


class Client:
    """`VideoApi` over HTTP. Use as an async context manager.

    *base_url* is an origin, with or without a path; *key* goes there and nowhere else. *proxy* is the
    URL of a proxy, or `env` for those of the environment, which are not used otherwise. *max_queries*
    bounds the connections for queries (0: no bound); submissions and downloads are bounded elsewhere.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        request_timeout_s: float,
        stall_timeout_s: float,
        clock: Clock,
        proxy: str | None = None,
        max_queries: int = 0,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._mask = Mask(key)
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._proxy = proxy
        self._max_queries = max_queries
        self._files = Files(
            base_url=base_url,
            key=key,
            stall_timeout_s=stall_timeout_s,
            clock=clock,
            proxy=proxy,
        )
        self._exits = AsyncExitStack()
        self._date: str | None = None  # of the last answer that had one

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._check_intent)
        self._submits = await self._open([trace], reuses=False)
        self._queries = await self._open([], reuses=True)
        await self._exits.enter_async_context(self._files.session())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._exits.aclose()

    def __repr__(self) -> str:
        return f"<Client {self._base_url}>"

    @property
    def server_time(self) -> float | None:
        """What time it is at the provider, by its last answer that told."""
        return parse_date(self._date)

    async def _open(
        self, traces: list[aiohttp.TraceConfig], *, reuses: bool
    ) -> aiohttp.ClientSession:
        return await self._exits.enter_async_context(
            api_session(
                self._key,
                timeout_s=self._request_timeout_s,
                traces=traces,
                most=self._max_queries if reuses else 0,
                reuses=reuses,
                proxy=self._proxy,
            )
        )

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
                headers, raw = await self._read(response)
                return read_submit(
                    response.status, headers, raw, resent=resent, now=self._clock.now()
                )
        except StaleIntentError:
            return Stale(Failure(FailureKind.NETWORK, "too much time passed before sending"))
        except _BEFORE_SENDING as error:
            return Unsent(self._failure(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Ambiguous(self._failure(error))

    async def query(self, identifier: str) -> QueryAnswer:
        """Ask for a task; see `VideoApi.query`."""
        try:
            async with self._queries.get(
                self._base_url + task_path(identifier), allow_redirects=False
            ) as response:
                headers, raw = await self._read(response)
                now = self._clock.now()
                return read_query(response.status, headers, raw, now=now, asked=identifier)
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
            return Unavailable(self._failure(error), None)

    def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a signed link; see `VideoApi.fetch`."""
        return self._files.fetch(url, start, validator)

    async def _check_intent(
        self, _session: aiohttp.ClientSession, context: SimpleNamespace, _params: object
    ) -> None:
        # aiohttp calls this when it has the connection and is about to write the request.
        if self._clock.monotonic() > context.trace_request_ctx.not_after:
            raise StaleIntentError

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body without the key, at most `MAX_ANSWER_BYTES` of the latter."""
        pieces: list[bytes] = []
        size = 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:  # the rest could only be garbage
                response.close()
                break
        raw = b"".join(pieces)[:MAX_ANSWER_BYTES]
        self._date = response.headers.get("Date") or self._date
        return self._mask.headers(response.headers), self._mask.body(raw)

    def _failure(self, error: Exception) -> Failure:
        failure = network_failure(error, self._base_url)
        return Failure(failure.kind, self._mask.text(failure.message))
