"""For tests of one stage: a scripted provider, and the stages around it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from memory_state import MemoryState
from virtual_time import InlineExecutor, VirtualClock, VirtualLoop, run

from batch.attempt import (
    Account,
    Attempt,
    AttemptState,
    Generated,
    Intended,
    Landed,
    Open,
    PaidTask,
)
from batch.callbacks.hints import Hint, Hints
from batch.events import Downloading, Event
from batch.job import Failure, FailureKind, Video, canonical_request, fingerprint
from batch.manifest.limits import Limits, Rate
from batch.output.layout import Layout
from batch.output.rescue import Rescue
from batch.output.videos import Videos
from batch.plan import Policy
from batch.provider.answers import Found, NotFound, Task, TaskStatus, Throttled, Unavailable
from batch.provider.protocol import BrokenFetchError
from batch.run.context import RunContext
from batch.run.counts import Counts
from batch.run.feeder import Feeder
from batch.run.gate import Ticket
from batch.run.poll import Poller
from batch.run.stages import Run
from batch.run.stop import Stop
from batch.run.wiring import World, assemble
from batch.waker import Waker

T = TypeVar("T")
ACCOUNT = Account("https://scripted.example", "0a1b2c3d")
BEGUN = 1_790_000_000.0
SAID = Failure(FailureKind.PROVIDER, "said so")
NOT_FOUND = NotFound(SAID)
NO_ANSWER = Unavailable(SAID)
TOO_FAST = Throttled(Failure(FailureKind.RATE_LIMITED, "slow down", "1302", 429))


def attempt(state: AttemptState | None = None, *, name: str = "kb-1", job_id: str = "a") -> Attempt:
    """Return an attempt, by default *Intended*."""
    request = canonical_request({"prompt": "a cat", "duration": "5", "aspect_ratio": "1:1"})
    return Attempt(
        name,
        job_id,
        fingerprint(request, None),
        1,
        request,
        state or Intended(1.0),
        account=ACCOUNT,
    )


def opened(task_id: str = "8") -> Open:
    """Return the state of a task accepted at the start of virtual time."""
    return Open(PaidTask(task_id, BEGUN))


def generated(task_id: str = "8") -> Generated:
    """Return the state of a task with a generated video."""
    return Generated(PaidTask(task_id, BEGUN), BEGUN + 60.0)


def landed(task_id: str, file: str, size: int) -> Landed:
    """Return the state of a video that is on disk."""
    video = Video(5.0, 240, 240)
    return Landed(PaidTask(task_id, 1.0), 2.0, 3.0, file, size, "00", video)


def found(
    status: TaskStatus = TaskStatus.PROCESSING, task_id: str = "8", url: str | None = None
) -> Found:
    """Return the answer that reports a task."""
    return Found(Task(task_id, status, url))


@dataclass
class Body:
    """A scripted body of a download."""

    pieces: list[bytes]
    total: int | None = None
    start: int = 0
    validator: str | None = '"v"'
    breaks: bool = False
    every_s: float = 0.0  # how long each piece takes to arrive

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None

    def chunks(self) -> Body:
        return self

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.pieces:
            if self.every_s:
                await asyncio.sleep(self.every_s)
            return self.pieces.pop(0)
        if self.breaks:
            raise BrokenFetchError(SAID)
        raise StopAsyncIteration


@dataclass
class Raises:
    """A fetch that is refused on entering."""

    error: Exception

    async def __aenter__(self) -> Body:
        raise self.error

    async def __aexit__(self, *_exc: object) -> None:
        return None


@dataclass
class ScriptedApi:
    """Answers in the order of the lists; the last answer of each repeats."""

    loop: VirtualLoop
    submits: list[Any] = field(default_factory=list)
    queries: list[Any] = field(default_factory=list)
    fetches: list[Any] = field(default_factory=list)
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    on_submit: Callable[[], Awaitable[None]] | None = None

    async def submit(self, body: dict[str, Any], *, not_after: float, resent: bool) -> Any:
        self._note("submit", body["external_task_id"])
        if self.on_submit is not None:
            await self.on_submit()
        return self._next(self.submits)

    async def query(self, identifier: str) -> Any:
        self._note("query", identifier)
        return self._next(self.queries)

    def fetch(self, url: str, *, start: int = 0, validator: str | None = None) -> Any:
        self._note("fetch", f"{url} {start} {validator}")
        return self._next(self.fetches)

    def count(self, kind: str) -> int:
        return sum(call[1] == kind for call in self.calls)

    def times(self, kind: str) -> list[float]:
        return [call[0] for call in self.calls if call[1] == kind]

    def _note(self, kind: str, what: str) -> None:
        self.calls.append((self.loop.time(), kind, what))

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]


class SteadyLessons:
    """Polls at a fixed interval, regardless of past tasks."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.changed = Waker()

    def watch(self) -> AbstractContextManager[None]:
        return nullcontext()

    def next_poll(self, _attempt: Attempt, _age_s: float, stretch: float = 1.0) -> float:
        return self._interval_s * stretch

    def saw_open(self, _attempt: Attempt, _age_s: float) -> None:
        return None

    def learn(self, _attempt: Attempt, _seconds: float) -> None:
        return None


