"""A worker in a process of its own whose waits are short, and that may stop at a point of its first job.

python quick_worker.py NAME BASE_URL [POINT kill|stop]      (engine and key in the environment)
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
import sys
from typing import Any

from batch.attempt import Account
from batch.cli.logs import LogObserver, configure, logger
from batch.engines import deliveries
from batch.engines.dbos import DbosEngine
from batch.engines.leave import Times
from batch.engines.queue import Removal
from batch.engines.start import Setup, work
from batch.key import Secret, account_of
from batch.output.in_short import all_known
from batch.output.postgres import fleet
from batch.output.postgres.pool import Connections
from batch.output.postgres.relay import PostgresRelay
from batch.output.postgres.state import PostgresState
from batch.output.state import Put
from batch.provider.client import Client
from batch.run import doorkeeper, gate
from batch.run.gate_postgres import PostgresDesk
from batch.run.signals import on_stop
from batch.settings import receiver_of
from batch.waker import Waker

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
CALLBACKS = ("KLING_BATCH_CALLBACK_URL", "KLING_BATCH_CALLBACK_LISTEN")
deliveries.SPARE_ROOM = 2  # so that every worker gets some jobs
fleet.HELD_FOR_S = 3.0
for module in (gate, doorkeeper):
    module.SEND_WITHIN_S, module.ARRIVES_WITHIN_S = 2.0, 3.0
met: list[str] = []
asked: dict[str, str] = {}


def reach(point: str) -> None:
    """End, or fall asleep, the first time that *point* is reached."""
    if point == asked.get("point") and not met:
        met.append(point)
        print(f"at {point}", flush=True)
        os.kill(os.getpid(), SIGNALS[asked["how"]])


def around(method: Any, name_of: Any) -> Any:
    @functools.wraps(method)
    async def call(self: Any, *args: Any, **named: Any) -> Any:
        name = name_of(*args)
        reach(f"before {name}")
        found = await method(self, *args, **named)
        reach(f"after {name}")
        return found

    return call


def name_of(question: Any) -> str:
    """Return what is asked for."""
    return "known" if question.answer is all_known else "question"


def phase_of(*changes: Any) -> str:
    """Return the phase that a commit brings an attempt to."""
    return next((c.attempt.phase.value for c in changes if isinstance(c, Put)), "")


PostgresState.commit = around(PostgresState.commit, phase_of)  # type: ignore[method-assign]
PostgresDesk.ask = around(PostgresDesk.ask, lambda *_args: "intent")  # type: ignore[method-assign]
Client.submit = around(Client.submit, lambda *_args: "post")  # type: ignore[method-assign]
DbosEngine.deliver_again = around(DbosEngine.deliver_again, lambda *_args: "delivery")  # type: ignore[method-assign]
Removal.remove = around(Removal.remove, lambda done: "removal" if done else "nothing")  # type: ignore[method-assign]
Connections.ask = around(Connections.ask, name_of)  # type: ignore[method-assign]
PostgresRelay.tell = around(PostgresRelay.tell, lambda *_args: "relay")  # type: ignore[method-assign]


async def main() -> None:
    key = asked["key"]
    setup = Setup(
        Secret(asked["engine"]),
        {Account(asked["base_url"], account_of(key)): Secret(key)},
        asked["name"],
        callback=receiver_of(*map(os.environ.get, CALLBACKS)),
        times=Times(beat_s=0.2, drain_s=5.0, unreachable_s=30.0, refused_s=0.5),
        dead_after_s=1.0,
        polls_s=0.1,
    )
    ending = Waker()
    with on_stop(lambda _number: ending.set(), lambda _number: None):
        await work(setup, ending, LogObserver().notify, logger)


def begin(line: str) -> None:
    """Be a worker, until it ends."""
    asked.update(json.loads(line))
    os.environ.update(json.loads(asked["environ"]))
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    configure(level=logging.INFO, log_format="text")
    asyncio.run(main())


signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
for told in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            begin(told)
        finally:
            os._exit(0)
    print(child, flush=True)
