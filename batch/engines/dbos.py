"""The engine on DBOS Transact, in the same Postgres: the only file that asks DBOS.

One workflow for each run, job and look, without steps: executed again, it begins at its top, and the job
is claimed and decided anew. Its input are the ids. What DBOS could limit (rate, concurrency over all
workers) it does not: that happens where a request goes out.

A workflow that returns is done for DBOS, which writes that in a transaction of its own. So each ends as
cancelled, and DBOS writes nothing: those whose job another worker has, or that stay this worker's until
they are taken over; and those that are done, which are removed (`batch.engines.queue`).

What is queued again has a queue of its own, without a limit: some of it holds slots, and those who wait
for them may have filled every worker.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from batch.attempt import Account
from batch.engines.chores import beside
from batch.engines.engine import Fate, Live
from batch.engines.queue import AGAIN, APP, TAKE_OVER, VERSION, WORKFLOW, Removal, enqueue, queue_of
from batch.errors import AwayError
from batch.key import Secret
from batch.output.postgres import not_installed
from batch.output.postgres.connection import PATIENCE, connect, parameters, place_of
from batch.output.postgres.errors import as_ours, map_errors
from batch.output.postgres.pool import Connections

try:
    from dbos import DBOS, DBOSConfig, WorkflowStatus
    from sqlalchemy import URL
    from sqlalchemy.exc import DBAPIError
except ImportError as error:
    raise not_installed(error) from None

T = TypeVar("T")
SCHEMA = "dbos"
POLLS_S = 1.0  # between two looks at a queue
AGAIN_POLLS = 5  # a queue that is nearly always empty is looked at less often
CONNECTIONS = 4
TRIES = 30  # of what DBOS does not try again by itself, one for each look at a queue
THREADS = 16  # short questions to the database; a few ends of runs take longer
PENDING = "PENDING"
WAITING = frozenset({"ENQUEUED", "DELAYED"})


def migrate(engine: Secret) -> None:
    """Create the tables of DBOS, or bring them up to date, with what older versions have queued."""
    _quiet(logging.getLogger("batch"))
    DBOS.migrate(_url(engine), schema=SCHEMA)
    with connect(engine) as connection, map_errors(place_of(engine)):
        connection.execute(TAKE_OVER, {"version": VERSION, "workflow": WORKFLOW})


class DbosEngine:
    """The engine of one worker, by whose name DBOS knows it. There is one in a process."""

    def __init__(
        self,
        engine: Secret,
        worker: str,
        connections: Connections,
        *,
        log: logging.Logger,
        polls_s: float = POLLS_S,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._log = log
        self._polls_s = polls_s
        self._rooms: dict[Account, int] = {}
        self._under_way: dict[asyncio.Task[Any], str | None] = {}
        self._missing: set[str] = set()
        self._removal = Removal(connections)

    def enqueue(
        self,
        transaction: Any,
        run_id: str,
        account: Account,
        jobs: Sequence[tuple[int, str]],
        look: int = 1,
    ) -> None:
        enqueue(transaction, run_id, account, jobs, look)

    @asynccontextmanager
    async def working(self, rooms: Mapping[Account, int], live: Live) -> AsyncIterator[None]:
        self._rooms = dict(rooms)
        _quiet(self._log)
        DBOS(config=self._config())
        DBOS.listen_queues([queue_of(account) + kind for account in rooms for kind in ("", AGAIN)])
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(self._workflow(live))
        try:
            DBOS.launch()  # its workflows run in the loop that runs now
            for account, room in rooms.items():
                for kind, its_room, polls in (("", room, 1), (AGAIN, None, AGAIN_POLLS)):
                    name, polls_s = queue_of(account) + kind, polls * self._polls_s
                    await self._patiently(partial(_register, name, its_room, polls_s))
            async with beside(self._removal.go_on()):
                yield
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            await self._removal.end()
            await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    async def make_room(self, account: Account, room: int) -> None:
        if self._rooms.get(account, 0) >= room:
            return
        self._rooms[account] = room
        await self._patiently(partial(_widen, queue_of(account), room))

    def take_over(self, worker: str) -> None:
        _resume(_listed(executor_id=worker, status=PENDING))

    async def take_over_unknown(self, known: Collection[str]) -> None:
        here = {*self._under_way.values(), *self._removal.waiting}

        def work() -> None:
            found = _listed(status=PENDING)
            mine = {item.workflow_id for item in found if item.executor_id == self._worker}
            # What is missing for the second time: the connection broke when it was delivered.
            lost, self._missing = self._missing & mine - here, mine - here
            known_here = {self._worker, *known}
            _resume(i for i in found if i.executor_id not in known_here or i.workflow_id in lost)

        await asyncio.to_thread(work)

    async def deliver_again(self, run_id: str, account: Account, job_id: str) -> None:
        again = partial(self._deliver_again, run_id, account, job_id)
        await self._patiently(partial(asyncio.to_thread, again))

    async def forget(self, run_id: str) -> None:
        kept = await asyncio.to_thread(_listed, workflow_id_prefix=f"{run_id}/")
        await self._removal.remove([item.workflow_id for item in kept])

    def _workflow(self, live: Live) -> Callable[..., Any]:
        async def job(run_id: str, job_id: str) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._under_way[task] = DBOS.workflow_id
            try:
                fate = await live(run_id, job_id)
                if DBOS.workflow_id is not None and fate is Fate.DONE:
                    self._removal.add(DBOS.workflow_id)
                elif DBOS.workflow_id is not None and fate is Fate.BACK:
                    await _in_thread(_put_back, DBOS.workflow_id)
                raise asyncio.CancelledError
            finally:
                del self._under_way[task]

        return job

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what DBOS answers; it does not try this again by itself while Postgres is away.

        Raises:
            StateError: Postgres cannot be used, or has not answered for too long.
        """
        for tried in itertools.count(1):
            try:
                return await ask()
            except DBAPIError as error:
                ours = as_ours(error.orig, place_of(self._engine))  # type: ignore[arg-type]
                if tried == TRIES or not isinstance(ours, AwayError):
                    raise ours from error
            await asyncio.sleep(self._polls_s)
        raise AssertionError

    def _deliver_again(self, run_id: str, account: Account, job_id: str) -> None:
        ids = [f"{run_id}/{look}/{job_id}" for look in (2, 1)]
        found = {item.workflow_id: item for item in _listed(workflow_ids=ids)}
        latest = next((found[name] for name in ids if name in found), None)
        if latest is None:
            with connect(self._engine) as connection:
                enqueue(connection, run_id, account, [(0, job_id)], kind=AGAIN)
        elif latest.status == PENDING and latest.executor_id == self._worker:
            _resume([latest])
        elif latest.status not in {PENDING, *WAITING}:
            DBOS.rewind_workflow(latest.workflow_id, queue_name=_again(latest))

    def _config(self) -> DBOSConfig:
        return {
            "name": APP,
            "system_database_url": _url(self._engine),
            "dbos_system_schema": SCHEMA,
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
            "db_engine_kwargs": {"connect_args": {}},  # else its sessions are not called as ours
            "application_version": VERSION,
            "executor_id": self._worker,
            "run_migrations": False,  # `engine init` does that
            "enable_otlp": False,
            # It warns of each workflow that ends as cancelled, and at length of each outage of
            # Postgres, which the worker tells in a sentence.
            "log_level": "ERROR",
        }


