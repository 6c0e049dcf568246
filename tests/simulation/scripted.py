"""For tests of one stage: a provider that answers what it is told to, and the stages around it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mortal import InlineJournal, Life
from virtual_time import InlineExecutor, VirtualClock, VirtualLoop, run

from batch.callbacks.hints import Hint, Hints
from batch.events import Event
from batch.job import (
    Attempt,
    Failure,
    FailureKind,
    Generated,
    Intended,
    Landed,
    Open,
    State,
    Video,
    canonical_request,
    fingerprint,
)
from batch.manifest.schema import Rate
from batch.output.results_file import ResultsFile
from batch.output.sqlite import Store
from batch.output.videos import OutputFolder
from batch.provider.answers import Found, NotFound, Task, TaskStatus, Throttled, Unavailable
from batch.provider.protocol import BrokenFetchError
from batch.run.budget import Budget
from batch.run.download import Downloader
from batch.run.feeder import Runner
from batch.run.gate import Pacer, Slots
from batch.run.job_run import Life as JobLife
from batch.run.job_run import Terms
from batch.run.landing import Landing
from batch.run.lookup import LookUp
from batch.run.poll import Poller
from batch.run.stop import Stop
from batch.run.submit import Submitter
from batch.run.tally import Tally

T = TypeVar("T")
URL = "https://scripted.example"
ACCOUNT = "0a1b2c3d"
SAID = Failure(FailureKind.PROVIDER, "said so")
NOT_FOUND = NotFound(SAID)
NO_ANSWER = Unavailable(SAID)
TOO_FAST = Throttled(Failure(FailureKind.RATE_LIMITED, "slow down", "1302", 429))


def attempt(state: State | None = None, *, name: str = "kb-1", job_id: str = "a") -> Attempt:
    """Return an attempt, *Intended* if nothing else is said."""
    request = canonical_request({"prompt": "a cat", "duration": "5", "aspect_ratio": "1:1"})
    return Attempt(
        name,
        job_id,
        fingerprint(request, None),
        1,
        request,
        state or Intended(1.0),
        base_url=URL,
        account=ACCOUNT,
    )


def opened(task_id: str = "8") -> Open:
    """Return the state of a task that was accepted when virtual time began."""
    return Open(task_id, 1_790_000_000.0)


def generated(task_id: str = "8") -> Generated:
    """Return the state of a task whose video is made."""
    return Generated(task_id, 1_790_000_000.0, 1_790_000_060.0)


def landed(task_id: str, file: str, size: int) -> Landed:
    """Return the state of a video that is on disk."""
    return Landed(task_id, 1.0, 2.0, 3.0, file, size, "00", Video(5.0, 240, 240))


def found(
    status: TaskStatus = TaskStatus.PROCESSING, task_id: str = "8", url: str | None = None
) -> Found:
    """Return the answer that tells of a task."""
    return Found(Task(task_id, status, url))


@dataclass
class Body:
    """A body that a test hands out."""

    pieces: list[bytes]
    total: int | None = None
    start: int = 0
    validator: str | None = '"v"'
    breaks: bool = False
    every_s: float = 0.0  # how long each piece takes to come

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
    """Answers in the order of the lists; the last answer of each is repeated for ever."""

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


class Stages:
    """Every stage of a run over a real store in *root*, with a scripted provider."""

    def __init__(
        self,
        root: Path,
        loop: VirtualLoop,
        *,
        proved_at: float | None = None,
        max_in_flight: int = 5,
        poll_interval_s: float = 5.0,
        task_timeout_s: float = 600.0,
        settle_time_s: float = 30.0,
    ) -> None:
        self.root, self.loop, self.max_in_flight = root, loop, max_in_flight
        self.clock, self.stop = VirtualClock(loop), Stop()
        self.events: list[Event] = []
        self.api = ScriptedApi(loop)
        self.store = Store.open(root / "state.db")
        rng = random.Random(1)
        self.journal = InlineJournal(
            self.store,
            ResultsFile(root / "results.jsonl"),
            life=Life(),
            rng=rng,
            fault_rate=0.0,
        )
        self.folder = OutputFolder(root, pool=InlineExecutor())
        self.folder.__enter__()
        self.pacer = Pacer(Rate(20, 1.0), clock=self.clock)
        self.slots = Slots(max_in_flight, clock=self.clock)
        api: Any = self.api
        self.lookup = LookUp(
            api=api,
            journal=self.journal,
            stop=self.stop,
            clock=self.clock,
            base_url=URL,
            account=ACCOUNT,
            proved_at=proved_at,
            owner_of=self.store.owner_of,
            settle_time_s=settle_time_s,
            patience_s=task_timeout_s,
        )
        self.submitter = Submitter(
            api=api,
            journal=self.journal,
            pacer=self.pacer,
            slots=self.slots,
            lookup=self.lookup,
            stop=self.stop,
            clock=self.clock,
            rng=rng,
            notify=self.events.append,
            patience_s=task_timeout_s,
            callback_url=lambda _external_task_id: None,
        )
        self.poller = Poller(
            api=api,
            journal=self.journal,
            lookup=self.lookup,
            stop=self.stop,
            clock=self.clock,
            notify=self.events.append,
            next_look=lambda _attempt, _age: poll_interval_s,
            learn=lambda _attempt, _seconds: None,
            poll_interval_s=poll_interval_s,
            task_timeout_s=task_timeout_s,
        )
        self.poll_interval_s, self.rng = poll_interval_s, rng
        self.downloader = self.make_downloader()

    def make_downloader(self, *, stall_timeout_s: float = 30.0) -> Downloader:
        """Return the last stage."""
        api: Any = self.api
        return Downloader(
            api=api,
            folder=self.folder,
            lookup=self.lookup,
            stop=self.stop,
            clock=self.clock,
            rng=self.rng,
            stall_timeout_s=stall_timeout_s,
            poll_interval_s=self.poll_interval_s,
            notify=self.events.append,
        )

    def state_of(self, name: str = "kb-1") -> str | None:
        """Return the name of the state that is on disk, or None."""
        try:
            return type(self.store.attempt(name).state).__name__
        except KeyError:
            return None

    def runner(
        self,
        *,
        max_downloads: int = 4,
        budget_usd: float | None = None,
        deadline_s: float | None = None,
        **terms: Any,
    ) -> Runner:
        """Return a runner over these stages."""
        numbers, tally, notify = itertools.count(100), Tally(), self.events.append
        budget = Budget(budget_usd, tally=tally, stop=self.stop, notify=notify)
        landing = Landing(
            downloader=self.downloader,
            store=self.store,
            journal=self.journal,
            stop=self.stop,
            max_downloads=max_downloads,
        )
        life = JobLife(
            run_id="r",
            submitter=self.submitter,
            poller=self.poller,
            landing=landing,
            lookup=self.lookup,
            store=self.store,
            journal=self.journal,
            slots=self.slots,
            budget=budget,
            tally=tally,
            stop=self.stop,
            clock=self.clock,
            notify=notify,
            price=lambda _job: (0.21, True),
            new_id=lambda: f"kb-{next(numbers)}",
            hints=Hints(),
            terms=Terms(base_url=URL, account=ACCOUNT, **terms),
        )
        return Runner(
            life=life,
            lookup=self.lookup,
            pacer=self.pacer,
            slots=self.slots,
            budget=budget,
            tally=tally,
            stop=self.stop,
            notify=notify,
            max_in_flight=self.max_in_flight,
            deadline_s=deadline_s,
        )

    async def poll(self, watched: Attempt, *, is_fresh: bool = True) -> Any:
        """Watch a task."""
        return await self.poller.poll(watched, is_fresh=is_fresh, hint=Hint())


def play(root: Path, story: Callable[[Stages], Coroutine[Any, Any, T]], **how: Any) -> T:
    """Run *story* on virtual time over stages in *root*."""

    async def main(loop: VirtualLoop) -> T:
        stages = Stages(root, loop, **how)
        try:
            return await story(stages)
        finally:
            stages.store.close()

    return run(main)
