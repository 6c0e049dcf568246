"""The promises of `Store` that `State` does not make, kept by every implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from every_state import EVERY_STATE
from libraries_in_postgres import LIBRARY, library_in
from scripted import attempt, generated, landed

from batch.attempt import Failed
from batch.job import Failure, FailureKind
from batch.key import Secret
from batch.output import in_short
from batch.output.sqlite import Database
from batch.output.state import Put
from batch.output.store import Store

REFUSED = Failed(Failure(FailureKind.MODERATION, "no"), 1.0)


@dataclass(frozen=True)
class Subject:
    """A store, and the same library as another process changes it meanwhile."""

    store: Store
    other: Store


@asynccontextmanager
async def sqlite(root: Path, _engine_url: Callable[[], str]) -> AsyncIterator[Subject]:
    path = root / "state.db"
    with Database.open(path) as other, Database.open_to_read(path, beside_writer=True) as store:
        yield Subject(store, other)


@asynccontextmanager
async def postgres(_root: Path, engine_url: Callable[[], str]) -> AsyncIterator[Subject]:
    from batch.output.postgres.connection import connect  # noqa: PLC0415 - needs psycopg
    from batch.output.postgres.database import PostgresDatabase  # noqa: PLC0415 - as above

    url = engine_url()
    async with library_in(url) as library:
        with closing(connect(Secret(url))) as connection:
            store = PostgresDatabase(connection, LIBRARY, path=Path(LIBRARY), place="")
            yield Subject(store, library.database)


IMPLEMENTATIONS: list[Callable[[Path, Callable[[], str]], AbstractAsyncContextManager[Subject]]] = [
    sqlite,
    postgres,
]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda made: made.__name__)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with request.param(tmp_path, lambda: request.getfixturevalue("emptied_url")) as made:
        yield made


async def test_jobs_pass_by_id_and_number(subject: Subject) -> None:
    subject.other.write(
        [
            Put(replace(attempt(REFUSED, name=name, job_id=job_id), number=number))
            for name, job_id, number in (
                ("kb-1", "b", 2),
                ("kb-2", "b", 3),
                ("kb-3", "b", 1),
                ("kb-4", "a", 1),
                ("kb-5", "B", 1),
            )
        ]
    )
    jobs = list(subject.store.jobs())
    assert [[item.external_task_id for item in job] for job in jobs] == [
        ["kb-5"],
        ["kb-4"],
        ["kb-3", "kb-1", "kb-2"],
    ]
    assert jobs == list(subject.store.known().values())
    of_one = subject.store.attempts_of("b")
    assert [item.external_task_id for item in of_one] == ["kb-3", "kb-1", "kb-2"]
    assert subject.store.attempts_of("c") == []


async def test_passing_jobs_are_of_one_moment(subject: Subject) -> None:
    """So is what is asked in between; the next time, all is new."""
    store, other = subject.store, subject.other
    before = [attempt(generated(str(n)), name=f"kb-{n}", job_id=f"j-{n}") for n in range(3)]
    other.write(map(Put, before))
    passing = store.jobs()
    seen = [next(passing)]
    other.write([Put(attempt(landed("2", "videos/j-2.mp4", 9), name="kb-2", job_id="j-2"))])
    other.write([Put(attempt(REFUSED, name="kb-3", job_id="j-3"))])
    assert store.attempt("kb-2") == before[2]
    assert [job[-1].phase for job in store.known().values()] == [item.phase for item in before]
    seen += passing
    assert [job[-1].phase for job in seen] == [item.phase for item in before]
    assert store.attempt("kb-2") != before[2]
    assert len(list(store.jobs())) == 4


async def test_abandoned_jobs_leave_store_usable(subject: Subject) -> None:
    subject.other.write(Put(attempt(REFUSED, name=f"kb-{n}", job_id=f"j-{n}")) for n in range(3))
    for _job in subject.store.jobs():
        break
    assert len(list(subject.store.jobs())) == 3


async def test_many_jobs_are_known_like_few(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed or not: in the same order, each equal to the last field."""
    for number, state in enumerate(EVERY_STATE):
        task = getattr(state, "task", None)
        mine = state if task is None else replace(state, task=replace(task, task_id=f"8{number}"))
        made = attempt(mine, name=f"kb-{number}", job_id=f"j-{-number % 5}")
        apart = replace(made, number=-number % 7, fingerprint=f"v2:{number}", cost_usd=0.5)
        subject.other.write([Put(apart)])
    few = subject.store.known()
    monkeypatch.setattr(in_short, "PLAIN", 4)
    many = subject.store.known()
    assert not isinstance(many, dict)
    assert list(many.items()) == list(few.items())
    assert (len(many), "j-1" in many, "j-9" in many) == (5, True, False)
