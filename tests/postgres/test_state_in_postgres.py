"""What only Postgres promises of a state: claims, commits that may be repeated, outages, locks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster import USER, Cluster
from fleets import opened_fleet
from libraries_in_postgres import LIBRARY, Library, library_in
from link import link_to
from scripted import ACCOUNT, SAID, attempt, landed, opened

from batch.attempt import Failed
from batch.errors import (
    AwayError,
    ClaimLostError,
    LockedError,
    RefusedError,
    StateError,
    StateLostError,
)
from batch.key import Secret
from batch.output import stores
from batch.output.fleet import CLAIM, Claim, OpenRun, Work
from batch.output.folder import open_folder
from batch.output.layout import Layout
from batch.output.marker import mark
from batch.output.postgres import questions
from batch.output.postgres.connection import connect
from batch.output.postgres.pool import Connections
from batch.output.postgres.state import PostgresState
from batch.output.state import (
    AddRow,
    BeginRun,
    EndRun,
    Fact,
    Force,
    GenerationTime,
    Proof,
    Put,
    Uploaded,
    Withdraw,
)

CLAIMED = Claim(LIBRARY, "run-1", "a", 7)


@pytest.fixture
async def library(emptied_url: str) -> AsyncIterator[Library]:
    async with library_in(emptied_url) as library:
        yield library


@pytest.fixture
def root(engine_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a new library in Postgres."""
    monkeypatch.setenv("KLING_BATCH_ENGINE", engine_url)
    with open_folder(tmp_path / "night", sandbox=False, now=1.0) as folder:
        assert folder.database.library == folder.library
    return tmp_path / "night"


@contextmanager
def claimed(claim: Claim = CLAIMED) -> Iterator[None]:
    token = CLAIM.set(claim)
    try:
        yield
    finally:
        CLAIM.reset(token)


def grant(library: Library, claim: Claim) -> None:
    library.execute(
        "INSERT INTO claims (library, job_id, token, run_id, worker) VALUES (%s, %s, %s, %s, 'w')"
        " ON CONFLICT (library, job_id) DO UPDATE SET token = excluded.token",
        *(claim.library, claim.job_id, claim.token, claim.run_id),
    )


# -- the claim


async def test_newer_claim_fences_the_older_one(library: Library) -> None:
    grant(library, CLAIMED)
    with claimed():
        await library.state.commit(Put(attempt()))
        grant(library, replace(CLAIMED, token=8))
        with pytest.raises(ClaimLostError, match="another worker has claimed job a"):
            await library.state.commit(Put(attempt(opened())), AddRow("row"))
    assert library.database.attempt("kb-1") == attempt()
    assert library.rows() == []


async def test_claim_that_was_never_granted_commits_nothing(library: Library) -> None:
    with claimed(), pytest.raises(ClaimLostError):
        await library.state.commit(Put(attempt()))
    assert library.database.known() == {}


async def test_claim_names_the_run_that_changed_an_attempt(library: Library) -> None:
    grant(library, CLAIMED)
    query = "SELECT run_id FROM attempts"
    await library.state.commit(Put(attempt()))
    assert library.query(query) == [(None,)]
    with claimed():
        await library.state.commit(Put(attempt(opened())))
    assert library.query(query) == [("run-1",)]
    library.database.write([Put(attempt(opened(), job_id="b"))])  # planned, in a later run
    assert library.query(query) == [("run-1",)]


# -- repeated


async def test_repeated_commit_changes_nothing(library: Library) -> None:
    """Its answer was lost: the same call comes once more."""
    grant(library, CLAIMED)
    changes = [
        Put(attempt(landed("8", "videos/a.mp4", 9))),
        Withdraw("kb-9"),
        AddRow('{"run_id": "run-1", "job_id": "a", "note": "ü"}'),
        Proof(ACCOUNT, 7.0),
        Fact("name", "value"),
        Force("v2:0", 1.0, 2),
        BeginRun("run-1", 1.0),
        EndRun("run-1", 2.0, 0),
        Uploaded("s3://studio", "videos/a.mp4", "00", 9, 1.0),
    ]
    tables = "attempts", "results", "lookup_proofs", "facts", "forced", "runs", "uploads"

    def all_rows() -> list[Any]:
        return [library.query(f"SELECT * FROM {table}") for table in (*tables, "libraries")]

    with claimed():
        await library.state.commit(*changes)
        once = all_rows()
        await library.state.commit(*changes)
    assert all_rows() == once
    assert library.database.result_bytes() == len(library.rows()[0].encode()) + 1
    assert library.query("SELECT run_id, job_id FROM results") == [("run-1", "a")]


