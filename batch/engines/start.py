"""Put a worker together over Postgres and DBOS, and have it work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import field

from batch import __version__
from batch.attempt import Account
from batch.callbacks.mailroom import Mailroom
from batch.clock import SystemClock
from batch.engines.clock import FleetClock
from batch.engines.dbos import POLLS_S, DbosEngine
from batch.engines.ending import Ending
from batch.engines.house import Means, PostgresHouse
from batch.engines.leave import Times
from batch.engines.worker import Worker
from batch.events import Event, Warned
from batch.frozen import frozen
from batch.key import NO_SECRET, Secret
from batch.output.fleet import DEAD_AFTER_S
from batch.output.postgres.connection import of_worker, process_name
from batch.output.postgres.fleet import PostgresFleet
from batch.output.postgres.notices import HINTS, SLOTS, Notices
from batch.output.postgres.pool import Connections
from batch.output.postgres.relay import PostgresRelay
from batch.run.gate_postgres import PostgresGates
from batch.settings import Receiver
from batch.waker import Waker


@frozen
class Setup:
    """What an operator says of a worker, and how long it waits for what.

    *downloads* at once, in all runs; None: as each run says. *callback* likewise.
    """

    engine: Secret
    keys: Mapping[Account, Secret]
    name: str = ""
    downloads: int | None = None
    proxy: Secret = NO_SECRET
    callback: Receiver | None = None
    times: Times = field(default_factory=Times)
    dead_after_s: float = DEAD_AFTER_S
    polls_s: float = POLLS_S


async def work(
    setup: Setup, ending: Waker, notify: Callable[[Event], None], log: logging.Logger
) -> bool:
    """Work until *ending* is set; False if the worker has ended by itself, to be started anew."""
    name, clock = process_name(setup.name), FleetClock(SystemClock())
    engine = of_worker(setup.engine, name)

    def tell_wait(trouble: str) -> None:
        notify(Warned(f"{trouble}; this worker waits for it"))

    connections = Connections(engine, on_wait=tell_wait)
    gates, mailroom = PostgresGates(connections), Mailroom(PostgresRelay(connections))
    notices = Notices(engine, {SLOTS: gates.wake, HINTS: mailroom.hear})
    async with connections, notices, AsyncExitStack() as exits:
        if setup.callback is not None:  # before there is a run, and after
            await exits.enter_async_context(mailroom.receiving(setup.callback.listen))
        fleet = PostgresFleet(
            engine, connections, dead_after_s=setup.dead_after_s, version=__version__
        )
        means = Means(name, setup.keys, clock, notify, setup.downloads, setup.proxy, setup.callback)
        ending_of = Ending(engine, clock)
        house = PostgresHouse(means, fleet, connections, gates, ending_of, mailroom=mailroom)
        worker = Worker(
            name,
            list(setup.keys),
            fleet=fleet,
            engine=DbosEngine(engine, name, connections, log=log, polls_s=setup.polls_s),
            house=house,
            clock=clock,
            notify=notify,
            times=setup.times,
        )
        return await worker.work(ending)
