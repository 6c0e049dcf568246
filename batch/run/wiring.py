"""The one file that names every concrete class: it puts a run together."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import field
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from batch.attempt import Account, external_id
from batch.callbacks.hints import Hints, hash_token, new_token
from batch.clock import Clock
from batch.events import Event, Warned
from batch.frozen import frozen
from batch.key import account_of, require_key
from batch.library.allowances import Spending, allowances
from batch.manifest.limits import Limits
from batch.output.copies import Copies
from batch.output.direct import DirectState
from batch.output.layout import Layout
from batch.output.places import Fill, no_copies
from batch.output.rescue import Rescue
from batch.output.sqlite import Database
from batch.output.state import State
from batch.output.videos import Videos
from batch.output.writer import SqliteState
from batch.paths import state_folder
from batch.provider.client import Client
from batch.provider.protocol import VideoApi
from batch.run.book import AccountBook
from batch.run.budget import Budget
from batch.run.context import RunContext
from batch.run.fetch import Fetcher
from batch.run.gate import Gate, IsTooLate, LocalGate
from batch.run.landing import Landing
from batch.run.last_call import LastCall
from batch.run.lessons import Lessons
from batch.run.lookup import LookUp
from batch.run.pacer import Guard, window_guard
from batch.run.planner import PlannedRun
from batch.run.poll import Poller
from batch.run.proof import Past
from batch.run.rescue import Rescuer
from batch.run.resources import Granted, fit, start_name_lookups, start_pool
from batch.run.share import Share
from batch.run.silence import Listening
from batch.run.stages import Given, GivenHere, NewId, Run
from batch.run.stop import Stop
from batch.run.submit import CallbackUrl, Submitter
from batch.settings import Receiver, Settings

LOCK_PATIENCE_S = 60.0  # at least, however short the time-outs of a run are
SANDBOX_NAME = "sandbox"  # stands for its address, which is another one at every start
SANDBOX_SPEED = 20.0  # a minute of generation passes in three seconds
SANDBOX_KEY = "sk-sandbox"


@frozen
class World:
    """What a run meets outside of it: network, disk, and the ids that it makes.

    *forgot_at* is when the state was found to have forgotten tasks; *share* is what the account's
    other runs on this machine leave. A run that is one of many workers' has its gate (*gate_of*, which
    keeps the budgets, too) and its ids (*given*) from outside; *downloads* are those of all its runs.
    *copies* are the videos in buckets.
    """

    api: VideoApi
    state: State
    videos: Videos
    guard: Guard
    hints: Hints
    callback_url: CallbackUrl
    new_id: NewId
    rescue: Rescue = field(default_factory=Rescue)
    forgot_at: float | None = None
    share: Share | None = None
    gate_of: Callable[[RunContext, IsTooLate], Gate] | None = None
    given: Given = field(default_factory=GivenHere)
    downloads: asyncio.Semaphore | None = None
    copies: Fill = no_copies


async def assemble(run_id: str, context: RunContext, world: World) -> Run:
    """Put a run together."""
    limits, api = context.limits, Listening(world.api, context)
    lookup = LookUp(
        context,
        api=api,
        state=world.state,
        past=Past(
            proved_at=await world.state.proved_at(context.account),
            older=await world.state.newest_task_of(context.account),
            is_known=await world.state.has_task_at(context.account.base_url),
            forgot_at=world.forgot_at,
        ),
        rescue=world.rescue,
    )
    lessons = Lessons(
        await world.state.generation_times(),
        limits.poll_interval_s,
        context.dice,
        is_waited_for=lambda: gate.is_waited_for,
    )
    last_call = LastCall(limits.seconds_left(context.clock.now()), lessons, context.clock)
    gate = _gate(context, world, last_call.refuses)
    fetcher = Fetcher(context, api=api, lookup=lookup)
    return Run(
        run_id=run_id,
        context=context,
        state=world.state,
        gate=gate,
        last_call=last_call,
        budget=await _budget(context, world),
        lookup=lookup,
        submitter=Submitter(
            context,
            api=api,
            state=world.state,
            lookup=lookup,
            callback_url=world.callback_url,
        ),
        lessons=lessons,
        poller=Poller(
            context,
            api=api,
            state=world.state,
            lookup=lookup,
            lessons=lessons,
            hints=world.hints,
        ),
        landing=Landing(
            context,
            state=world.state,
            videos=world.videos,
            fetcher=fetcher,
            downloads=world.downloads,
            copies=world.copies,
        ),
        rescuer=Rescuer(context, api=api, state=world.state, rescue=world.rescue),
        hints=world.hints,
        new_id=world.new_id,
        given=world.given,
    )


def _gate(context: RunContext, world: World, is_too_late: IsTooLate) -> Gate:
    if world.gate_of is not None:
        return world.gate_of(context, is_too_late)
    return LocalGate(context, world.state, world.guard, world.share, is_too_late)


async def _budget(context: RunContext, world: World) -> Budget:
    """Return the budgets; what was spent before is read only where a day or month has one.

    The gate of a fleet keeps them itself: then this one covers everything.
    """
    if world.gate_of is not None:
        return Budget(None, context.stop, now=context.clock.now)
    limits, now = context.limits, context.clock.now()
    found = allowances(limits)
    begins = [allowance.span_of(now).begins for allowance in found]
    spending = Spending(await world.state.payments(min(begins)) if begins else ())
    return Budget(
        limits.budget_usd,
        context.stop,
        now=context.clock.now,
        allowances=found,
        spending=spending,
    )


@asynccontextmanager
async def open_run(
    planned: PlannedRun, stop: Stop, notify: Callable[[Event], None], clock: Clock
) -> AsyncIterator[Run]:
    """Open everything that a run of the product talks to, and put it together."""
    settings = planned.settings
    async with AsyncExitStack() as exits:
        state = exits.enter_context(_state(planned, notify))
        await start_name_lookups()
        granted = fit(settings.limits, is_embedded=settings.sandbox)
        limits = granted.limits
        _tell_fitted(settings.limits, limits, notify)
        api, account = await exits.enter_async_context(open_client(settings, granted, clock))
        videos = Videos(planned.folder.layout, pool=start_pool(limits.max_downloads + 2, "files"))
        hints = Hints()
        context = RunContext(
            account=account,
            limits=limits,
            policy=settings.policy,
            clock=clock,
            dice=random.Random(),  # noqa: S311 - jitter
            stop=stop,
            notify=notify,
        )
        world = World(
            api=api,
            videos=exits.enter_context(videos),
            state=state,
            guard=window_guard(limits.submit_rate),
            hints=hints,
            callback_url=await open_callbacks(settings.callback, hints, exits),
            new_id=partial(external_id, planned.folder.library),
            rescue=Rescue.of(planned.folder.layout, planned.manifest.path),
            forgot_at=planned.folder.forgot_at,
            share=_share(settings, context, exits),
            copies=_copies(planned, state, exits),
        )
        yield await assemble(planned.run_id, context, world)


@asynccontextmanager
async def open_client(
    settings: Settings, granted: Granted, clock: Clock
) -> AsyncIterator[tuple[VideoApi, Account]]:
    """Open the client of the provider, and say whose account it speaks for."""
    async with AsyncExitStack() as exits:
        base_url, name, key = await _provider(settings, exits)
        client = Client(
            base_url=base_url,
            key=key,
            request_timeout_s=granted.limits.request_timeout_s,
            stall_timeout_s=granted.limits.stall_timeout_s,
            clock=clock,
            proxy=None if settings.sandbox else settings.proxy.reveal() or None,
            max_queries=granted.queries,
        )
        yield await exits.enter_async_context(client), Account(name, account_of(key))


def _state(planned: PlannedRun, notify: Callable[[Event], None]) -> AbstractContextManager[State]:
    """Return the state; a lock that another program holds is waited for as long as for an answer."""
    limits, database = planned.settings.limits, planned.folder.database
    if not isinstance(database, Database):  # of a fleet, in a run without workers
        return nullcontext(DirectState(database, planned.folder.results))
    held = f"{database.path} cannot be written to at the moment; does another program have it open?"
    return SqliteState(
        database,
        planned.folder.results,
        patience_s=max(LOCK_PATIENCE_S, limits.request_timeout_s + limits.settle_time_s),
        on_wait=lambda: notify(Warned(f"{held} The run waits for it")),
    )


def _copies(planned: PlannedRun, state: State, exits: AsyncExitStack) -> Fill:
    """Return what fetches a video from the buckets that it was uploaded to."""
    urls, library = planned.folder.database.targets(), planned.folder.library
    return exits.enter_context(Copies(state, urls, library)).fill if urls else no_copies


def _tell_fitted(wanted: Limits, limits: Limits, notify: Callable[[Event], None]) -> None:
    if limits != wanted:
        fewer = (
            f"few descriptors are left (ulimit -n): at most {limits.max_in_flight} tasks in flight and"
            f" {limits.max_downloads} downloads at once"
        )
        notify(Warned(fewer))


async def _provider(settings: Settings, exits: AsyncExitStack) -> tuple[str, str, str]:
    """Return address, name and key of the provider; starts the sandbox if that is it."""
    if not settings.sandbox:
        return settings.base_url, settings.base_url, require_key(settings.api_key)
    from batch import sandbox  # noqa: PLC0415 - only for the sandbox

    # The journal lets the sandbox outlive the run, as the real provider does.
    journal = Layout(settings.output_dir).sandbox
    server = await exits.enter_async_context(
        sandbox.serve(sandbox.SandboxConfig(speed=SANDBOX_SPEED, journal=journal))
    )
    return server.base_url, SANDBOX_NAME, SANDBOX_KEY


def _share(settings: Settings, context: RunContext, exits: AsyncExitStack) -> Share | None:
    """Return what the account's other runs on this machine leave; a sandbox belongs to one run."""
    if settings.sandbox or not context.limits.share_account:
        return None
    book = AccountBook(
        state_folder(os.environ),
        context.account,
        context.limits,
        clock=context.clock,
        warn=lambda warning: context.notify(Warned(warning)),
    )
    return exits.enter_context(book)


async def open_callbacks(
    receiver: Receiver | None, hints: Hints, exits: AsyncExitStack
) -> CallbackUrl:
    """Start the receiver, if there is to be one; return what makes each attempt's callback URL."""
    if receiver is not None:
        from batch.callbacks.receiver import listen  # noqa: PLC0415 - only with callbacks

        await exits.enter_async_context(listen(receiver.listen, hints))
    return callback_urls(receiver, hints)


def callback_urls(receiver: Receiver | None, hints: Hints) -> CallbackUrl:
    """Return what makes each attempt's callback URL, and has its token accepted."""
    if receiver is None:
        return lambda _external_task_id: None
    parts = urlsplit(receiver.url)

    def callback_url(external_task_id: str) -> tuple[str, str]:
        token = new_token(external_task_id)
        token_hash = hash_token(token)
        hints.renew(external_task_id, token_hash)
        path = f"{parts.path.rstrip('/')}/{token}"
        return urlunsplit(parts._replace(path=path)), token_hash

    return callback_url