class Stages:
    """A run of the product's own wiring over a state in memory, with a scripted provider."""

    def __init__(self, root: Path, loop: VirtualLoop, limits: Limits, policy: Policy) -> None:
        self.loop, self.clock = loop, VirtualClock(loop)
        self.events: list[Event] = []  # but for those of bytes
        self.received: list[int] = []
        self.counts = Counts()
        self.stop = Stop(self.notify)
        self.api = ScriptedApi(loop)
        self.state = MemoryState()
        self.hints = Hints()
        self.videos = Videos(Layout(root), pool=InlineExecutor())
        self.context = RunContext(
            account=ACCOUNT,
            limits=limits,
            policy=policy,
            clock=self.clock,
            dice=random.Random(1),
            stop=self.stop,
            notify=self.notify,
        )
        self.rescue = Rescue()
        self.first_id = 100
        self.forgot_at: float | None = None
        self.run: Run

    async def wire(self) -> None:
        """Put the stages together."""
        numbers = itertools.count(self.first_id)
        api: Any = self.api
        world = World(
            api=api,
            state=self.state,
            videos=self.videos.__enter__(),
            guard=nullcontext(),
            hints=self.hints,
            callback_url=lambda _external_task_id: None,
            new_id=lambda *_attempt: f"kb-{next(numbers)}",
            rescue=self.rescue,
            forgot_at=self.forgot_at,
        )
        run = await assemble("r", self.context, world)
        lessons: Any = SteadyLessons(self.context.limits.poll_interval_s)
        poller = Poller(
            self.context,
            api=api,
            state=self.state,
            lookup=run.lookup,
            lessons=lessons,
            hints=self.hints,
        )
        self.run = replace(run, poller=poller)

    def notify(self, event: Event) -> None:
        if isinstance(event, Downloading):
            self.received.append(event.received)
        else:
            self.events.append(event)
        self.counts.notify(event)

    def phase_of(self, name: str = "kb-1") -> str | None:
        """Return the phase of an attempt on disk, or None."""
        attempt = self.state.attempts.get(name)
        return None if attempt is None else attempt.phase.value

    @property
    def feeder(self) -> Feeder:
        """A feeder over these stages."""
        return Feeder(self.run)

    async def enter(self, order: int = 0) -> Ticket:
        """Return a ticket of the gate."""
        return await self.run.gate.enter(order)

    async def occupy(self, order: int = 0) -> Ticket:
        """Return a ticket for a task that is open already."""
        return await self.run.gate.occupy(order, attempt())

    async def submit(self, planned: Attempt, ticket: Ticket | None = None) -> Attempt | None:
        """Submit an attempt, with a slot of its own."""
        ticket = ticket or await self.enter()
        return await self.run.submitter.submit(planned, ticket, Hint())

    async def poll(self, watched: Attempt, *, is_fresh: bool = True) -> Any:
        """Poll a task."""
        return await self.run.poller.poll(watched, Hint(), is_fresh=is_fresh)


def play(
    root: Path,
    story: Callable[[Stages], Coroutine[Any, Any, T]],
    *,
    proved_at: float | None = None,
    forgot_at: float | None = None,
    policy: Policy | None = None,
    **limits: Any,
) -> T:
    """Run *story* on virtual time over stages in *root*; *limits* are fields of `Limits`."""
    usual = {"submit_rate": Rate(20, 1.0), "task_timeout_s": 600.0}

    async def main(loop: VirtualLoop) -> T:
        stages = Stages(root, loop, Limits(**{**usual, **limits}), policy or Policy())
        stages.forgot_at = forgot_at
        if proved_at is not None:
            stages.state.proofs[ACCOUNT] = proved_at
        await stages.wire()
        return await story(stages)

    return run(main)
