"""The one file that names every concrete class: it assembles a run and lets it go."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from asyncio_throttle.throttler import Throttler

from batch import events
from batch.callbacks.hints import Hints, hash_token, new_token
from batch.clock import Clock
from batch.errors import ExitCode
from batch.events import Event, Observer
from batch.job import STATE_FOLDER, Attempt
from batch.key import account_of, require_key
from batch.output.changes import GenerationTime
from batch.output.sqlite import Store
from batch.output.videos import OutputFolder
from batch.output.writer import Journal
from batch.provider.client import Client
from batch.provider.protocol import VideoApi
from batch.run import schedule
from batch.run.budget import Budget
from batch.run.download import Downloader
from batch.run.feeder import Runner, first_of
from batch.run.gate import Pacer, Slots, window_guard
from batch.run.job_run import Life, Terms
from batch.run.landing import Landing
from batch.run.lookup import LookUp
from batch.run.poll import Poller
from batch.run.session import Session, Summary, begin, close_session, price_of
from batch.run.signals import on_stop
from batch.run.stop import EXIT_CODES, Stop, StopReason
from batch.run.submit import Submitter
from batch.run.tally import Tally
from batch.settings import Settings

__all__ = ["execute", "first_of"]

SANDBOX_NAME = "sandbox"  # stands for its address, which is another one at every start
SANDBOX_SPEED = 20.0  # a minute of generation passes in three seconds
SANDBOX_KEY = "sk-sandbox"


async def execute(
    session: Session,
    observers: Sequence[Observer],
    clock: Clock,
    *,
    stop: Stop | None = None,
    handle_signals: bool = False,
) -> Summary:
    """Do what the session's plan says.

    With *handle_signals*, SIGINT and SIGTERM stop it softly; so does whoever holds *stop*.

    Raises:
        UsageError: a real run without a key. Nothing was sent.
        StateError: the state could not be written any more.
    """
    begin(session)
    stop = stop or Stop()
    begun = clock.monotonic()

    def notify(event: Event) -> None:
        for observer in observers:
            observer.notify(event)

    tally, exit_code = Tally(), EXIT_CODES[StopReason.INTERRUPTED]
    insisted: list[signal.Signals] = []
    try:
        async with AsyncExitStack() as exits:
            if handle_signals:
                exits.enter_context(_stop_on_signals(stop, notify, insisted))
            runner = await exits.enter_async_context(_assembled(session, stop, notify, clock))
            tally = runner.tally
            _tell_plan(session, notify)
            await runner.run(session.plan)
            exit_code = runner.exit_code(session.plan)
    except asyncio.CancelledError:
        if not insisted:
            raise
        exit_code = ExitCode.TERMINATED if insisted[0] is signal.SIGTERM else ExitCode.INTERRUPTED
    close_session(session, exit_code, clock)
    return session.summary(
        exit_code,
        outcomes=dict(tally.outcomes),
        tasks_created=tally.tasks_created,
        adopted=tally.adopted,
        superseded=tally.superseded,
        cost_usd=round(tally.cost_usd, 4),
        left=len(set(tally.left)),
        seconds=round(clock.monotonic() - begun, 3),
        stopped=stop.sentence or None,
        troubles=tuple(tally.troubles),
        bugs=tuple(tally.bugs),
    )


def _tell_plan(session: Session, notify: Callable[[Event], None]) -> None:
    planned = {action.value: count for action, count in session.plan.counts.items()}
    folder = str(session.settings.output_dir)
    notify(events.RunStarted(session.run_id, folder, planned, session.plan.cost_usd))


@asynccontextmanager
async def _assembled(
    session: Session, stop: Stop, notify: Callable[[Event], None], clock: Clock
) -> AsyncIterator[Runner]:
    """Open everything that a run talks to."""
    settings, limits = session.settings, session.settings.limits
    async with AsyncExitStack() as exits:
        base_url, name, key = await _provider(settings, exits)
        account = account_of(key)
        api = await exits.enter_async_context(
            Client(
                base_url=base_url,
                key=key,
                request_timeout_s=limits.request_timeout_s,
                stall_timeout_s=limits.stall_timeout_s,
                clock=clock,
            )
        )
        folder = exits.enter_context(
            OutputFolder(settings.output_dir, workers=limits.max_downloads + 2)
        )
        journal = exits.enter_context(Journal(session.store, session.results))
        reader = exits.enter_context(Store.open_to_read(session.store.path, beside_writer=True))
        hints = Hints()
        yield assemble(
            session,
            api=api,
            base_url=name,
            account=account,
            folder=folder,
            journal=journal,
            reader=reader,
            stop=stop,
            clock=clock,
            notify=notify,
            rng=random.Random(),  # noqa: S311 - jitter
            guard=window_guard(limits.submit_rate),
            new_id=lambda: f"kb-{secrets.token_hex(16)}",
            hints=hints,
            callback_url=await _callbacks(settings, hints, exits),
        )


def assemble(
    session: Session,
    *,
    api: VideoApi,
    base_url: str,
    account: str,
    folder: OutputFolder,
    journal: Journal,
    reader: Store,
    stop: Stop,
    clock: Clock,
    notify: Callable[[Event], None],
    rng: random.Random,
    guard: AbstractAsyncContextManager[None] | Throttler,
    new_id: Callable[[], str],
    hints: Hints,
    callback_url: Callable[[str], tuple[str, str] | None],
) -> Runner:
    """Put a run together from what comes from outside: network, disk, time and chance.

    *base_url* and *account* name the provider in the state. *reader* is a connection of the event
    loop's own.
    """
    limits = session.settings.limits
    pacer = Pacer(limits.submit_rate, clock=clock, guard=guard)
    slots = Slots(limits.max_in_flight, clock=clock)
    lookup = LookUp(
        api=api,
        journal=journal,
        stop=stop,
        clock=clock,
        base_url=base_url,
        account=account,
        proved_at=reader.proved_at(base_url, account),
        owner_of=reader.owner_of,
        settle_time_s=limits.settle_time_s,
        patience_s=limits.task_timeout_s,
    )
    submitter = Submitter(
        api=api,
        journal=journal,
        pacer=pacer,
        slots=slots,
        lookup=lookup,
        stop=stop,
        clock=clock,
        rng=rng,
        notify=notify,
        patience_s=limits.task_timeout_s,
        callback_url=callback_url,
    )
    lessons = Lessons(
        reader.generation_times(),
        limits.poll_interval_s,
        rng,
        is_urgent=lambda: slots.is_waited_for,
    )
    poller = Poller(
        api=api,
        journal=journal,
        lookup=lookup,
        stop=stop,
        clock=clock,
        notify=notify,
        next_look=lessons.next_look,
        learn=lessons.learn,
        poll_interval_s=limits.poll_interval_s,
        task_timeout_s=limits.task_timeout_s,
        hints=hints,
    )
    downloader = Downloader(
        api=api,
        folder=folder,
        lookup=lookup,
        stop=stop,
        clock=clock,
        rng=rng,
        stall_timeout_s=limits.stall_timeout_s,
        poll_interval_s=limits.poll_interval_s,
        notify=notify,
    )
    tally = Tally()
    budget = Budget(limits.budget_usd, tally=tally, stop=stop, notify=notify)
    landing = Landing(
        downloader=downloader,
        store=reader,
        journal=journal,
        stop=stop,
        max_downloads=limits.max_downloads,
    )
    life = Life(
        run_id=session.run_id,
        submitter=submitter,
        poller=poller,
        landing=landing,
        lookup=lookup,
        store=reader,
        journal=journal,
        slots=slots,
        budget=budget,
        tally=tally,
        stop=stop,
        clock=clock,
        notify=notify,
        price=price_of(session.manifest),
        new_id=new_id,
        hints=hints,
        terms=Terms(
            base_url=base_url,
            account=account,
            max_attempts=limits.max_attempts,
            resubmit_unconfirmed=session.settings.policy.resubmit_unconfirmed,
        ),
    )
    return Runner(
        life=life,
        lookup=lookup,
        pacer=pacer,
        slots=slots,
        budget=budget,
        tally=tally,
        stop=stop,
        notify=notify,
        max_in_flight=limits.max_in_flight,
        deadline_s=limits.deadline_s,
    )


async def _provider(settings: Settings, exits: AsyncExitStack) -> tuple[str, str, str]:
    """Return address, name and key of whom to talk to; starts the sandbox if that is it."""
    if not settings.sandbox:
        return settings.base_url, settings.base_url, require_key(settings.api_key)
    from batch import sandbox  # noqa: PLC0415 - a server of its own, for those who ask for it

    # The journal is what makes the sandbox outlive us, as the real provider does.
    journal = settings.output_dir / STATE_FOLDER / "sandbox.jsonl"
    server = await exits.enter_async_context(
        sandbox.serve(sandbox.SandboxConfig(speed=SANDBOX_SPEED, journal=Path(journal)))
    )
    return server.base_url, SANDBOX_NAME, SANDBOX_KEY


async def _callbacks(
    settings: Settings, hints: Hints, exits: AsyncExitStack
) -> Callable[[str], tuple[str, str] | None]:
    """Start the receiver, if there is to be one; return what makes each attempt's callback URL."""
    if settings.callback is None:
        return lambda _external_task_id: None
    from batch.callbacks.receiver import listen  # noqa: PLC0415 - only for those who ask for it

    await exits.enter_async_context(listen(settings.callback.listen, hints))
    parts = urlsplit(settings.callback.url)

    def callback_url(external_task_id: str) -> tuple[str, str]:
        token = new_token()
        token_hash = hash_token(token)
        hints.renew(external_task_id, token_hash)
        path = f"{parts.path.rstrip('/')}/{token}"
        return urlunsplit(parts._replace(path=path)), token_hash

    return callback_url