async def test_lines_of_many_connections_have_one_order(engine_url: str) -> None:
    """And no two commits wait for each other."""
    told: list[str] = []
    async with library_in(engine_url, on_wait=told.append) as library:
        workers = [PostgresState(library.connections, LIBRARY) for _ in range(4)]
        await commit_in_parallel(library, workers)
        found = library.query("SELECT seq, line, ends_at FROM results ORDER BY seq")
        size = library.database.result_bytes()
    assert told == []
    assert [seq for seq, _, _ in found] == list(range(1, 81))
    end = 0
    for _, line, ends_at in found:
        end += len(line.encode()) + 1
        assert ends_at == end
    assert size == end


async def test_simultaneous_commits_are_one_transaction(library: Library) -> None:
    await commit_in_parallel(library, [library.state])
    assert len(library.query("SELECT DISTINCT xmin FROM results")) <= 4, "of 80 commits"


async def commit_in_parallel(library: Library, workers: Sequence[PostgresState]) -> None:
    claims = [replace(CLAIMED, job_id=f"job-{number}") for number in range(40)]
    for claim in claims:
        grant(library, claim)

    async def work(state: PostgresState, claim: Claim) -> None:
        CLAIM.set(claim)  # of this task alone
        mine = attempt(opened(claim.job_id), name=f"kb-{claim.job_id}", job_id=claim.job_id)
        for line in ("ä" * 3, "b"):
            row = AddRow(f"{claim.job_id} {line}")
            await state.commit(Put(mine), row, GenerationTime("k", 1.0))

    async with asyncio.TaskGroup() as group:
        for state, claim in zip(itertools.cycle(workers), claims, strict=False):
            group.create_task(work(state, claim))


async def test_old_generation_times_go(library: Library) -> None:
    times = [GenerationTime("k", float(number)) for number in range(410)]
    await library.state.commit(*times, GenerationTime("other", 1.0), EndRun("run-1", 2.0, 0))
    found = await library.state.generation_times()
    assert found == {"k": [float(number) for number in range(10, 410)], "other": [1.0]}


async def test_character_that_postgres_lacks_is_replaced(library: Library) -> None:
    said = replace(SAID, message="a\0b \\u0000")
    await library.state.commit(Put(attempt(Failed(said, 2.0))))
    state = (await library.state.attempt("kb-1")).state
    assert isinstance(state, Failed)
    assert state.failure.message == "a\ufffdb \\u0000"


# -- what a worker holds for an attempt


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ([Put(attempt(Failed(SAID, 2.0)))], (0.0, [(None, None, None)])),
        ([Withdraw("kb-1")], (0.0, [])),
        ([Put(attempt(opened()))], (0.5, [(99.0, "run-1", 0.5)])),
        ([Put(attempt(landed("8", "videos/a.mp4", 9)))], (0.5, [(None, "run-1", 0.5)])),
        ([Put(attempt(Failed(SAID, 2.0))), Withdraw("kb-1")], (0.0, [])),
    ],
    ids=["created nothing", "withdrawn", "open", "landed", "both"],
)
async def test_slot_and_reservation_follow_the_state(
    library: Library, changes: list[Any], left: tuple[float, list[Any]]
) -> None:
    await library.state.commit(BeginRun("run-1", 1.0), Put(attempt()))
    library.execute("UPDATE attempts SET slot_until = 99, sent_in = 'run-1', reserved_usd = 0.5")
    library.execute("UPDATE runs SET reserved_usd = 0.5")
    for _ in range(2):  # repeated, nothing is given back twice
        await library.state.commit(*changes)
        (reserved,) = library.query("SELECT reserved_usd FROM runs")[0]
        slots = library.query("SELECT slot_until, sent_in, reserved_usd FROM attempts")
        assert (reserved, slots) == left


