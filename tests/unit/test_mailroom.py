"""A worker's receivers, and what it is told of others' callbacks."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from patience import PATIENCE_S, until_so
from ports import free_port

from batch.attempt import external_id
from batch.callbacks import receiver
from batch.callbacks.hints import hash_token, new_token
from batch.callbacks.mailroom import Mailroom
from batch.errors import UsageError

NAME = external_id("library", "fingerprint", 1)
TOKEN = new_token(NAME)
ENDED = json.dumps([NAME, "8", 5.0, True, True])


class Relay:
    """Answers as it is told, and keeps what it was asked; it may be held up."""

    def __init__(self, answer: bool | None = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []
        self.held: list[asyncio.Event] = []

    async def tell(self, *asked: str) -> bool | None:
        self.asked.append(asked)
        for event in self.held:
            await event.wait()
        return self.answer


async def post(port: int, token: str, body: Any) -> int:
    """Send a callback; return the status of its answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /kling/{token} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        answer = await reader.read()
        writer.close()
    return int(answer.split()[1])


def said(**values: Any) -> dict[str, Any]:
    return {"task_id": "8", "task_status": "succeed", "updated_at": 1722769557708, **values}


@pytest.mark.parametrize(("answer", "status"), [(True, 204), (False, 404), (None, 503)])
async def test_unknown_token_gets_what_the_record_says(answer: bool | None, status: int) -> None:
    relay = Relay(answer)
    mailroom, port = Mailroom(relay), free_port()
    async with mailroom.receiving(f"127.0.0.1:{port}"):
        assert await post(port, TOKEN, said(task_info={"external_task_id": NAME})) == status
    news = json.dumps([NAME, "8", 1722769557.708, True, True])
    assert relay.asked == [(NAME, hash_token(TOKEN), news)]


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        ("x" * 43, said(), 404),
        (f"{TOKEN}x", said(), 404),
        (TOKEN.upper(), said(), 404),
        (TOKEN, {"no": "task"}, 404),
        (TOKEN, said(task_info={"external_task_id": "kb-another"}), 404),
        (TOKEN, b"no json", 400),
        (TOKEN, b" " * 70_000, 413),
    ],
    ids=["no-form", "too-long", "upper", "no-task", "another-attempt", "no-json", "too-large"],
)
async def test_what_cannot_be_a_callback_asks_no_record(token: str, body: Any, status: int) -> None:
    relay = Relay()
    mailroom, port = Mailroom(relay), free_port()
    async with mailroom.receiving(f"127.0.0.1:{port}"):
        assert await post(port, token, body) == status
    assert relay.asked == []


async def test_ended_job_of_this_worker_is_no_stranger() -> None:
    """Its callback is taken whatever the record says: it may have been forgotten by now."""
    mailroom, port = Mailroom(Relay(None)), free_port()
    with mailroom.hints() as hints:
        with hints.expect(NAME, hash_token(TOKEN)):
            pass
        async with mailroom.receiving(f"127.0.0.1:{port}"):
            assert await post(port, TOKEN, said()) == 204
            assert await post(port, TOKEN, {"no": "task"}) == 204


async def test_runs_of_a_worker_share_an_address() -> None:
    """It stays open for the last of them, and is free after it."""
    mailroom, port = Mailroom(Relay()), free_port()
    address = f"127.0.0.1:{port}"
    with mailroom.hints() as first, mailroom.hints() as second:
        async with mailroom.receiving(address):
            async with mailroom.receiving(address):
                pass
            with second.expect(NAME, hash_token(TOKEN)) as hint:
                assert await post(port, TOKEN, said()) == 204
                assert hint.ended.is_set()
            assert not first.expects(NAME)
    async with mailroom.receiving(address):
        pass


async def test_taken_address_is_reported_and_tried_again() -> None:
    mailroom = Mailroom(Relay())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="cannot listen for callbacks"):
            async with mailroom.receiving(address):
                raise AssertionError
    async with mailroom.receiving(address):
        pass


@pytest.mark.parametrize(
    "text",
    [
        *("", "8", "null", "[]", "[[]]", "{}", '"', "[" * 7_000),
        json.dumps([NAME, "8", 5.0, True]),
        json.dumps([NAME, "8", "5", True, True]),
        json.dumps([NAME, 8, 5.0, True, True]),
        json.dumps([[NAME], "8", 5.0, True, True]),
        json.dumps([NAME, "8", 5.0, "yes", True]),
        json.dumps(["kb-another", "8", 5.0, True, True]),
    ],
)
def test_what_is_no_news_changes_nothing(text: str) -> None:
    """Of a new connection, a later release, or somebody else on the channel."""
    mailroom = Mailroom(Relay())
    with mailroom.hints() as hints, hints.expect(NAME, hash_token(TOKEN)) as hint:
        mailroom.hear(text)
        assert not hint.named.is_set()
        mailroom.hear(ENDED)
        assert hint.ended.is_set()


def test_run_that_is_closed_hears_nothing() -> None:
    mailroom = Mailroom(Relay())
    with mailroom.hints() as hints:
        pass
    with hints.expect(NAME, hash_token(TOKEN)) as hint:
        mailroom.hear(ENDED)
        assert mailroom.owner(TOKEN) == NAME
        assert not hint.named.is_set()


async def test_end_of_a_worker_waits_for_no_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender's connection is closed; the task is polled when it is due."""
    monkeypatch.setattr(receiver, "SHUTDOWN_S", 0.01)
    relay = Relay()
    relay.held.append(asyncio.Event())
    mailroom, port = Mailroom(relay), free_port()
    async with mailroom.receiving(f"127.0.0.1:{port}"):
        sender = asyncio.create_task(post(port, TOKEN, said()))
        await until_so(lambda: relay.asked)
    with pytest.raises((IndexError, ConnectionError)):  # no answer
        await sender