class Lessons:
    """What past tasks teach about when to look at the next one."""

    def __init__(
        self,
        times: dict[str, list[float]],
        poll_interval_s: float,
        rng: random.Random,
        *,
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self._histories = {kind: schedule.History(seconds) for kind, seconds in times.items()}
        self._poll_interval_s = poll_interval_s
        self._rng = rng
        self._is_urgent = is_urgent

    def next_look(self, attempt: Attempt, age_s: float) -> float:
        """Return seconds until the next look at a task of this age."""
        return schedule.next_look(
            age_s,
            poll_interval_s=self._poll_interval_s,
            history=self._histories.get(_kind(attempt.request)),
            rng=self._rng,
            look_cost=schedule.URGENT_LOOK_COST if self._is_urgent() else schedule.LOOK_COST,
        )

    def learn(self, attempt: Attempt, seconds: float) -> GenerationTime:
        """Take in how long a task took; used at once, and kept for later nights."""
        kind = _kind(attempt.request)
        self._histories.setdefault(kind, schedule.History()).add(seconds)
        return GenerationTime(kind, seconds)


@functools.lru_cache(maxsize=10_000)
def _kind(request: str) -> str:
    body = json.loads(request)
    return "/".join(str(body.get(name, "")) for name in ("model_name", "mode", "duration"))


def _stop_on_signals(
    stop: Stop, notify: Callable[[Event], None], insisted: list[signal.Signals]
) -> AbstractContextManager[None]:
    main = asyncio.current_task()

    def ask(number: signal.Signals) -> None:
        reason = StopReason.INTERRUPTED if number is signal.SIGINT else StopReason.TERMINATED
        sentence = (
            f"{number.name}: nothing more is submitted, open tasks are left to the next run,"
            " downloads under way finish; once more to leave at once"
        )
        if stop.ask(reason, sentence):
            notify(events.Stopping(sentence))

    def insist(number: signal.Signals) -> None:
        insisted.append(number)
        if main is not None:
            main.cancel()

    return on_stop(ask, insist)
