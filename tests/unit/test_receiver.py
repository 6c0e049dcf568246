"""The receiver: the right status for every request, and hints from valid callbacks only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from patience import PATIENCE_S, until_so

from batch.callbacks import receiver
from batch.callbacks.hints import Hint, Hints, hash_token, new_token
from batch.errors import UsageError

TOKEN = "t" * 43
OURS = "kb-1"
ENDED = {
    "task_id": "8",
    "task_status": "succeed",
    "task_status_msg": "",
    "created_at": 1722769557708,
    "updated_at": 1722769557708,
    "task_info": {"external_task_id": OURS},
    "task_result": {"videos": [{"id": "1", "url": "https://cdn/8.mp4", "duration": "5"}]},
}
NEWER = {
    "id": "8",
    "status": "succeeded",
    "message": "",
    "create_time": 1781080778802,
    "update_time": 1781080794151,
}


class Visitor:
    """Speaks to a receiver over plain connections."""

    def __init__(self, address: str, hint: Hint) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port, self.hint = host.strip("[]"), int(port), hint

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def send(self, data: bytes) -> bytes:
        """Send bytes as they are, and return the whole answer."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()

    async def post(
        self,
        body: Any,
        *,
        path: str = f"/{TOKEN}",
        method: str = "POST",
        headers: str = "",
        is_chunked: bool = False,
    ) -> int:
        """Send a request, and return the status of its answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = f"Content-Length: {len(data)}\r\n"
        if is_chunked:
            data = b"".join(
                b"%x\r\n%b\r\n" % (len(piece), piece)
                for piece in (data[at : at + 4096] for at in range(0, len(data), 4096))
            )
            data, length = data + b"0\r\n\r\n", "Transfer-Encoding: chunked\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: here\r\n{length}{headers}\r\n"
        answer = await self.send(head.encode("utf-8", "surrogateescape") + data)
        return int(answer.split()[1])


@asynccontextmanager
async def listening(address: str = "127.0.0.1:0") -> AsyncIterator[Visitor]:
    """Listen for one attempt's callbacks."""
    hints = Hints()
    with hints.expect(OURS, hash_token(TOKEN)) as hint:
        async with receiver.listen(address, hints) as where:
            yield Visitor(where, hint)


@pytest.mark.parametrize(
    "body",
    [
        ENDED,
        {**ENDED, "task_status": "failed", "task_status_msg": "no"},
        {"code": 0, "message": "SUCCEED", "request_id": "r", "data": ENDED},
        {
            "code": "success",
            "message": "",
            "data": {"task_id": "8", "status": "SUCCESS", "data": ENDED},
        },
        NEWER,
        {**NEWER, "status": "failed", "external_id": OURS},
    ],
    ids=["bare", "bare-failed", "enveloped", "relayed", "newer", "newer-failed"],
)
async def test_every_known_shape_of_an_end_wakes(body: dict[str, Any]) -> None:
    """Bare task objects, the enveloped shapes, and the newer form, signed or not."""
    signed = "webhook-id: 9\r\nwebhook-timestamp: 1781080794\r\nwebhook-signature: v1,UsKl=\r\n"
    async with listening() as it:
        assert await it.post(body, headers=signed) == 204
        assert it.hint.ended.is_set()
        assert it.hint.task_id == "8"


@pytest.mark.parametrize("status", ["submitted", "processing", "dancing"])
async def test_change_without_end_only_names_the_task(status: str) -> None:
    async with listening() as it:
        assert await it.post({**ENDED, "task_status": status}) == 204
        assert (it.hint.named.is_set(), it.hint.ended.is_set()) == (True, False)


