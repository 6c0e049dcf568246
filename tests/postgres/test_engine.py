"""What the engine does where Postgres does not answer it."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
from scripted import ACCOUNT
from sqlalchemy.exc import OperationalError

from batch.engines import dbos
from batch.engines.dbos import DbosEngine
from batch.errors import AwayError, StateError
from batch.key import Secret
from batch.output.postgres.pool import Connections


class Dbos:
    """Answers after *failures* attempts that end with *error*."""

    def __init__(self, failures: int, error: psycopg.Error) -> None:
        self.asked, self._failures, self._error = 0, failures, error

    async def retrieve_queue_async(self, _name: str) -> None:
        self.asked += 1
        if self.asked <= self._failures:
            raise OperationalError("SELECT", {}, self._error)


async def widen(monkeypatch: pytest.MonkeyPatch, failures: int, error: psycopg.Error) -> int:
    """Have a worker take more jobs; return how often the engine was asked."""
    fake: Any = Dbos(failures, error)
    monkeypatch.setattr(dbos, "DBOS", fake)
    engine = Secret("postgresql://kling@127.0.0.1/kling")
    log = logging.getLogger("test")
    made = DbosEngine(engine, "one", Connections(engine), log=log, polls_s=0.001)
    await made.make_room(ACCOUNT, 40)
    return int(fake.asked)


async def test_restart_of_postgres_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    full = psycopg.errors.TooManyConnections("too many connections")
    assert await widen(monkeypatch, 2, full) == 3


async def test_long_outage_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwayError, match="does not answer"):
        await widen(monkeypatch, 1000, psycopg.OperationalError("connection failed"))


async def test_missing_right_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match="grant it that"):
        await widen(monkeypatch, 1000, psycopg.errors.InsufficientPrivilege("denied"))
