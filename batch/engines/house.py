"""Where a worker's runs are at home: libraries in Postgres, folders on this machine, accounts by key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

from batch.attempt import Account, external_id
from batch.callbacks.hints import Hints
from batch.callbacks.mailroom import Mailroom
from batch.clock import Clock
from batch.engines.carry import Opened, presence
from batch.engines.ending import Ending
from batch.engines.stop import SharedStop
from batch.engines.terms import Terms
from batch.errors import ExitCode, StateError, UsageError
from batch.events import Event, Warned
from batch.frozen import frozen
from batch.key import NO_SECRET, Secret
from batch.manifest.limits import Limits
from batch.output.copies import Copies
from batch.output.fleet import CLAIM, Fleet, OpenRun, Outcome
from batch.output.layout import Layout
from batch.output.marker import library_at
from batch.output.postgres import questions
from batch.output.postgres.pool import Connections
from batch.output.postgres.state import PostgresState
from batch.output.rescue import Rescue
from batch.output.videos import Videos
from batch.provider.client import Client
from batch.run.context import RunContext
from batch.run.gate_postgres import PostgresGates
from batch.run.resources import fit, start_pool
from batch.run.submit import CallbackUrl
from batch.run.wiring import World, assemble, callback_urls
from batch.settings import Receiver
from batch.target import check_installed


@frozen
class Means:
    """What a worker has for all its runs: its name, its keys by account, and its share of the machine.

    Its *callback* takes the place of a run's own.
    """

    worker: str
    keys: Mapping[Account, Secret]
    clock: Clock
    notify: Callable[[Event], None]
    downloads: int | None = None
    proxy: Secret = NO_SECRET
    callback: Receiver | None = None


class PostgresHouse:
    """`House` over Postgres."""

    def __init__(
        self,
        means: Means,
        fleet: Fleet,
        connections: Connections,
        gates: PostgresGates,
        ending: Ending,
        *,
        mailroom: Mailroom,
    ) -> None:
        self._means = means
        self._fleet = fleet
        self._connections = connections
        self._gates = gates
        self._ending = ending
        self._mailroom = mailroom
        self._downloads = None if means.downloads is None else asyncio.Semaphore(means.downloads)

    @asynccontextmanager
    async def open(self, run: OpenRun, terms: Terms, stop: SharedStop) -> AsyncIterator[Opened]:
        if terms.target is not None:
            check_installed()  # later it could not end the run that it has paid for
        means = self._means
        layout = _layout(run, means.worker)
        limits = self._limits(run, terms)
        async with AsyncExitStack() as exits:
            granted = fit(limits, is_embedded=False)
            client = Client(
                base_url=run.account.base_url,
                key=self._key(run.account),
                request_timeout_s=limits.request_timeout_s,
                stall_timeout_s=limits.stall_timeout_s,
                clock=means.clock,
                proxy=means.proxy.reveal() or None,
                max_queries=granted.queries,
            )
            api = await exits.enter_async_context(client)
            pool = start_pool(granted.limits.max_downloads + 2, "files")
            videos = Videos(layout, pool=pool)
            try:
                exits.enter_context(videos)
            except StateError as error:
                raise UsageError(str(error)) from error
            hints = exits.enter_context(self._mailroom.hints())
            context = RunContext(
                account=run.account,
                limits=limits,
                policy=terms.policy,
                clock=means.clock,
                dice=random.Random(),  # noqa: S311 - jitter
                stop=stop,
                notify=means.notify,
            )
            state = PostgresState(self._connections, run.library)
            urls = await self._connections.ask(questions.targets(run.library))
            copies = exits.enter_context(Copies(state, urls, run.library))
            world = World(
                api=api,
                state=state,
                videos=videos,
                guard=nullcontext(),
                hints=hints,
                callback_url=await self._callbacks(terms, hints, exits),
                new_id=partial(external_id, run.library),
                rescue=Rescue.of(layout, layout.results),
                forgot_at=terms.forgot_at,
                gate_of=partial(self._gates.gate, run.library, run.run_id),
                given=SharedNames(self._fleet),
                downloads=self._downloads,
                copies=copies.fill,
            )
            stages = await assemble(run.run_id, context, world)
            yield Opened(run, terms, stop, stages, presence(videos))

    async def conclude(self, opened: Opened, outcome: Outcome) -> tuple[ExitCode, str]:
        run, terms, last_call = opened.handed, opened.terms, opened.run.last_call
        return await asyncio.to_thread(self._ending.write, run, terms, outcome, last_call)

    def _key(self, account: Account) -> str:
        found = self._means.keys.get(account)
        if found is None:
            raise UsageError(f"this worker has no key for the account at {account.base_url}")
        return found.reveal()

    def _limits(self, run: OpenRun, terms: Terms) -> Limits:
        """Return the limits of a run for this worker; its deadline is that of the whole run."""
        left_s = None
        if run.deadline_at is not None:
            left_s = max(run.deadline_at - self._means.clock.now(), 0.001)
        limits = terms.limits._replace(deadline_s=left_s, deadline_at=None)
        if self._means.downloads is not None:
            limits = limits._replace(max_downloads=self._means.downloads)
        return limits

    async def _callbacks(self, terms: Terms, hints: Hints, exits: AsyncExitStack) -> CallbackUrl:
        """Return what makes callback URLs; where this worker cannot listen, others may receive."""
        receiver = self._means.callback or terms.callback
        if receiver is not None:
            try:
                await exits.enter_async_context(self._mailroom.receiving(receiver.listen))
            except UsageError as error:
                self._means.notify(Warned(f"callbacks do not arrive at this worker: {error}"))
        return callback_urls(receiver, hints)


class SharedNames:
    """The external ids that the jobs of a run take, over all workers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def take(self, external_task_id: str, _job_id: str) -> bool:
        claim = CLAIM.get()
        assert claim is not None
        return await self._fleet.name(claim, external_task_id)


def _layout(run: OpenRun, worker: str) -> Layout:
    """Return the layout of a run's folder, after a look at its mark: a mount may be the wrong one.

    Raises:
        UsageError: what is there is not the run's library.
    """
    layout = Layout(Path(run.root), f"{run.run_id}-{worker}")
    try:
        is_meant = library_at(layout.library) == run.library
    except StateError as error:
        raise UsageError(str(error)) from error
    if not is_meant:
        raise UsageError(
            f"{run.root} is not the library of this run here; is its disk mounted, at the same path as"
            " where the run was planned? Other workers go on with it"
        )
    return layout
