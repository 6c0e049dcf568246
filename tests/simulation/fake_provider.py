"""The provider, in memory: what it knows outlives every run, as the real one does.

`Provider` is the truth (tasks, payments, what was asked when). `FakeApi` is one process's way to it,
with everything that can go wrong on that way.
"""

from __future__ import annotations

import functools
import random
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mortal import Life
from virtual_time import EPOCH, VirtualLoop

from batch.callbacks.hints import Hints
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
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    NotFound,
    QueryAnswer,
    Refused,
    Saturated,
    SubmitAnswer,
    Task,
    TaskStatus,
    Throttled,
    Unavailable,
)
from batch.sandbox.video.clips import render
from batch.sandbox.video.mp4 import free_header

WORKS, SILENT, ABSENT, RELAY = "works", "silent", "absent", "relay"
"""What a look-up by external id comes to: the task; no usable answer; "not found", always; another
task, whatever was asked for."""
INVALID, FORBIDDEN, MODERATED, FAILS = "(invalid)", "(forbidden)", "(moderated)", "(fails"


@dataclass
class Rates:
    """How often what goes wrong; all between 0 and 1."""

    submit: float = 0.0
    query: float = 0.0
    fetch: float = 0.0
    throttle: float = 0.0
    disk: float = 0.0
    store: float = 0.0


@dataclass
class Ways:
    """How this provider is."""

    look_up: str = WORKS
    refuses_duplicates: bool = True
    checks_duplicates_first: bool = True
    tells_external_id: bool = True
    cap: int = 1000
    invisible_s: float = 0.0
    generation_s: float = 60.0
    link_lasts_s: float = 600.0
    resumes: bool = True
    clip_bytes: int = 5000
    knows_other_keys: bool = True  # whether a look-up by external id finds what another key sent
    calls_back: float | None = None  # how many of its callbacks arrive; None: nobody asked for any


@dataclass
class ProviderTask:
    """A task: paid for."""

    task_id: str
    external_task_id: str
    prompt: str
    created: float
    visible: float
    ends: float
    fails: str | None
    content: bytes = b""
    account: str = ""
    callback_url: str | None = None


@dataclass
class Post:
    """A request that left a process."""

    external_task_id: str
    at: float
    run: int
    task_id: str | None = None
    prompt: str = ""


@cache
def _template() -> bytes:
    return render("simulation", "", "1:1", 5).content()


def video(task_id: str, size: int) -> bytes:
    """Make a whole video of *size* bytes that differs from every other task's."""
    filler = random.Random(task_id).randbytes(max(size - len(_template()) - 8, 32))
    return _template() + free_header(len(filler)) + filler


