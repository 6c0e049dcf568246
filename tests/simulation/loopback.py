"""Loopback servers that are not an API, and a client for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from batch.clock import SystemClock
from batch.provider.client import Client

KEY = "Zm9vYmFy/2Jhei+xdWV1eA=="
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Pass each connection to *talk*; yield the address. No connection outlives the block."""
    talks: set[asyncio.Task[object]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        talks.add(me)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the client has left, or the test has ended
        finally:
            talks.discard(me)
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()
        while talks:
            for task in tuple(talks):
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0)


@asynccontextmanager
async def client(
    base_url: str,
    *,
    key: str = KEY,
    stall_timeout_s: float = 5.0,
    proxy: str | None = None,
) -> AsyncIterator[Client]:
    async with Client(
        base_url=base_url,
        key=key,
        request_timeout_s=20.0,
        stall_timeout_s=stall_timeout_s,
        clock=SystemClock(),
        proxy=proxy,
    ) as opened:
        yield opened


def says(status: int, body: bytes, *headers: str, seen: list[bytes] | None = None) -> Talk:
    """Return a server that gives every request the same answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        writer.write("\r\n".join([*lines, *headers, "", ""]).encode() + body)
        await writer.drain()

    return talk