# -- the rules, across libraries


async def test_task_of_another_library_is_refused(library: Library, emptied_url: str) -> None:
    await library.state.commit(Put(attempt(opened("8"))))
    async with library_in(emptied_url, "f" * 32) as other:
        with pytest.raises(RefusedError, match="owner_of_task"):
            await other.state.commit(Put(attempt(opened("8"), name="kb-2", job_id="b")))
        assert await other.state.owner_of("8") == "kb-1"
        elsewhere = replace(attempt(opened("8")), account=replace(ACCOUNT, base_url="elsewhere"))
        await other.state.commit(Put(elsewhere))
        assert await other.state.known_of("a") == other.database.known()["a"]
        assert await other.state.known_of("b") == []


async def test_all_pages_of_an_answer_are_read(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "PAGE", 3)
    made = [
        attempt(opened(str(number)), name=f"kb-{number}", job_id=f"j{number % 2}-{number}")
        for number in range(9)
    ]
    library.database.write([Put(item) for item in made])
    library.database.write([AddRow(f"row {number}") for number in range(9)])
    assert list(library.database.attempts()) == sorted(made, key=lambda item: item.job_id)
    assert list(library.database.jobs()) == list(library.database.known().values())
    assert library.rows() == [f"row {number}" for number in range(9)]
    assert list(library.database.result_lines(after=7)) == ["row 7", "row 8"]


# -- outages


async def test_commit_waits_while_postgres_is_away(engine_url: str, cluster: Cluster) -> None:
    told: list[str] = []
    async with library_in(engine_url, on_wait=told.append) as library:
        await library.state.commit(Put(attempt()))
        cluster.stop()
        try:
            waiting = asyncio.create_task(library.state.commit(Put(attempt(opened()))))
            reading = asyncio.create_task(library.state.attempt("kb-1"))
            while not told:
                await asyncio.sleep(0.01)
            assert not waiting.done()
        finally:
            cluster.start()
        await waiting
        assert (await reading).job_id == "a"
        assert await library.state.attempt("kb-1") == attempt(opened())
    assert len(told) == 1