@pytest.mark.parametrize(
    "body",
    [
        {**ENDED, "task_info": {"external_task_id": "kb-2"}},
        {},
        [],
        None,
        "succeed",
        {"task_status": "succeed"},
        {"task_id": None, "task_status": "succeed"},
        {"task_id": {"a": 1}, "task_status": ["succeed"]},
    ],
    ids=["another-task", "empty", "list", "null", "text", "no-id", "null-id", "odd-types"],
)
async def test_callback_without_our_task_changes_nothing(body: Any) -> None:
    """It is JSON and has the token, so the sender gets no error."""
    async with listening() as it:
        assert await it.post(body) == 204
        assert not it.hint.named.is_set()


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"path": "/wrong"}, 404),
        ({"path": "/"}, 404),
        ({"path": f"/{TOKEN}-wrong"}, 404),
        ({"path": f"/{TOKEN}/"}, 404),
        ({"path": f"/{TOKEN[:-1]}"}, 404),
        ({"path": f"/?token={TOKEN}"}, 404),
        ({"path": "/%ff%00%80"}, 404),
        ({"path": "/" + "a" * 5000}, 404),
        ({"method": "GET"}, 405),
        ({"method": "HEAD"}, 405),
        ({"method": "PUT"}, 405),
        ({"method": "DELETE", "path": "/wrong"}, 405),
        ({"body": b"x" * (64 * 1024 + 1)}, 413),
        ({"body": b'"' + b"x" * 100_000 + b'"', "is_chunked": True}, 413),
        ({"body": b"x" * 2_000_000}, 413),
        ({"body": b"x" * 2_000_000, "is_chunked": True}, 413),
        ({"body": b"x" * 2_000_000, "path": "/wrong"}, 404),
        ({"body": b""}, 400),
        ({"body": b"task_id=8&task_status=succeed"}, 400),
        ({"body": json.dumps(ENDED).encode()[:-1]}, 400),
        ({"body": b"\xff\xfe"}, 400),
        ({"body": b"[" * 60_000}, 400),
        ({"body": b'{"task_id": ' + b"9" * 50_000 + b', "task_status": "succeed"}'}, 400),
        ({"headers": "Content-Encoding: gzip\r\n", "body": b"\x1f\x8b\x08\x00zzz"}, 400),
    ],
)
async def test_invalid_callback_gets_the_right_status(
    how: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No poller wakes, and nothing is logged."""
    async with listening() as it:
        assert await it.post(**{"body": ENDED, **how}) == status
        assert not it.hint.named.is_set()
        assert await it.post(ENDED) == 204, "the next one is recorded"
    assert not caplog.records


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 - 1])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_body_up_to_the_limit_is_accepted(size: int, is_chunked: bool) -> None:
    data = json.dumps(ENDED).encode()
    async with listening() as it:
        assert await it.post(data + b" " * (size - len(data)), is_chunked=is_chunked) == 204
        assert it.hint.ended.is_set()


@pytest.mark.parametrize("path", ["/kling/", "/", "//", "/a/b/c/", "/wrong/../"])
async def test_any_prefix_may_precede_the_token(path: str) -> None:
    """A reverse proxy may leave the prefix, or take it away; a query changes nothing."""
    async with listening() as it:
        assert await it.post(ENDED, path=f"{path}{TOKEN}?provider=comet") == 204


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n".encode(),
        b"POST /\xff\xfe HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["tls", "short", "version", "long-path", "headers", "bad-chunks", "bad-length", "bytes"],
)
async def test_noise_is_refused(
    noise: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Anything but HTTP gets a 4xx, and no traceback is printed."""
    async with listening() as it:
        answer = await it.send(noise)
        assert not answer or answer.split()[1].startswith(b"4"), answer[:80]
        assert await it.post(ENDED) == 204
    assert not caplog.records
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_sender_that_hangs_up_is_no_bug(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It promises ten bytes, sends two, and is gone."""
    async with listening() as it:
        for _ in range(5):
            _, writer = await it.connect()
            writer.write(
                f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{}}".encode()
            )
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.transport.abort()
        assert await it.post(ENDED) == 204
    assert not caplog.records
    assert "".join(capfd.readouterr()) == ""


async def test_trickling_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With status 408 and no traceback; other requests are served meanwhile."""
    monkeypatch.setattr(receiver, "READ_TIMEOUT_S", 0.1)
    async with listening() as it:
        reader, writer = await it.connect()
        writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        trickle = asyncio.create_task(_trickle(writer))
        assert await it.post(ENDED) == 204
        # The status line alone: the bytes that still trickle in may end in a reset.
        answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        assert answer.split()[1] == b"408"
        trickle.cancel()
        writer.close()


async def _trickle(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "opening",
    [b"", b"POST /", f"POST /{TOKEN} HTTP/1.1\r\nA: ".encode()],
    ids=["nothing", "a-word", "a-head"],
)
async def test_no_connection_lasts(opening: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that sends nothing nor one that never ends its head."""
    monkeypatch.setattr(receiver, "CONNECTION_LASTS_S", 0.1)
    async with listening() as it:
        reader, writer = await it.connect()
        writer.write(opening)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()


async def test_idle_connections_do_not_block_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 connections that send nothing: the oldest make room, and leaving waits for none."""
    for name in ("CONNECTION_LASTS_S", "SHUTDOWN_S"):
        monkeypatch.setattr(receiver, name, 10 * PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S), listening() as it:
        held = [await it.connect() for _ in range(300)]

        def gone() -> int:
            return sum(reader.at_eof() or reader.exception() is not None for reader, _ in held)

        assert await it.post(ENDED) == 204
        await until_so(lambda: gone() >= 300 - receiver.MAX_CONNECTIONS)
    for _, writer in held:
        writer.close()


async def test_right_and_wrong_token_take_equal_time() -> None:
    """The answer's time tells nothing: medians of many, in turn, within a generous factor."""
    hints = Hints()
    hints.renew(OURS, hash_token(TOKEN))
    times: dict[str, list[int]] = {TOKEN: [], new_token(OURS): []}
    for _ in range(2000):
        for token, taken in times.items():
            begun = time.thread_time_ns()
            hints.owner(token)
            taken.append(time.thread_time_ns() - begun)
    right, wrong = (sorted(taken)[1000] for taken in times.values())
    assert 0.6 < right / wrong < 1.6


async def test_ipv6_is_listened_on() -> None:
    try:
        async with listening("[::1]:0") as it:
            assert it.host == "::1"
            assert await it.post(ENDED) == 204
    except UsageError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{taken}", "203.0.113.1:0", "no.such.host.invalid:0"]
)
async def test_unusable_address_is_reported(address: str) -> None:
    """A taken port, a foreign address, an unknown name: one sentence, with the option's name."""
    async with listening() as it:
        with pytest.raises(UsageError, match="--callback-listen.*nothing was sent"):
            async with receiver.listen(address.format(taken=it.port), Hints()):
                pass
