"""A state on its way into Postgres and back: nothing is lost, whenever the command dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from batch.errors import StateError, UsageError
from batch.key import Secret
from batch.output import stores
from batch.output.folder import open_folder, peek
from batch.output.layout import Layout
from batch.output.sqlite import TABLES, Database
from batch.output.store import Store

REPOSITORY = Path(__file__).parents[2]
MADE = REPOSITORY / "tests" / "data" / "c951909"
SCRIPT = Path(__file__).with_name("mortal_moves.py")


@pytest.fixture
def engine(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv("KLING_BATCH_ENGINE", engine_url)
    return Secret(engine_url)


@pytest.fixture(params=["state-1", "state-2"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return an old folder, with an attempt in every state."""
    return copied(request.param, tmp_path / "night")


def copied(name: str, root: Path) -> Path:
    shutil.copytree(MADE / name / "outputs" / "night", root)
    with Database.open(Layout(root).database):  # brings it up to date
        pass
    return root


def tasks_of(store: Store) -> set[tuple[str, str | None]]:
    """Return the tasks that a state knows."""
    return {(item.job_id, item.task_id) for items in store.known().values() for item in items}


def dumped(root: Path) -> dict[str, list[Any]]:
    """Return all that a state.db has, with the details of its attempts as values."""
    with Database.open(Layout(root).database) as database:
        found = {table: list(database.dump(table)) for table in TABLES}
    found["attempts"] = [(*row[:6], json.loads(row[6]), *row[7:]) for row in found["attempts"]]
    return found | {"facts": sorted(found["facts"])}


def test_round_trip_keeps_everything(root: Path, engine: Secret) -> None:
    from batch.output.moving import bring_back, bring_in

    with stores.open_to_read(root) as before:
        attempts, known = list(before.attempts()), before.known()
        lines, size, runs = list(before.result_lines()), before.result_bytes(), before.runs()
    results = (root / "results.jsonl").read_bytes()
    aside = bring_in(root, engine, 0.0)
    assert aside is not None
    assert aside.exists()
    assert bring_in(root, engine, 1.0) is None
    with stores.open_to_read(root) as store:
        assert store.library == Layout(root).library.read_text().strip()
        assert list(store.attempts()) == attempts
        assert store.known() == known
        assert list(store.known()) == list(known)
        assert list(store.result_lines()) == lines
        assert (store.result_bytes(), store.runs()) == (size, runs)
    assert bring_back(root, engine)
    assert not bring_back(root, engine)
    exported = dumped(root)
    Layout(root).database.unlink()
    aside.rename(Layout(root).database)
    assert exported == dumped(root)
    assert (root / "results.jsonl").read_bytes() == results


def test_death_at_any_step_of_a_move_is_harmless(tmp_path: Path, engine_url: str) -> None:
    """What is seen is the whole state or nothing, and the same command completes the move."""
    root = copied("state-2", tmp_path / "night")
    whole = len(dumped(root)["attempts"])
    done = subprocess.run(
        [sys.executable, SCRIPT, root],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "KLING_BATCH_ENGINE": engine_url},
        stdout=subprocess.PIPE,
        check=True,
    )
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    for death in deaths:
        assert death["again"] == [0, 0], death
        assert {death["with"], death["without"]} <= {whole, None}, death
        assert None in {death["with"], death["without"]}, death
    steps = {(death["command"], death["step"]) for death in deaths}
    assert {("import", "after take"), ("import", "after move"), ("export", "after retire")} <= steps


def test_rows_that_postgres_has_forgotten_are_taken_over(
    tmp_path: Path, engine: Secret, engine_url: str
) -> None:
    """It was restored from a backup; a plan sees as much, and changes nothing."""
    from batch.output.moving import bring_in

    root = copied("state-2", tmp_path / "night")
    bring_in(root, engine, 0.0)
    with open_folder(root, sandbox=False, now=1.0) as folder:
        tasks, lines = tasks_of(folder.database), list(folder.database.result_lines())
        (landed,) = folder.database.known()["landed"]
    with psycopg.connect(engine_url) as connection:
        connection.execute("SET search_path TO kling")
        connection.execute(
            "DELETE FROM attempts WHERE external_task_id = %s", (landed.external_task_id,)
        )
        connection.execute("DELETE FROM results WHERE line LIKE %s", (f"%{landed.task_id}%",))
        connection.execute("UPDATE libraries SET results_end = results_end - 1")
    for _ in range(2):
        with peek(root, sandbox=False) as seen:
            assert seen is not None
            assert tasks_of(seen) == tasks
    with open_folder(root, sandbox=False, now=2.0) as folder:
        assert folder.forgotten == 1
        assert folder.forgot_at == 2.0
        assert tasks_of(folder.database) == tasks
        assert sorted(folder.database.result_lines()) == sorted(lines)


def test_copy_of_an_imported_folder_is_refused(tmp_path: Path, engine: Secret) -> None:
    from batch.output.moving import bring_in

    root, copy = copied("state-2", tmp_path / "night"), tmp_path / "copy"
    shutil.copytree(root, copy)
    bring_in(root, engine, 0.0)
    with pytest.raises(UsageError, match="is a copy of .*night, whose state is in Postgres"):
        bring_in(copy, engine, 0.0)
    with Database.open_to_read(Layout(copy).database) as database:
        assert database.known()


def test_state_of_before_the_import_does_not_come_back(tmp_path: Path, engine: Secret) -> None:
    """A folder that was restored from a backup goes on with what Postgres has."""
    from batch.output.moving import bring_in
    from batch.output.state import Fact

    root = copied("state-2", tmp_path / "night")
    backup = Layout(root).database.read_bytes()
    bring_in(root, engine, 0.0)
    with stores.hold(root) as store:
        store.write([Fact("since", "then")])
    Layout(root).database.write_bytes(backup)
    Layout(root).library.unlink()
    bring_in(root, engine, 1.0)
    with stores.open_to_read(root) as store:
        assert store.fact("since") == "then"


def test_folder_says_where_its_state_is(
    tmp_path: Path, engine: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batch.output.moving import bring_in

    root = copied("state-2", tmp_path / "night")
    with pytest.raises(StateError, match="engine import"), stores.hold(root):
        pass
    bring_in(root, engine, 0.0)
    monkeypatch.delenv("KLING_BATCH_ENGINE")
    for use in (stores.hold, stores.open_to_read):
        with pytest.raises(StateError, match=r"set KLING_BATCH_ENGINE .*engine export"), use(root):
            pass