async def test_commit_waits_for_a_standbys_promotion(engine_url: str) -> None:
    """Until it has taken the server's place, it answers, and takes nothing."""
    told: list[str] = []

    async def read_only(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("SET default_transaction_read_only TO on")

    async def promoted(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("SET default_transaction_read_only TO off")

    async with library_in(engine_url, on_wait=told.append, max_size=1) as library:
        await library.connections.again(read_only)
        waiting = asyncio.create_task(library.state.commit(Put(attempt())))
        while not (told or waiting.done()):
            await asyncio.sleep(0.01)
        await library.connections.again(promoted)
        await waiting
        assert await library.state.attempt("kb-1") == attempt()


async def test_wrong_password_is_no_silence(engine_url: str, cluster: Cluster) -> None:
    """By any connection, the database is said to refuse the login; the password is not said."""
    role = "locked_out"
    cluster.lock_out(role)
    name = engine_url.rpartition("/")[2]
    address = cluster.url(name).replace(USER, f"{role}:a-wrong-password")
    refused = f'refuses the login .*authentication failed for user "{role}"'
    with pytest.raises(AwayError, match=refused) as caught:
        connect(Secret(address))
    told: list[str] = []
    async with Connections(Secret(address), patience_s=1.0, on_wait=told.append) as connections:
        with pytest.raises(AwayError, match=refused):
            await connections.once(nothing)
        with pytest.raises(AwayError, match=refused):
            await connections.again(nothing)
    assert "a-wrong-password" not in str(caught.value)
    for missing, words in (
        (cluster.url("no_such_database"), 'database "no_such_database" does not exist'),
        (engine_url.replace(USER, "nobody_here"), 'role "nobody_here" does not exist'),
    ):
        with pytest.raises(AwayError, match=f"refuses the login .*{words}"):
            connect(Secret(missing))


async def test_refusal_is_told_while_it_is_waited_for(engine_url: str, cluster: Cluster) -> None:
    told: list[str] = []
    missing = cluster.url("made_later")
    async with Connections(Secret(missing), on_wait=told.append) as connections:
        connections._pool.timeout = 0.1
        waiting = asyncio.create_task(connections.again(nothing))
        while not told:
            await asyncio.sleep(0.01)
        cluster.execute(f"CREATE DATABASE made_later TEMPLATE {engine_url.rpartition('/')[2]}")
        await waiting
    assert len(told) == 1
    assert "refuses the login (connection failed" in told[0]
    assert 'database "made_later" does not exist' in told[0]


async def nothing(_connection: psycopg.AsyncConnection[Any]) -> None:
    """Ask for nothing."""


def test_standby_is_not_connected_to(engine_url: str, cluster: Cluster) -> None:
    name = engine_url.rpartition("/")[2]
    cluster.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
    with pytest.raises(AwayError, match="session is read-only"):
        connect(Secret(engine_url))
    connect(Secret(f"{engine_url}?target_session_attrs=any")).close()


async def test_leaving_waits_for_the_commit_of_a_cancelled_call(engine_url: str) -> None:
    async with library_in(engine_url) as library:
        call = asyncio.create_task(library.state.commit(Put(attempt())))
        await asyncio.sleep(0)
        call.cancel()
    with psycopg.connect(engine_url) as connection:
        assert connection.execute("SELECT count(*) FROM kling.attempts").fetchone() == (1,)


async def test_commit_gives_up_at_last(engine_url: str, cluster: Cluster) -> None:
    async with library_in(engine_url, patience_s=0.0) as library:
        cluster.stop()
        try:
            with pytest.raises(StateError, match=r"on 127\.0\.0\.1 does not answer"):
                await library.state.commit(Put(attempt()))
        finally:
            cluster.start()


# -- the folder


def test_new_library_is_marked_in_its_folder(root: Path) -> None:
    assert not Layout(root).database.exists()
    with stores.open_to_read(root) as store:
        assert store.library == Layout(root).library.read_text().strip() == store.fact("library")
        assert store.fact("origin") == "provider"
        with pytest.raises(StateError, match="read-only"):
            store.write([Fact("name", "value")])


def test_opening_a_library_takes_seven_round_trips(
    root: Path, engine_url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two to connect; the session, its folder, the lock, an open run, and what a dead run has left."""
    with link_to(cluster.port) as link:
        through = engine_url.replace(str(cluster.port), str(link.port))
        monkeypatch.setenv("KLING_BATCH_ENGINE", through)
        with stores.hold(root):
            assert link.round_trips == 7


def test_held_library_is_locked_for_others(root: Path) -> None:
    assert stores.holder(root) is None
    with stores.hold(root):
        with (
            pytest.raises(LockedError, match=r"another run holds .*night: process \d+ on"),
            stores.hold(root),
        ):
            pass
        assert stores.holder(root) is not None
        with stores.open_to_read(root) as store:
            assert store.known() == {}
    with stores.hold(root):
        pass


def test_handed_over_run_locks_the_library(root: Path, engine_url: str) -> None:
    with stores.hold(root) as store:
        store.write([BeginRun("run-1", 1.0)])
        with pytest.raises(LockedError):
            store.write([BeginRun("run-2", 2.0)])
    with stores.hold(root) as store:  # it died before it was handed over
        store.write([BeginRun("run-2", 2.0)])
        assert [run[0] for run in store.runs()] == ["run-2", "run-1"]
    with psycopg.connect(engine_url) as connection:
        connection.execute("UPDATE kling.runs SET terms = '{}' WHERE run_id = 'run-2'")
    with pytest.raises(LockedError, match="the run run-2 of .*night has not ended"):
        stores.hold(root).__enter__()
    holder = stores.holder(root)
    assert str(holder) == "a run on the workers of the fleet, since 1970-01-01T00:00:02+00:00"


def test_library_that_postgres_lacks_is_lost(root: Path, cluster: Cluster, template: str) -> None:
    stores.use_engine(Secret(cluster.create(template)))
    with pytest.raises(StateLostError, match="does not have the library of .*night"):
        stores.hold(root).__enter__()


def test_two_new_libraries_do_not_share_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "state" / "library"
    mark(path, "0" * 32)
    mark(path, "0" * 32)
    with pytest.raises(LockedError, match="has just begun"):
        mark(path, "1" * 32)


@pytest.mark.parametrize("has_mark", [False, True])
def test_mark_clears_what_a_death_left_of_others(tmp_path: Path, *, has_mark: bool) -> None:
    """A run that died while it made a mark leaves its part; the next one makes another library."""
    path = tmp_path / "library"
    if has_mark:
        mark(path, "1" * 32)
    path.with_name(f"library.{'0' * 32}.part").write_text("0")
    mark(path, "1" * 32)
    assert [item.name for item in tmp_path.iterdir()] == ["library"]


def test_failover_puts_new_attempts_in_doubt(root: Path, engine_url: str) -> None:
    with open_folder(root, sandbox=False, now=1.0) as folder:
        assert folder.forgot_at is None
    with psycopg.connect(engine_url) as connection:
        connection.execute("UPDATE kling.meta SET timeline = 'another'")
    for _ in range(2):
        with open_folder(root, sandbox=False, now=1.0) as folder:
            assert folder.forgot_at is not None
            first = folder.forgot_at
    assert folder.forgot_at == first


async def test_failover_gives_no_token_out_again(root: Path, engine_url: str) -> None:
    """Whoever has one of before is not the newest, although the copy has not heard of its claim."""
    library = Layout(root).library.read_text().strip()
    async with opened_fleet(engine_url) as worker:

        async def tokens(run_id: str, count: int) -> list[int]:
            run = OpenRun(run_id, library, str(root), ACCOUNT, "{}", 1.0)
            await worker.fleet.hand_over(run, [Work(0, "a", "{}")], lambda _transaction: None)
            claims = [await worker.fleet.claim(run_id, "a", f"w{n}") for n in range(count)]
            await worker.fleet.end(run_id, 0, "{}")
            return [claim.claim.token for claim in claims if claim is not None]

        before = await tokens("r1", 40)
        worker.execute("SELECT setval('tokens', 1, false)")
        worker.execute("DELETE FROM claims")
        worker.execute("UPDATE meta SET timeline = 'another'")
        stores.use_engine(Secret(engine_url))
        with open_folder(root, sandbox=False, now=1.0):
            pass
        after = await tokens("r2", 40)
    assert len({*before, *after}) == 80


def test_restored_dump_puts_new_attempts_in_doubt(
    root: Path, engine_url: str, cluster: Cluster
) -> None:
    """In the same Postgres, and the same database, too."""
    dump = cluster.dump(engine_url)
    with psycopg.connect(engine_url) as connection:
        connection.execute("DROP SCHEMA kling CASCADE")
    cluster.restore(engine_url, dump)
    with open_folder(root, sandbox=False, now=1.0) as folder:
        assert folder.forgot_at is not None


@pytest.mark.parametrize(
    "rolled_back", ["DELETE FROM kling.runs", "UPDATE kling.runs SET finished_at = NULL"]
)
def test_data_folder_rolled_back_puts_new_attempts_in_doubt(
    root: Path, engine_url: str, tmp_path: Path, rolled_back: str
) -> None:
    """On the same timeline: only this machine has seen what came after."""
    home = tmp_path / "home"
    with open_folder(root, sandbox=False, now=1.0, state_folder=home) as folder:
        folder.database.write([BeginRun("r-1", 1.0), EndRun("r-1", 2.0, 0)])
        folder.seen.note("r-1", has_ended=True)
    with open_folder(root, sandbox=False, now=3.0, state_folder=home) as folder:
        assert (folder.is_older, folder.forgot_at) == (False, None)
    with psycopg.connect(engine_url) as connection:
        connection.execute(rolled_back.encode())
    with open_folder(root, sandbox=False, now=4.0, state_folder=home) as folder:
        assert (folder.is_older, folder.forgot_at) == (True, 4.0)


def test_copied_database_puts_new_attempts_in_doubt(
    root: Path, engine_url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables have the oids of the original's."""
    name = engine_url.rsplit("/", 1)[1]
    cluster.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    monkeypatch.setenv("KLING_BATCH_ENGINE", cluster.url(f"{name}_copy"))
    with open_folder(root, sandbox=False, now=1.0) as folder:
        assert folder.forgot_at is not None