class Provider:
    """Creates tasks, and remembers everything."""

    def __init__(self, ways: Ways, rng: random.Random) -> None:
        self.ways, self.rng = ways, rng
        self.tasks: dict[str, ProviderTask] = {}
        self.by_external: dict[str, ProviderTask] = {}  # the latest of that id
        self.failures_left: Counter[str] = Counter()
        self.posts: list[Post] = []
        self.looks: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.called_back: dict[str, list[float]] = defaultdict(list)  # when an end was announced
        self.misnamed: set[str] = set()  # forged callbacks for another attempt have named these
        self.said_success: set[str] = set()
        self.duplicates_paid: list[str] = []
        self.no_credit = False
        self._travelling: list[tuple[float, int, dict[str, Any]]] = []
        self._answers: dict[int, SubmitAnswer] = {}
        self._tickets = 0
        self.on_created: Callable[[ProviderTask], None] = lambda _task: None

    def send(self, body: dict[str, Any], arrives: float) -> int:
        """A request has left; it arrives even if its sender dies."""
        self._tickets += 1
        insort(self._travelling, (arrives, self._tickets, body), key=lambda item: item[:2])
        return self._tickets

    def answer(self, ticket: int, now: float) -> SubmitAnswer | None:
        """Return what became of a request, once it has arrived."""
        self.catch_up(now)
        return self._answers.pop(ticket, None)

    def catch_up(self, now: float) -> None:
        """Take in what has arrived by now."""
        while self._travelling and self._travelling[0][0] <= now:
            at, ticket, body = self._travelling.pop(0)
            self._answers[ticket] = self._receive(body, at)

    def open_tasks(self, now: float) -> int:
        """Count the tasks that are being made."""
        return sum(task.ends > now for task in self.tasks.values())

    def find(self, external_task_id: str, account: str) -> ProviderTask | None:
        """Look for a task by our id, as the provider's own index does."""
        match self.ways.look_up:
            case "works":
                task = self.by_external.get(external_task_id)
                is_seen = self.ways.knows_other_keys or task is None or task.account == account
                return task if is_seen else None
            case "relay" if self.tasks:
                return next(iter(self.tasks.values()))
            case _:
                return None

    def _receive(self, body: dict[str, Any], now: float) -> SubmitAnswer:
        external_task_id = body["external_task_id"]
        exists = self.ways.refuses_duplicates and external_task_id in self.by_external
        taken = Exists(_failure(FailureKind.UNCONFIRMED, "external_task_id exists", 400, "1201"))
        if exists and self.ways.checks_duplicates_first:
            return taken
        if self.no_credit:
            return AccountRefused(_failure(FailureKind.ACCOUNT, "no credit", 429, "1102"))
        if self.open_tasks(now) >= self.ways.cap:
            return Saturated(_failure(FailureKind.RATE_LIMITED, "parallel", 429, "1303"))
        if exists:
            return taken
        prompt = body["prompt"]
        if INVALID in prompt:
            return Refused(_failure(FailureKind.INVALID_REQUEST, "bad value", 400, "1200"))
        if FORBIDDEN in prompt:
            return Refused(_failure(FailureKind.MODERATION, "policy", 400, "1301"))
        task = self._create(external_task_id, prompt, now)
        task.account, task.callback_url = body["account"], body.get("callback_url")
        self.on_created(task)
        return Created(self.told(task, TaskStatus.SUBMITTED))

    def _create(self, external_task_id: str, prompt: str, now: float) -> ProviderTask:
        if external_task_id in self.by_external:
            self.duplicates_paid.append(external_task_id)
        task_id = str(800_000_000_000_000_000 + len(self.tasks))
        fails = None
        if MODERATED in prompt:
            fails = "Failure to pass the risk control system"
        elif self.failures_left[prompt] > 0:
            self.failures_left[prompt] -= 1
            fails = "generation error"
        took = self.ways.generation_s * self.rng.lognormvariate(0.0, 0.6)
        task = ProviderTask(
            task_id=task_id,
            external_task_id=external_task_id,
            prompt=prompt,
            created=now,
            visible=now + self.rng.random() * self.ways.invisible_s,
            ends=now + took,
            fails=fails,
            content=b"" if fails else video(task_id, self.ways.clip_bytes),
        )
        self.tasks[task_id] = self.by_external[external_task_id] = task
        return task

    def told(self, task: ProviderTask, status: TaskStatus, url: str | None = None) -> Task:
        """Return the task as an answer tells it."""
        return Task(
            task_id=task.task_id,
            status=status,
            url=url,
            message=task.fails or "" if status is TaskStatus.FAILED else "",
            external_task_id=task.external_task_id if self.ways.tells_external_id else None,
            created_at=EPOCH + task.created,
            updated_at=EPOCH + task.ends if status is TaskStatus.SUCCEEDED else None,
            request_id=f"r-{task.task_id}",
        )


