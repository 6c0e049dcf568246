"""The client against servers that are no API at all: what they send, and what they get to see."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from batch.clock import SystemClock
from batch.provider.answers import AccountRefused, Ambiguous, Found, Refused
from batch.provider.client import Client
from batch.provider.protocol import BrokenFetchError

KEY = "Zm9vYmFy/2Jhei+xdWV1eA=="
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Let *talk* have each connection; yields the address."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has left
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()


@asynccontextmanager
async def client(
    base_url: str, *, key: str = KEY, stall_timeout_s: float = 5.0
) -> AsyncIterator[Client]:
    async with Client(
        base_url=base_url,
        key=key,
        request_timeout_s=20.0,
        stall_timeout_s=stall_timeout_s,
        clock=SystemClock(),
    ) as opened:
        yield opened


def says(status: int, body: bytes, *headers: str, seen: list[bytes] | None = None) -> Talk:
    """Make a server that answers anything with this."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        writer.write("\r\n".join([*lines, *headers, "", ""]).encode() + body)
        await writer.drain()

    return talk


async def submit(api: Client) -> Any:
    return await api.submit({"prompt": "x"}, not_after=float("inf"), resent=False)


@pytest.mark.parametrize("slash", ["/", r"\/", r"\u002f", r"\\\\/"])
@pytest.mark.parametrize("where", ["message", "request_id", "code", "header", "long"])
async def test_a_key_that_an_answer_quotes_is_in_nothing_that_is_made_of_it(
    slash: str, where: str
) -> None:
    """Gateways quote the key that they refuse; rows, logs and reports are made of what is read."""
    told = {"code": 1002, "message": "bad", "request_id": "r-1"}
    headers = ["X-Request-Id: " + KEY] if where == "header" else []
    if where == "header":
        del told["request_id"]
    elif where == "long":
        told["message"] = "x" * 280 + KEY  # cut in the middle of it
    else:
        told[where] = KEY
    body = json.dumps(told).replace("/", slash).encode()
    async with server(says(401, body, *headers)) as url, client(url) as api:
        for answer in (await submit(api), await api.query("kb-1")):
            assert isinstance(answer, AccountRefused)
            for part in ("Zm9vYmFy", "2Jhei", "xdWV1eA"):
                assert part not in str(answer)
                assert part.lower() not in str(answer)


async def test_a_header_that_quotes_the_key_is_no_request_id() -> None:
    key = "sk-verysecretkey0123456789"
    talk = says(400, b'{"code":1200}', f"X-Request-Id: {key}")
    async with server(talk) as url, client(url, key=key) as api:
        assert (await submit(api)).failure.request_id is None


async def test_a_task_beside_the_key_is_still_a_task() -> None:
    told = {"data": {"task_id": "8", "task_status": "failed", "task_status_msg": f"key {KEY}"}}
    body = json.dumps(told).replace("/", r"\/").encode()
    async with server(says(200, body, f"X-Request-Id: {KEY}")) as url, client(url) as api:
        answer = await api.query("8")
        assert isinstance(answer, Found)
        assert answer.task.message == "key (the key)"
        assert answer.task.request_id is None


async def test_answers_are_asked_for_unpacked() -> None:
    """They are short; and what is packed may be a bomb."""
    seen: list[bytes] = []
    async with server(says(400, b'{"code":1200}', seen=seen)) as url, client(url) as api:
        assert isinstance(await submit(api), Refused)
        await api.query("8")
    assert [b"accept-encoding: identity" in request.lower() for request in seen] == [True, True]


async def test_an_answer_that_is_packed_all_the_same_is_read_as_far_as_it_may_be_large() -> None:
    """A small body that unpacks to 64 MiB: what is read of it is no JSON, and that is all."""
    bomb = gzip.compress(b" " * (64 * 1024 * 1024), 9)
    task = gzip.compress(b'{"data":{"task_id":"8","task_status":"submitted"}}')
    packed = "Content-Encoding: gzip"
    async with server(says(200, bomb, packed)) as url, client(url) as api:
        assert isinstance(await submit(api), Ambiguous)
    async with server(says(200, task, packed)) as url, client(url) as api:
        assert isinstance(await api.query("8"), Found)


def again_and_again(piece: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return talk


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H"])
async def test_the_head_of_a_file_comes_in_time_or_not_at_all(piece: bytes) -> None:
    """However often something comes that is no head yet: the download slot is free again."""
    async with server(again_and_again(piece)) as url, client(url, stall_timeout_s=0.2) as api:
        with pytest.raises(BrokenFetchError):
            async with asyncio.timeout(30), api.fetch(f"{url}/x.mp4?sig=1"):
                pytest.fail("there was no head")


async def test_redirects_do_not_prolong_the_wait_for_the_head() -> None:
    """Each hop comes just in time."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()

    async with server(talk) as url, client(url, stall_timeout_s=0.6) as api:
        with pytest.raises(BrokenFetchError, match="in time"):
            async with api.fetch(f"{url}/x.mp4"):
                pytest.fail("there was no head")
