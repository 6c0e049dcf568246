"""The way of one process to the provider of the nights.

The line may break, an answer may be lost or late, and the process may die at each step. Every answer
that arrives is read by the client's own `wire`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fake_provider import Post, Provider, ProviderTask, Rates, template
from mortal import Life
from virtual_time import EPOCH, VirtualLoop

from batch.callbacks.hints import Hints, News
from batch.clock import Clock
from batch.job import Failure, FailureKind
from batch.provider.protocol import (
    BrokenFetchError,
    ExpiredLinkError,
    Stale,
    Unsent,
    UselessPartError,
)
from batch.provider.wire import (
    Ambiguous,
    Created,
    Found,
    QueryAnswer,
    SubmitAnswer,
    TaskStatus,
    Unavailable,
    read_query,
    read_submit,
)
from batch.sandbox.canned import CANNED
from batch.sandbox.shapes import Answer


class FakeApi:
    """The `VideoApi` of one process; at a wrong address a *page* answers every request."""

    def __init__(
        self,
        provider: Provider,
        *,
        run: int,
        loop: VirtualLoop,
        clock: Clock,
        life: Life,
        rates: Rates,
        rng: random.Random,
        request_timeout_s: float,
        late_s: float,
        offline: tuple[float, float] = (0.0, 0.0),
        account: str = "",
        page: str | None = None,
    ) -> None:
        self._account, self._page = account, page
        self.provider, self.rates, self.rng = provider, rates, rng
        self._run, self._loop, self._clock, self._life = run, loop, clock, life
        self._request_timeout_s, self._late_s, self._offline = request_timeout_s, late_s, offline
        self.calls: list[float] = []
        self.on_post: Callable[[], None] = lambda: None
        provider.set_rates(rates)

    # -- submit

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> SubmitAnswer | Unsent | Stale:
        called = self._loop.time()
        self.calls.append(called)
        await self._life.reach("submit: before connecting")
        await self._pause(14.0 if self._happens(self.rates.submit / 8) else 0.3)
        if self._is_offline() or self._happens(self.rates.submit / 4):
            return Unsent(_failure(FailureKind.NETWORK, "connection refused"))
        if self._clock.monotonic() > not_after:
            self.calls.remove(called)  # nothing left
            return Stale(_failure(FailureKind.NETWORK, "too late"))
        await self._life.reach("submit: before sending")
        post = Post(body["external_task_id"], self._loop.time(), self._run, prompt=body["prompt"])
        self.on_post()
        self.provider.posts.append(post)
        if self._page is not None:
            await self._pause(1.0)
            return self._read(CANNED[self._page].answer(""), resent=resent)
        is_faulty = self._is_offline() or self._happens(self.rates.submit)
        fault = self.rng.choice(("before", "after", "late")) if is_faulty else None
        is_hang = fault is not None and self.rng.random() < 0.3
        if fault == "before":
            return await self._no_answer(is_hang=is_hang)
        travel = self.rng.random() * (self._late_s if fault == "late" else 0.5)
        parcel = self.provider.send(body, self._account, self._loop.time() + travel)
        await self._life.reach("submit: sent")
        if fault == "late":
            return await self._no_answer(is_hang=is_hang)
        await self._pause_for(travel)
        self.provider.catch_up(self._loop.time() + 1e-6)
        came = parcel.answer
        assert came is not None
        await self._life.reach("submit: created")
        if fault == "after":
            return await self._no_answer(is_hang=is_hang)
        await self._pause(0.5)
        if self._is_offline():
            return await self._no_answer(is_hang=True)
        await self._life.reach("submit: answered")
        answer = self._read(came, resent=resent)
        if isinstance(answer, Created):
            post.task_id = answer.task.task_id
        return answer

    def _read(self, came: Answer, *, resent: bool) -> SubmitAnswer:
        now = self._clock.now()
        return read_submit(came.status, came.headers, came.body, resent=resent, now=now)

    async def _no_answer(self, *, is_hang: bool) -> Ambiguous:
        if is_hang:
            await self._pause_for(self._request_timeout_s)
        else:
            await self._pause(1.0)
        await self._life.reach("submit: answer lost")
        return Ambiguous(_failure(FailureKind.NETWORK, "reset"))

    # -- query

    async def query(self, identifier: str) -> QueryAnswer:
        self.provider.looks[identifier].append((self._run, self._loop.time()))
        await self._life.reach("query: before")
        await self._pause(0.4)
        if self._is_offline():
            await self._pause_for(self._request_timeout_s * self.rng.random())
            return Unavailable(_failure(FailureKind.NETWORK, "no network"))
        if self._page is None:
            came = self.provider.query(identifier, self._account, self._loop.time())
        else:
            came = CANNED[self._page].answer("")
        await self._life.reach("query: answered")
        now = self._clock.now()
        answer = read_query(came.status, came.headers, came.body, now=now, asked=identifier)
        if isinstance(answer, Found) and answer.task.status is TaskStatus.SUCCEEDED:
            self.provider.said_success.add(answer.task.task_id)
        return answer

    # -- callbacks

    def call_back(self, hints: Hints) -> None:
        """Have the callbacks of all open tasks, and of those to come, arrive in this process."""
        for task in self.provider.tasks.values():
            self._schedule_callbacks(task, hints)
        self.provider.on_created = lambda task: self._schedule_callbacks(task, hints)

    def _schedule_callbacks(self, task: ProviderTask, hints: Hints) -> None:
        """Late, lost, twice, out of order and forged ones included."""
        rate = self.provider.ways.calls_back
        if rate is None or task.callback_url is None:
            return
        if self._loop.is_closed():  # the request arrived when the process had ended
            return
        lag_s = self.rng.choice((0.1, 0.1, 5.0, 90.0))
        for at, has_ended in ((task.created, False), (task.ends, True), (task.ends, True)):
            if at + lag_s < self._loop.time() or self.rng.random() >= rate:
                continue
            is_forged = self.rng.random() < 0.1
            named = self.rng.choice([*self.provider.tasks, "4711"]) if is_forged else task.task_id
            arrives = max(at + self.rng.random() * lag_s, self._loop.time())
            if named != task.task_id:
                self.provider.misnamed.add(named)
            if has_ended or is_forged:
                self.provider.called_back[task.task_id].append(arrives)
            # Only the provider has both the token and our id.
            names_us = self.rng.random() < 0.5 and not is_forged
            news = News(named, EPOCH + at, has_ended or is_forged, names_us)
            self._loop.call_at(arrives, hints.record, task.external_task_id, news)

    # -- fetch

    def fetch(self, url: str, *, start: int = 0, validator: str | None = None) -> _Fetch:
        return _Fetch(self, url, start, validator)

    async def open(self, url: str, start: int, validator: str | None) -> _Stream:
        await self._life.reach("fetch: before")
        await self._pause(0.5)
        if self._is_offline():
            raise BrokenFetchError(_failure(FailureKind.DOWNLOAD, "no network"))
        task = self.provider.linked(url, self._loop.time())
        if task is None:
            raise ExpiredLinkError(_failure(FailureKind.DOWNLOAD, "expired", 403))
        fault = self.rng.randrange(12) if self._happens(self.rates.fetch) else None
        if fault == 0:
            raise BrokenFetchError(_failure(FailureKind.DOWNLOAD, "HTTP 503", 503))
        if fault == 1:
            raise ExpiredLinkError(_failure(FailureKind.DOWNLOAD, "HTML"))
        if fault == 2 and start:
            raise UselessPartError(_failure(FailureKind.DOWNLOAD, "HTTP 416", 416))
        # Under another tag: nothing could tell a file that begins with zeros and goes on as the true one.
        is_another = fault in {3, 7}
        etag: str | None = (
            f'"{task.task_id}-{self._loop.time()}"' if is_another else f'"{task.task_id}"'
        )
        if not self.provider.ways.resumes or fault == 4:
            etag = None
        if validator is None or validator != etag or fault == 5:
            start = 0
        content, total = task.content, len(task.content) if fault != 6 else None
        match fault:
            case 7:  # a file whose end was never written
                content = content[: len(content) // 4] + bytes(len(content) - len(content) // 4)
            case 8:
                # Within the video: without the `free` box behind it, it is a whole one too.
                content, total = content[: self.rng.randrange(len(template()))], None
            case 9:
                content += b"<html>and more</html>"
        most = min(len(content), len(template()))
        cut = self.rng.randrange(most) if fault in {6, 10, 11} else None
        return _Stream(self, start, total, etag, content[start:], cut, silent=fault == 11)

    # -- the line

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self.rng.random() < rate

    def _is_offline(self) -> bool:
        return self._offline[0] <= self._loop.time() < self._offline[1]

    async def _pause(self, at_most_s: float) -> None:
        await self._pause_for(self.rng.random() * at_most_s)

    async def _pause_for(self, seconds: float) -> None:
        done = self._loop.create_future()
        timer = self._loop.call_later(seconds, _settle, done)
        try:
            await done
        finally:
            timer.cancel()


@dataclass
class _Fetch:
    """An open connection, as a context."""

    api: FakeApi
    url: str
    start: int
    validator: str | None

    async def __aenter__(self) -> _Stream:
        return await self.api.open(self.url, self.start, self.validator)

    async def __aexit__(self, *_exc: object) -> None:
        return None


@dataclass
class _Stream:
    """A body to come. *cut*: the connection ends there, with an error or (*silent*) without."""

    api: FakeApi
    start: int
    total: int | None
    validator: str | None
    body: bytes
    cut: int | None
    silent: bool
    _at: int = field(default=0)

    def chunks(self) -> _Stream:
        return self

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:
        await self.api._life.reach("fetch: chunk")
        await self.api._pause(1.0)
        end = len(self.body) if self.cut is None else min(self.cut, len(self.body))
        if self.api._is_offline() or (self._at >= end and self.cut is not None and not self.silent):
            await self.api._pause_for(30.0 * self.api.rng.random())
            raise BrokenFetchError(_failure(FailureKind.DOWNLOAD, "reset"))
        if self._at >= end:
            raise StopAsyncIteration
        size = self.api.rng.randint(1, max(1, len(self.body)))
        piece = self.body[self._at : min(self._at + size, end)]
        self._at += len(piece)
        return piece


def _settle(done: Any) -> None:
    if not done.done():
        done.set_result(None)


def _failure(kind: FailureKind, message: str, status: int | None = None) -> Failure:
    return Failure(kind, message, http_status=status)