class FakeApi:
    """One process's `VideoApi`."""

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
    ) -> None:
        self._account = account
        self.provider, self.rates, self.rng = provider, rates, rng
        self._run, self._loop, self._clock, self._life = run, loop, clock, life
        self._request_timeout_s, self._late_s, self._offline = request_timeout_s, late_s, offline
        self.calls: list[float] = []
        self.on_post: Callable[[], None] = lambda: None

    # -- submit

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> SubmitAnswer | Unsent | Stale:
        self.calls.append(self._loop.time())
        await self._life.reach("submit: before connecting")
        await self._pause(14.0 if self._happens(self.rates.submit / 8) else 0.3)
        if self._is_offline() or self._happens(self.rates.submit / 4):
            return Unsent(_failure(FailureKind.NETWORK, "connection refused"))
        if self._clock.monotonic() > not_after:
            return Stale(_failure(FailureKind.NETWORK, "too late"))
        await self._life.reach("submit: before sending")
        post = Post(body["external_task_id"], self._loop.time(), self._run, prompt=body["prompt"])
        self.on_post()
        self.provider.posts.append(post)
        if self._happens(self.rates.throttle):
            return await self._refuse()
        fault = self.rng.choice(("before", "after", "late")) if self._faulty_submit() else None
        is_hang = fault is not None and self.rng.random() < 0.3
        if fault == "before":
            return await self._no_answer(is_hang=is_hang)
        travel = self.rng.random() * (self._late_s if fault == "late" else 0.5)
        ticket = self.provider.send({**body, "account": self._account}, self._loop.time() + travel)
        await self._life.reach("submit: sent")
        if fault == "late":
            return await self._no_answer(is_hang=is_hang)
        await self._pause_for(travel)
        answer = self.provider.answer(ticket, self._loop.time() + 1e-6)
        assert answer is not None
        await self._life.reach("submit: created")
        if fault == "after":
            return await self._no_answer(is_hang=is_hang)
        await self._pause(0.5)
        if self._is_offline():
            return await self._no_answer(is_hang=True)
        await self._life.reach("submit: answered")
        if isinstance(answer, Created):
            post.task_id = answer.task.task_id
        return answer

    def _faulty_submit(self) -> bool:
        return self._is_offline() or self._happens(self.rates.submit)

    async def _refuse(self) -> SubmitAnswer:
        await self._pause(0.5)
        retry_after_s = self.rng.choice((None, None, 1.0, 20.0))
        failure = _failure(FailureKind.RATE_LIMITED, "slow down", 429, "1302")
        if self.rng.random() < 0.3:
            return Saturated(failure, retry_after_s)
        return Throttled(failure, retry_after_s)

    async def _no_answer(self, *, is_hang: bool) -> Ambiguous:
        if is_hang:
            await self._pause_for(self._request_timeout_s)
        else:
            await self._pause(1.0)
        await self._life.reach("submit: answer lost")
        return Ambiguous(_failure(FailureKind.NETWORK, self.rng.choice(("reset", "502", "HTML"))))

    # -- query

    async def query(self, identifier: str) -> QueryAnswer:
        now = self._loop.time()
        self.provider.looks[identifier].append((self._run, now))
        await self._life.reach("query: before")
        await self._pause(0.4)
        if self._is_offline():
            await self._pause_for(self._request_timeout_s * self.rng.random())
            return Unavailable(_failure(FailureKind.NETWORK, "no network"))
        now = self._loop.time()
        self.provider.catch_up(now)
        by_external = identifier in self.provider.by_external or not identifier.isdigit()
        fault = self._query_fault(by_external=by_external)
        if fault is not None:
            return fault
        if by_external:
            if self.provider.ways.look_up == SILENT:
                return Unavailable(_failure(FailureKind.PROVIDER, "HTTP 404 page", 404))
            task = self.provider.find(identifier, self._account)
        else:
            task = self.provider.tasks.get(identifier)
        await self._life.reach("query: answered")
        if task is None or task.visible > now:
            return NotFound(_failure(FailureKind.PROVIDER, "task not exist", 404, "1203"))
        return Found(self._as_it_stands(task, now))

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
            self._loop.call_at(
                arrives,
                functools.partial(
                    hints.come,
                    task.external_task_id,
                    named,
                    EPOCH + at,
                    has_ended=has_ended or is_forged,
                    # Whoever has the token and our id as well can only be the provider.
                    names_us=self.rng.random() < 0.5 and not is_forged,
                ),
            )

    def _query_fault(self, *, by_external: bool) -> QueryAnswer | None:
        if not self._happens(self.rates.query):
            return None
        match self.rng.randrange(8):
            case 0:
                return AccountRefused(_failure(FailureKind.ACCOUNT, "unauthorized", 401, "1000"))
            case 1:
                failure = _failure(FailureKind.RATE_LIMITED, "slow down", 429, "1302")
                return Unavailable(failure, self.rng.choice((None, 15.0)))
            case 2 if not by_external:
                return NotFound(_failure(FailureKind.PROVIDER, "task not exist", 404, "1203"))
            case 3 if not by_external and self.provider.tasks:
                other = self.rng.choice(list(self.provider.tasks.values()))
                return Found(self._as_it_stands(other, self._loop.time()))
            case _:
                return Unavailable(_failure(FailureKind.PROVIDER, "garbled", 502))

    def _as_it_stands(self, task: ProviderTask, now: float) -> Task:
        tell = self.provider.told
        wrong = self._happens(self.rates.query)
        if now < task.ends:
            steps = (TaskStatus.SUBMITTED, TaskStatus.PROCESSING, TaskStatus.UNKNOWN)
            step = TaskStatus.PROCESSING if now > task.created + 5 else TaskStatus.SUBMITTED
            return tell(task, self.rng.choice(steps) if wrong else step)
        if wrong:  # a status that goes backwards
            return tell(task, self.rng.choice((TaskStatus.PROCESSING, TaskStatus.UNKNOWN)))
        if task.fails is not None:
            return tell(task, TaskStatus.FAILED)
        self.provider.said_success.add(task.task_id)
        url = f"https://cdn/{task.task_id}?{now!r}"
        return tell(task, TaskStatus.SUCCEEDED, None if self._happens(self.rates.query) else url)

    # -- fetch

    def fetch(self, url: str, *, start: int = 0, validator: str | None = None) -> _Fetch:
        return _Fetch(self, url, start, validator)

    async def open(self, url: str, start: int, validator: str | None) -> _Stream:
        await self._life.reach("fetch: before")
        await self._pause(0.5)
        task_id, _, issued = url.removeprefix("https://cdn/").partition("?")
        task = self.provider.tasks[task_id]
        if self._is_offline():
            raise BrokenFetchError(_failure(FailureKind.DOWNLOAD, "no network"))
        if self._loop.time() - float(issued) > self.provider.ways.link_lasts_s:
            raise ExpiredLinkError(_failure(FailureKind.DOWNLOAD, "expired", 403))
        fault = self.rng.randrange(12) if self._happens(self.rates.fetch) else None
        if fault == 0:
            raise BrokenFetchError(_failure(FailureKind.DOWNLOAD, "HTTP 503", 503))
        if fault == 1:
            raise ExpiredLinkError(_failure(FailureKind.DOWNLOAD, "HTML"))
        if fault == 2 and start:
            raise UselessPartError(_failure(FailureKind.DOWNLOAD, "HTTP 416", 416))
        # Under another tag: what begins with zeros and goes on as the true file, nobody could tell.
        is_another = fault in {3, 7}
        etag: str | None = f'"{task_id}-{self._loop.time()}"' if is_another else f'"{task_id}"'
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
                content, total = content[: self.rng.randrange(len(_template()))], None
            case 9:
                content += b"<html>and more</html>"
        most = min(len(content), len(_template()))
        cut = self.rng.randrange(most) if fault in {6, 10, 11} else None
        return _Stream(self, start, total, etag, content[start:], cut, silent=fault == 11)

    # -- the weather

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


def _failure(
    kind: FailureKind, message: str, status: int | None = None, code: str | None = None
) -> Failure:
    return Failure(kind, message, code=code, http_status=status, request_id=None)
