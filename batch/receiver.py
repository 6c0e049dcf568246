"""The receiver of callbacks: a small server beside the run, which believes nothing it is told.

Answers: 204 at once; 404 for a wrong token; 405 for anything but POST; 413 above 64 KiB; 400 for no
JSON. The token is the last part of the path, so that a reverse proxy may put any prefix before it,
or take one away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from batch.errors import UsageError
from batch.hints import Hints
from batch.wire import TaskStatus, read_callback

MAX_BODY_BYTES = 64 * 1024
READ_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 200  # at once; whoever comes beyond is turned away, not queued
TOKEN_CHARS = 100


class Receiver:
    """Turns valid callbacks into hints."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._open = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if self._open >= MAX_CONNECTIONS:
            return web.Response(status=503, headers={"Connection": "close"})
        self._open += 1
        try:
            return await self._handle(request)
        finally:
            self._open -= 1

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.path.rsplit("/", 1)[-1][:TOKEN_CHARS]
        owner = self._hints.owner(token)
        if owner is None:
            return web.Response(status=404)
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"})
        body = await _read(request)
        if body is None:
            return web.Response(status=413)
        if not _is_json(body):
            return web.Response(status=400)
        task = read_callback(body)
        if task is not None and task.external_task_id in {None, owner}:
            has_ended = task.status not in {TaskStatus.SUBMITTED, TaskStatus.PROCESSING}
            self._hints.come(owner, task.task_id, task.updated_at, has_ended=has_ended)
        return web.Response(status=204)


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


@asynccontextmanager
async def listen(address: str, hints: Hints) -> AsyncIterator[str]:
    """Receive callbacks at *address* (HOST:PORT) while the block lasts; yields where, really.

    Raises:
        UsageError: nobody can listen there.
    """
    host, _, port = address.rpartition(":")
    server = web.Server(Receiver(hints).handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, host.strip("[]") or "127.0.0.1", int(port))
    try:
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen for callbacks on {address}: {error}") from None
        name = runner.addresses[0]
        yield f"{name[0]}:{name[1]}"
    finally:
        await runner.cleanup()