def _listed(**asked: Any) -> list[WorkflowStatus]:
    return DBOS.list_workflows(load_input=False, load_output=False, **asked)


def _resume(workflows: Iterable[WorkflowStatus]) -> None:
    """Queue workflows again."""
    for queue, group in groupby(sorted(workflows, key=_again), key=_again):
        DBOS.resume_workflows([found.workflow_id for found in group], queue_name=queue)


def _again(workflow: WorkflowStatus) -> str:
    return str(workflow.queue_name).removesuffix(AGAIN) + AGAIN


def _put_back(workflow_id: str) -> None:
    for found in _listed(workflow_ids=[workflow_id]):
        DBOS.resume_workflows([workflow_id], queue_name=found.queue_name)


async def _widen(name: str, room: int) -> None:
    queue = await DBOS.retrieve_queue_async(name)
    if queue is not None and (await queue.get_worker_concurrency_async() or 0) < room:
        await queue.set_worker_concurrency_async(room)


async def _register(queue: str, room: int | None, polls_s: float) -> None:
    await DBOS.register_queue_async(
        queue,
        worker_concurrency=room,
        polling_interval_sec=polls_s,
        on_conflict="never_update",
    )


async def _in_thread(work: Callable[[str], None], argument: str) -> None:
    """Work in a thread that knows of no workflow: it would be a step of it."""
    await asyncio.get_running_loop().run_in_executor(None, work, argument)


def _url(engine: Secret) -> str:
    given = parameters(engine)
    named = {name: given.pop(name, None) for name in ("user", "password", "dbname")}
    if "host" in given and not given["host"].startswith("/") and "," not in given["host"]:
        named |= {name: given.pop(name, None) for name in ("host", "port")}
    # Its transactions lock jobs in the queue, as ours do rows: a process that sleeps must not keep them.
    settings = " ".join(f"-c {name}={value}" for name, value in PATIENCE.items())
    given["options"] = f"{given.get('options', '')} {settings}".strip()
    url = URL.create(
        "postgresql",
        username=named["user"],
        password=named["password"],
        host=named.get("host"),
        port=int(named.get("port") or 0) or None,
        database=named["dbname"],
        query=given,
    )
    return url.render_as_string(hide_password=False)


def _quiet(log: logging.Logger) -> None:
    """Have the log of DBOS go where ours goes, as far as it is more than a report."""
    theirs = logging.getLogger("dbos")
    theirs.handlers[:] = log.handlers or [logging.NullHandler()]
    theirs.propagate = False
    theirs.setLevel(logging.ERROR)
