"""The receiver of callbacks: a small server beside the run, which believes none of them.

Answers: 204 at once; 405 for anything but POST; 404 for a wrong token; 413 above 64 KiB; 400 for no
JSON; 408 for a body that does not come; 503 where a fleet's database does not say whether the token is
right. The token is the last part of the path, so that a reverse proxy may put any prefix before it, or
take one away.

Each connection is for one request and lives for seconds; beyond `MAX_CONNECTIONS` the oldest is
closed, so that idle connections do not block callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
from aiohttp import web

from batch.callbacks.hints import News
from batch.errors import UsageError
from batch.provider.answers import TaskStatus
from batch.provider.wire import read_callback

MAX_BODY_BYTES = 64 * 1024
READ_TIMEOUT_S = 5.0
CONNECTION_LASTS_S = 10.0
MAX_CONNECTIONS = 200  # at once
LINGER_S = 1.0  # what else is sent is read for so long, so that the sender sees its answer
TOKEN_CHARS = 100
SHUTDOWN_S = 0.5  # for answers under way when the run ends
STEPS_INSIDE = 4  # of the event loop, from a connection that is accepted to one that is served

# What strangers send is no trouble of the run's, and a path may hold a token: nothing is logged.
_silent = logging.getLogger("batch.callbacks.receiver.http")
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False


class Inbox(Protocol):
    """Where callbacks go: the hints of a run, or a worker's mailroom."""

    def owner(self, token: str) -> str | None:
        """Return the attempt that a token is for; None if it is certainly no one's."""
        ...

    async def take(self, token: str, news: News | None) -> bool | None:
        """Take in what came with a token; False if the token is wrong, None if that is not known now."""
        ...


STATUS = {True: 204, False: 404, None: 503}  # by what `Inbox.take` returns


class Receiver:
    """Turns valid callbacks into hints."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        response = web.Response(status=await self._take(request))
        if response.status == 405:
            response.headers["Allow"] = "POST"
        response.force_close()
        return response

    async def _take(self, request: web.BaseRequest) -> int:
        """Take a callback in; returns the HTTP status to answer with."""
        if request.method != "POST":
            return 405
        token = request.path.rsplit("/", 1)[-1][:TOKEN_CHARS]
        owner = self._inbox.owner(token)
        if owner is None:
            return 404
        try:
            body = await _read(request)
        except TimeoutError:
            return 408
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, ConnectionError):
            return 400  # it broke off, or its chunks are invalid
        if body is None:
            return 413
        if not _is_json(body):
            return 400
        return STATUS[await self._inbox.take(token, _news(body, owner))]


def _news(body: bytes, owner: str) -> News | None:
    """Return what a callback says of an attempt; None if it says nothing, or is about another one."""
    task = read_callback(body)
    if task is None or task.external_task_id not in {None, owner}:
        return None
    return News(
        task.task_id,
        task.updated_at,
        has_ended=task.status in {TaskStatus.SUCCEEDED, TaskStatus.FAILED},
        names_us=task.external_task_id is not None,
    )


async def _read(request: web.BaseRequest) -> bytes | None:
    """Read the body; None if it is larger than any callback."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    pieces = bytearray()
    async with asyncio.timeout(READ_TIMEOUT_S):
        async for piece in request.content.iter_any():
            pieces += piece
            if len(pieces) > MAX_BODY_BYTES:
                return None
    return bytes(pieces)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


class _Door(web.Server):
    """Bounds how many connections there are, and how long each lasts."""

    def __init__(self, receiver: Receiver) -> None:
        # Unpacking would let few bytes become many; no callback comes packed.
        super().__init__(
            receiver.handle,
            access_log=None,
            logger=_silent,
            auto_decompress=False,
            lingering_time=LINGER_S,
        )
        self._open: dict[web.RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._open) >= MAX_CONNECTIONS:
            self._forget(next(iter(self._open)), abort=True)
        timer = asyncio.get_running_loop().call_later(CONNECTION_LASTS_S, transport.abort)
        self._open[handler] = (transport, timer)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self._forget(handler, abort=False)
        super().connection_lost(handler, exc)

    def _forget(self, handler: web.RequestHandler, *, abort: bool) -> None:
        transport, timer = self._open.pop(handler, (None, None))
        if timer is not None:
            timer.cancel()
        if transport is not None and abort:
            transport.abort()


@asynccontextmanager
async def listen(address: str, inbox: Inbox) -> AsyncIterator[str]:
    """Receive callbacks at *address* (HOST:PORT) while the block lasts; yields the address it got.

    Raises:
        UsageError: the address cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    loop, door = asyncio.get_running_loop(), _Door(Receiver(inbox))
    try:
        server = await loop.create_server(door, host.strip("[]") or "127.0.0.1", int(port))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(
            f"cannot listen for callbacks on {address} (--callback-listen): {reason};"
            " nothing was sent"
        ) from None
    try:
        name, number, *_ = server.sockets[0].getsockname()
        yield f"[{name}]:{number}" if ":" in name else f"{name}:{number}"
    finally:
        # A connection accepted while the server closes would be left open, an error of asyncio's:
        # stop accepting first, then let the connections under way arrive.
        for listening in server.sockets:
            with contextlib.suppress(NotImplementedError):  # not every loop accepts by readers
                loop.remove_reader(listening.fileno())
        for _ in range(STEPS_INSIDE):
            await asyncio.sleep(0)
        server.close()
        door.pre_shutdown()
        await door.shutdown(SHUTDOWN_S)
