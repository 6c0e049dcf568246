"""The client against servers of any kind: what they send, and what they get to see."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import Any

import pytest
from loopback import KEY, client, says, server

from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Found,
    NotFound,
    Refused,
    Unsent,
)
from batch.provider.client import Client
from batch.provider.network import USER_TIMEOUT
from batch.provider.protocol import DELIVERED_WITHIN_S, ExpiredLinkError


async def submit(api: Client) -> Any:
    return await api.submit({"prompt": "x"}, not_after=float("inf"), resent=False)


@pytest.mark.parametrize("slash", ["/", r"\/", r"\u002f", r"\\\\/"])
@pytest.mark.parametrize("where", ["message", "request_id", "code", "header", "long"])
async def test_quoted_key_is_in_no_answer(slash: str, where: str) -> None:
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


async def test_header_with_the_key_is_no_request_id() -> None:
    key = "sk-verysecretkey0123456789"
    talk = says(400, b'{"code":1200}', f"X-Request-Id: {key}")
    async with server(talk) as url, client(url, key=key) as api:
        assert (await submit(api)).failure.request_id is None


async def test_task_beside_the_key_is_found() -> None:
    told = {"data": {"task_id": "8", "task_status": "failed", "task_status_msg": f"key {KEY}"}}
    body = json.dumps(told).replace("/", r"\/").encode()
    async with server(says(200, body, f"X-Request-Id: {KEY}")) as url, client(url) as api:
        answer = await api.query("8")
        assert isinstance(answer, Found)
        assert answer.task.message == "key (the key)"
        assert answer.task.request_id is None


async def test_ours_of_a_list_of_tasks_is_found() -> None:
    listed = [{"task_id": number, "task_status": "processing"} for number in ("7", "8", "9")]
    body = json.dumps({"code": 0, "data": listed}).encode()
    async with server(says(200, body)) as url, client(url) as api:
        answer = await api.query("8")
        assert isinstance(answer, Found)
        assert answer.task.task_id == "8"


async def test_answers_are_requested_unpacked() -> None:
    """They are short; and what is packed may be a bomb."""
    seen: list[bytes] = []
    async with server(says(400, b'{"code":1200}', seen=seen)) as url, client(url) as api:
        assert isinstance(await submit(api), Refused)
        await api.query("8")
    assert [b"accept-encoding: identity" in request.lower() for request in seen] == [True, True]


async def test_packed_answer_is_read_within_bounds() -> None:
    """A small body that unpacks to 64 MiB: what is read of it is no JSON, and that is all."""
    bomb = gzip.compress(b" " * (64 * 1024 * 1024), 9)
    task = gzip.compress(b'{"data":{"task_id":"8","task_status":"submitted"}}')
    packed = "Content-Encoding: gzip"
    async with server(says(200, bomb, packed)) as url, client(url) as api:
        assert isinstance(await submit(api), Ambiguous)
    async with server(says(200, task, packed)) as url, client(url) as api:
        assert isinstance(await api.query("8"), Found)


# -- connections -----------------------------------------------------------------------------


async def test_submission_never_rides_on_an_idle_connection() -> None:
    """A server that closes what idles loses the request that comes at that moment."""
    requests: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(0)
        number = len(requests) - 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(length)
            requests[number] += 1
            body = b'{"data":{"task_id":"%d"}}' % (number + 1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            if number % 2:  # closed at once, or never: the client cannot know
                return

    async with server(talk) as url, client(url) as api:
        answers = [await submit(api) for _ in range(8)]
    assert [type(answer) for answer in answers] == [Created] * 8
    assert requests == [1] * 8


async def test_queries_reuse_their_connection() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b'HTTP/1.1 404 X\r\nContent-Length: 13\r\n\r\n{"code":1203}')
            await writer.drain()

    async with server(talk) as url, client(url) as api:
        answers = [await api.query("8") for _ in range(3)]
    assert [type(answer) for answer in answers] == [NotFound] * 3
    assert connections == 1


@pytest.mark.skipif(USER_TIMEOUT is None, reason="this platform has no TCP_USER_TIMEOUT")
async def test_submission_is_acknowledged_soon_or_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel drops what a dead link has not taken, even when the sender is gone."""
    options: dict[str, int] = {}

    class Noted(socket.socket):
        def close(self) -> None:
            if self.fileno() != -1 and self.type is socket.SOCK_STREAM:
                value = self.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT or 0)
                options[method] = max(value, options.get(method, 0))
            super().close()

    async with server(says(400, b'{"code":1200}')) as url, client(url) as api:
        monkeypatch.setattr(socket, "socket", Noted)
        method = "submit"
        assert isinstance(await submit(api), Refused)
    assert options == {"submit": int(DELIVERED_WITHIN_S * 1_000)}


# -- heads and errors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [["X-Policy: " + "x" * 60_000], [f"X-{n}: {n}" for n in range(500)]]
)
async def test_large_heads_are_read(headers: list[str]) -> None:
    body = b'{"data":{"task_id":"8","task_status":"submitted"}}'
    async with server(says(200, body, *headers)) as url, client(url) as api:
        assert isinstance(await submit(api), Created)
        assert isinstance(await api.query("8"), Found)
        async with server(says(200, b"12", *headers)) as cdn, api.fetch(cdn) as stream:
            assert [chunk async for chunk in stream.chunks()] == [b"12"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [("Content-Length: 7", "Content-Length"), ("X y: 1", "invalid header token")],
)
async def test_broken_head_is_told_with_its_reason(header: str, reason: str) -> None:
    async with server(says(200, b"{}", header)) as url, client(url) as api:
        answer = await submit(api)
        assert isinstance(answer, Ambiguous)
        assert "breaks HTTP" in answer.failure.message
        assert reason.lower() in answer.failure.message.lower()


async def test_ignored_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://joe:password@127.0.0.1:1")
    async with client("https://127.0.0.2:1") as api:
        failure = (await submit(api)).failure
        assert "HTTPS_PROXY is set, and not used" in failure.message
        assert "password" not in failure.message
        monkeypatch.setenv("NO_PROXY", "127.0.0.2")
        assert "PROXY" not in (await submit(api)).failure.message


@pytest.mark.parametrize("form", ["url", "environment"])
async def test_chosen_proxy_carries_every_request(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    async with server(says(200, b'{"data":{"task_id":"8"}}', seen=seen)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy if form == "environment" else "http://127.0.0.1:1")
        chosen = "env" if form == "environment" else proxy
        async with client("http://127.0.0.2:1", proxy=chosen) as api:
            assert isinstance(await submit(api), Created)
            assert isinstance(await api.query("8"), Found)
            with pytest.raises(ExpiredLinkError, match="page"):
                async with api.fetch("http://127.0.0.3:1/v.mp4"):
                    pytest.fail("JSON is no video")
    targets = [request.split()[1].decode() for request in seen]
    assert [target.split("/")[2] for target in targets] == ["127.0.0.2:1"] * 2 + ["127.0.0.3:1"]


async def test_refusal_of_a_proxy_sends_nothing() -> None:
    async with server(says(407, b"")) as proxy:
        async with client("https://127.0.0.2:1", proxy=proxy) as api:
            answer = await submit(api)
            assert isinstance(answer, Unsent)
            assert answer.failure.message == "the proxy refuses the connection (HTTP 407)"
        async with client("https://127.0.0.2:1", proxy="http://127.0.0.1:1") as api:
            answer = await submit(api)
            assert isinstance(answer, Unsent)
            assert "the proxy 127.0.0.1:1" in answer.failure.message
