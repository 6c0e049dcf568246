"""Runs that workers carry out: by the installed command, a real Postgres, and a real server that counts."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from cluster import Cluster, binaries, running
from link import link_to
from patience import PATIENCE_S

from batch.key import Secret
from batch.output.postgres.connection import session_name
from batch.sandbox import FaultPlan, Sandbox

QUICK_WORKER = Path(__file__).parents[1] / "postgres" / "quick_worker.py"
REPOSITORY = Path(__file__).parents[2]
KEY = "sk-verysecretkey0123456789"
CAP = 6
POINTS = (
    *("before intent", "after intent", "before post", "after post", "before Open"),
    *("after Open", "after Generated", "before Landed", "after Landed"),
)


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Fleet:
    """A studio with a few workers: its Postgres, its provider, and the command."""

    def __init__(
        self, shell: Any, url: str, box: Sandbox, nursery: Callable[[dict[str, str]], int]
    ) -> None:
        self.shell, self.url, self.box, self.nursery = shell, url, box, nursery
        self.logs = shell.folder.parent

    def run(self, manifest: Path, *args: str) -> Ended:
        """Run to the end."""
        with self.running(manifest, *args) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        return Ended(process.returncode, out.decode(), err.decode())

    def running(self, manifest: Path, *args: str, **environ: str) -> Any:
        """Start a run."""
        environ["KLING_BATCH_ENGINE"] = self.url
        return self.shell.running("run", manifest, *self._at(), *args, **environ)

    def manifest(self, jobs: Any, **keys: Any) -> Path:
        """Write a manifest."""
        limits = {"max_in_flight": CAP, "settle_time": "1s", **keys.pop("limits", {})}
        return self.shell.manifest(jobs, limits=limits, **keys)

    @contextmanager
    def worker(
        self,
        name: str,
        point: str = "",
        how: str = "kill",
        environ: dict[str, str] | None = None,
        url: str = "",
        key: str = KEY,
    ) -> Iterator[int]:
        """Start a worker whose waits are short; at *point* of its first job it dies or falls asleep."""
        asked = {"name": name, "point": point, "how": how, "log": f"{self.logs}/{name}.log"}
        asked |= {"engine": url or self.url, "base_url": self.box.base_url, "key": key}
        asked["environ"] = json.dumps(environ or {})
        Path(asked["log"]).touch()
        process = self.nursery(asked)
        try:
            yield process
        finally:
            send(process, signal.SIGKILL)

    def said(self, name: str) -> str:
        """Return the log of a worker."""
        return (self.logs / f"{name}.log").read_text()

    def queued(self) -> int:
        """Return how many jobs the engine keeps."""
        return self._count("SELECT count(*) FROM dbos.workflow_status")

    def parked(self) -> int:
        """Return how many jobs are parked."""
        return self._count("SELECT count(*) FROM kling.jobs WHERE state = 'parked'")

    def workers(self) -> int:
        """Return how many workers are known."""
        return self._count("SELECT count(*) FROM kling.workers")

    def _count(self, query: str) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def _at(self) -> tuple[str, str]:
        return ("--base-url", self.box.base_url)


def send(process: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(process, number)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Callable[[dict[str, str]], int]]:
    """Give what starts workers by forks: to import what one needs takes two seconds."""
    process = subprocess.Popen(
        [sys.executable, QUICK_WORKER],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def start(asked: dict[str, str]) -> int:
        to.write(f"{json.dumps(asked)}\n")
        to.flush()
        return int(back.readline())

    with process:
        yield start
        process.kill()


@pytest.fixture
def fleet(
    shell: Any,
    fleet_url: str,
    sandbox: Callable[..., Sandbox],
    nursery: Callable[[dict[str, str]], int],
) -> Fleet:
    """Give a fleet without a worker."""
    return Fleet(shell, fleet_url, sandbox(median_s=0.3), nursery)


def test_two_workers_share_a_run(fleet: Fleet) -> None:
    with fleet.worker("one"), fleet.worker("two"):
        said = fleet.run(fleet.manifest(30), "--json")
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 30})
    assert said.json["tasks_created"] == fleet.box.stats.created == 30
    assert 1 < fleet.box.stats.most_in_flight <= CAP
    assert all("submitted as task" in fleet.said(name) for name in ("one", "two"))
    assert not any("cancelled" in fleet.said(name) for name in ("one", "two"))
    rows = (fleet.shell.folder / "outputs/night/results.jsonl").read_text().splitlines()
    assert len({json.loads(row)["job_id"] for row in rows}) == len(rows) == 30


def test_second_run_finds_all_made_without_worker(fleet: Fleet) -> None:
    manifest = fleet.manifest(2)
    with fleet.worker("one"):
        assert fleet.run(manifest).code == 0
    said = fleet.run(manifest, "--json")
    assert (said.code, said.json["planned"]) == (0, {"unchanged": 2})


def test_library_rolled_back_to_the_midst_of_a_run_pays_nothing_again(
    fleet: Fleet, cluster: Cluster
) -> None:
    """Folder and data folder of Postgres are of the same time, and on the same timeline."""
    root = fleet.shell.folder / "outputs/night"
    with fleet.worker("one"):
        assert fleet.run(fleet.manifest(2)).code == 0
        with fleet.running(fleet.manifest(8, limits={"max_in_flight": 2})) as run:
            fleet.shell.until(lambda: fleet.box.stats.created > 2)
            shutil.copy(root / "results.jsonl", fleet.logs)
            dump = cluster.dump(fleet.url)
            assert run.wait() == 0
    with psycopg.connect(fleet.url) as connection:
        connection.execute("DROP SCHEMA kling CASCADE; DROP SCHEMA dbos CASCADE")
    cluster.restore(fleet.url, dump)
    with psycopg.connect(fleet.url) as connection:
        connection.execute("UPDATE kling.meta SET timeline = kling.timeline()")
        connection.execute("UPDATE kling.runs SET is_open = false, timeline = kling.timeline()")
    shutil.copy(fleet.logs / "results.jsonl", root)
    posts = fleet.box.stats.posts
    with fleet.worker("two"):
        said = fleet.run(fleet.manifest(8))
    assert "does not know the latest run" in said.err
    assert (said.code, fleet.box.stats.created, fleet.box.stats.posts) == (0, 8, posts)


def test_lost_video_comes_back_from_the_bucket(fleet: Fleet, s3: Any) -> None:
    """Not from the provider, which keeps it for thirty days only."""
    bucket = s3.bucket()
    manifest = fleet.manifest(1, output={"target": bucket.url})
    with fleet.worker("one", environ=bucket.environ):
        assert fleet.run(manifest).code == 0
        (video,) = (fleet.shell.folder / "outputs/night/videos").iterdir()
        (data,) = bucket.objects.values()
        video.unlink()
        asked = fleet.box.stats.queries
        assert fleet.run(manifest).code == 0
    assert (video.read_bytes() == data, fleet.box.stats.queries) == (True, asked)


def test_detached_run_is_joined_to_its_exit_code(fleet: Fleet) -> None:
    fleet.box.set_faults(FaultPlan.from_strings(["submit:1301:first=1"]))
    manifest = fleet.manifest(2)
    assert fleet.run(manifest, "--detach").out.startswith("handed over to the workers")
    again = fleet.run(manifest)
    assert (again.code, "has not ended" in again.err, "--join" in again.err) == (75, True, True)
    stands = fleet.shell("status", "outputs/night", KLING_BATCH_ENGINE=fleet.url).out
    assert "running: a run on the workers of the fleet, since" in stands
    with fleet.worker("one"):
        said = fleet.run(manifest, "--join", "--json")
    assert (said.code, said.json["outcomes"]) == (1, {"succeeded": 1, "failed": 1})
    again = fleet.run(manifest, "--join", "--json")
    assert (again.code, again.json["outcomes"]) == (1, said.json["outcomes"]), "it has ended"


def test_job_parked_by_a_dead_worker_is_looked_up_again(fleet: Fleet) -> None:
    """Its answer was lost before look-up had proved itself, which the second job does."""
    fleet.box.set_faults(FaultPlan.from_strings(["submit:drop-before:first=1"]))
    manifest = fleet.manifest(2, limits={"max_in_flight": 1})
    assert fleet.run(manifest, "--detach").code == 0
    with fleet.worker("one"):
        fleet.shell.until(lambda: fleet.parked() == 1)
    with fleet.worker("two"):
        said = fleet.run(manifest, "--join", "--json")
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 2})
    assert fleet.box.stats.created == 2


def test_task_that_a_worker_could_not_record_is_taken_in(fleet: Fleet) -> None:
    manifest = fleet.manifest(1)
    with fleet.worker("mortal", "after post"):
        assert fleet.run(manifest, "--detach").code == 0
        fleet.shell.until(lambda: "at after post" in fleet.said("mortal"))
    (task,) = fleet.box.tasks
    kept = {"external_task_id": task.external_task_id, "task_id": task.task_id, "job_id": "job-0"}
    rescue = fleet.shell.folder / "outputs/night/.kling-batch/rescue.jsonl"
    rescue.write_text(json.dumps({**kept, "submitted_at": "2026-11-28T18:30:56+00:00"}) + "\n")
    with psycopg.connect(fleet.url) as connection:
        connection.execute("UPDATE kling.runs SET is_open = false; DELETE FROM kling.workers")
    with fleet.worker("one"):
        said = fleet.run(manifest, "--json")
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 1}), said.err
    assert (fleet.box.stats.created, rescue.exists()) == (1, False)


def test_ctrl_c_ends_a_run_without_workers(fleet: Fleet) -> None:
    with fleet.running(fleet.manifest(2), "--json") as run:
        _until_alone(run)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, json.loads(out)["left"]) == (130, 2)
    with fleet.worker("one"):
        assert fleet.run(fleet.manifest(2)).code == 0
        fleet.shell.until(
            lambda: fleet.queued() == 0
        )  # also of the first run, which no worker ended
    assert fleet.box.stats.created == 2


def test_ctrl_c_ends_a_run_whose_key_no_worker_has(fleet: Fleet) -> None:
    """A worker of another account is alive, and will never hear of this run."""
    with fleet.worker("other", key="sk-another0123456789"):
        fleet.shell.until(lambda: fleet.workers() == 1)
        with fleet.running(fleet.manifest(2), "--json") as run:
            _until_alone(run)
            run.send_signal(signal.SIGINT)
            out, _ = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, json.loads(out)["left"]) == (130, 2)


def test_deadline_ends_a_run_without_workers(fleet: Fleet) -> None:
    said = fleet.run(fleet.manifest(2), "--json", "--deadline", "1s")
    assert (said.code, said.json["left"], said.json["stopped"]) == (3, 2, "the deadline is reached")


def test_joined_run_ends_where_its_folder_was_moved_to(fleet: Fleet) -> None:
    manifest = fleet.manifest(2)
    assert fleet.run(manifest, "--detach").code == 0
    outputs = fleet.shell.folder / "outputs"
    (outputs / "night").rename(outputs / "moved")
    with fleet.running(manifest, "--join", "--output-dir", outputs / "moved", "--json") as run:
        _until_alone(run)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, json.loads(out)["left"]) == (130, 2), err


def test_run_that_every_worker_refuses_is_told_of(fleet: Fleet) -> None:
    """They do not find its folder where it was planned; each says so in a log that nobody reads."""
    manifest = fleet.manifest(1)
    assert fleet.run(manifest, "--detach").code == 0
    outputs = fleet.shell.folder / "outputs"
    (outputs / "night").rename(outputs / "moved")
    where = ("--output-dir", outputs / "moved")
    with fleet.worker("one"), fleet.running(manifest, "--join", *where) as run:
        _until_said(run, b"do not find its folder at the path where it was planned")
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=PATIENCE_S)
        assert "is its disk mounted" in fleet.said("one")
    assert run.returncode == 130, err


def test_encoding_of_the_terminal_is_not_that_of_the_state(fleet: Fleet) -> None:
    manifest = fleet.manifest([{"id": "fox", "prompt": "一只狐狸"}])
    latin = {"PGCLIENTENCODING": "LATIN1"}
    with fleet.worker("one", environ=latin), fleet.running(manifest, **latin) as run:
        _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err
    rows = (fleet.shell.folder / "outputs/night/results.jsonl").read_text("utf-8")
    assert json.loads(rows)["prompt"] == "一只狐狸"


def test_end_that_a_stopped_command_holds_is_taken_over(fleet: Fleet, s3: Any) -> None:
    """No worker was alive, so it ends its run itself, and is stopped in the midst of that."""
    bucket = s3.bucket()
    manifest = fleet.manifest(1, output={"target": bucket.url})
    holds_it = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
    with (
        psycopg.connect(fleet.url) as holder,
        psycopg.connect(fleet.url, autocommit=True) as connection,
        fleet.running(manifest, **bucket.environ) as run,
    ):
        _until_alone(run)
        holder.execute("LOCK TABLE kling.uploads")
        run.send_signal(signal.SIGINT)
        fleet.shell.until(lambda: connection.execute(holds_it).fetchall())
        run.send_signal(signal.SIGSTOP)
        holder.rollback()
        with fleet.worker("one", environ=bucket.environ):
            assert fleet.run(manifest, "--join").code == 130
        run.send_signal(signal.SIGCONT)
        assert run.wait(PATIENCE_S) == 130
    assert fleet.box.stats.created == 0


def _until_alone(run: Any) -> None:
    """Wait until a run says that no worker is there."""
    _until_said(run, b"no worker of the fleet is alive")


def _until_said(run: Any, words: bytes) -> None:
    while line := run.stderr.readline():
        if words in line:
            return
    raise AssertionError("it has ended before")


def test_crash_of_postgres_is_waited_for(fleet: Fleet, cluster: Any) -> None:
    with (
        fleet.worker("one"),
        fleet.worker("two"),
        fleet.running(fleet.manifest(30), "--json") as run,
    ):
        fleet.shell.until(lambda: fleet.box.stats.created >= 8)
        cluster.stop()
        cluster.start()
        out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err.decode()
    assert json.loads(out)["outcomes"] == {"succeeded": 30}
    assert (fleet.box.stats.created, fleet.box.stats.most_in_flight <= CAP) == (30, True)
    assert not any("sqlalche" in fleet.said(name) for name in ("one", "two"))


def test_second_ctrl_c_leaves_while_postgres_is_away(fleet: Fleet, cluster: Any) -> None:
    with fleet.running(fleet.manifest(2), "--json") as run:
        _until_alone(run)
        cluster.stop()
        try:
            _until_said(run, b"does not answer; this command waits for it")
            run.send_signal(signal.SIGINT)
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
            out, _ = run.communicate(timeout=60)
        finally:
            cluster.start()
    assert (run.returncode, json.loads(out)["exit_code"]) == (130, 130)


def test_failover_that_forgot_tasks_pays_nothing_again(
    shell: Any, sandbox: Callable[..., Sandbox], nursery: Callable[[dict[str, str]], int]
) -> None:
    """The last commits of all kinds are gone: of the run, the engine, claims and attempts."""
    with own_cluster() as (cluster, url):
        fleet = Fleet(shell, url, sandbox(median_s=0.3), nursery)
        manifest = fleet.manifest(12, limits={"max_in_flight": 2})
        with fleet.worker("one"):
            with fleet.running(manifest, "--json") as run:
                fleet.shell.until(lambda: fleet.box.stats.created >= 2)
                copy = cluster.copy()
                known = fleet.box.stats.created
                fleet.shell.until(lambda: fleet.box.stats.created >= known + 3)
                cluster.fail_over(copy)
                out, err = run.communicate(timeout=PATIENCE_S)
            assert (run.returncode, b"may have forgotten what was submitted" in err) == (1, True)
            first, created = json.loads(out), fleet.box.stats.created
            assert known < created < 12
            said = fleet.run(manifest, "--json")
    assert said.code == 0, said.out + said.err
    assert said.json["left"] == 0
    assert (fleet.box.stats.created, said.json["tasks_created"]) == (12, 12 - created)
    assert first["tasks_created"] + first["adopted"] + said.json["adopted"] == created
    assert said.json["adopted"] > 0
    assert fleet.box.stats.most_in_flight <= 2


def test_run_that_a_failover_forgot_is_not_followed(fleet: Fleet) -> None:
    with fleet.running(fleet.manifest(2)) as run:
        _until_alone(run)
        with psycopg.connect(fleet.url) as connection:
            connection.execute("DELETE FROM kling.jobs; DELETE FROM kling.runs")
        _, err = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, b"does not know the run" in err) == (1, True)


@contextmanager
def own_cluster() -> Iterator[tuple[Cluster, str]]:
    """Run a Postgres that no other test uses; yield it, and the address of a fleet in it."""
    from batch.engines.dbos import migrate  # noqa: PLC0415 - needs DBOS
    from batch.output.postgres.connection import init  # noqa: PLC0415 - needs psycopg

    found = binaries()
    if found is None:
        pytest.skip("no Postgres is installed (Debian: apt-get install postgresql)")
    with running(found) as cluster:
        url = cluster.create()
        init(Secret(url))
        migrate(Secret(url))
        yield cluster, url


def test_worker_behind_a_frozen_connection_is_replaced(fleet: Fleet, cluster: Any) -> None:
    """What it was about to say arrives when all of it is another's."""
    with link_to(cluster.port) as link:
        url = fleet.url.replace(f":{cluster.port}/", f":{link.port}/")
        with (
            fleet.worker("cut", url=url),
            fleet.worker("healthy"),
            fleet.running(fleet.manifest(20), "--json") as run,
        ):
            fleet.shell.until(lambda: "submitted as task" in fleet.said("cut"))
            with link.frozen():
                gone = "the worker cut-"
                fleet.shell.until(lambda: gone in fleet.said("healthy"))
            out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err.decode()
    assert json.loads(out)["outcomes"] == {"succeeded": 20}
    assert (fleet.box.stats.created, fleet.box.stats.most_in_flight <= CAP) == (20, True)


def test_terminated_worker_hands_its_jobs_back_at_once(fleet: Fleet) -> None:
    with fleet.worker("one") as one, fleet.running(fleet.manifest(8), "--json") as run:
        fleet.shell.until(lambda: fleet.box.stats.created >= 4)
        send(one, signal.SIGTERM)
        with fleet.worker("two"):
            out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err.decode()
    assert json.loads(out)["outcomes"] == {"succeeded": 8}
    assert fleet.box.stats.created == 8


def test_terminated_worker_ends_while_postgres_is_away(fleet: Fleet, cluster: Any) -> None:
    with fleet.worker("one") as one, fleet.running(fleet.manifest(8)):
        fleet.shell.until(lambda: fleet.box.stats.created >= 2)
        cluster.stop()
        try:
            fleet.shell.until(lambda: "this worker waits for it" in fleet.said("one"))
            send(one, signal.SIGTERM)
            fleet.shell.until(lambda: not _lives(one))
        finally:
            cluster.start()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_slot_of_a_dead_worker_holds_up_nobody(fleet: Fleet) -> None:
    """Who wait for it fill the living worker, and the job that holds it has to get there."""
    with fleet.worker("mortal", "after Open"), fleet.worker("healthy"):
        said = fleet.run(fleet.manifest(10, limits={"max_in_flight": 1}), "--json")
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 10})
    assert (fleet.box.stats.created, fleet.box.stats.most_in_flight) == (10, 1)


def test_worker_is_known_by_all_its_sessions(fleet: Fleet) -> None:
    """By their name, those of a stopped one are ended: also the engine's, which have other queries."""
    named = (
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND strpos(query, 'dbos') {} 0"
    )
    with fleet.worker("one"), psycopg.connect(fleet.url, autocommit=True) as connection:

        def names(sign: str) -> set[str]:
            return {name for (name,) in connection.execute(named.format(sign).encode())}

        fleet.shell.until(lambda: bool(names(">")))
        (worker,) = connection.execute("SELECT worker FROM kling.workers").fetchone() or ()
        assert names(">=") == {session_name(worker)}


def test_job_that_never_arrived_is_delivered_again(fleet: Fleet) -> None:
    """The connection broke when the engine had given it to the worker, which has never heard of it."""
    assert fleet.run(fleet.manifest(1), "--detach").code == 0
    with psycopg.connect(fleet.url, autocommit=True) as connection:
        connection.execute("UPDATE dbos.workflow_status SET status = 'DELAYED'")
        with fleet.worker("one"):
            known = "SELECT worker FROM kling.workers"
            fleet.shell.until(lambda: bool(connection.execute(known).fetchall()))
            lost = f"UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = ({known})"
            connection.execute(lost.encode())
            assert fleet.run(fleet.manifest(1), "--join").code == 0
    assert fleet.box.stats.created == 1


def test_job_of_an_unknown_worker_is_taken_over(fleet: Fleet) -> None:
    """It was taken for dead, woke up, was delivered a job, and died before its next beat."""
    assert fleet.run(fleet.manifest(2), "--detach").code == 0
    with psycopg.connect(fleet.url) as connection:
        ghost = "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'ghost'"
        connection.execute(ghost)
    with fleet.worker("one"):
        assert fleet.run(fleet.manifest(2), "--join").code == 0
    assert fleet.box.stats.created == 2


def test_run_that_an_older_version_began_is_carried_on(fleet: Fleet) -> None:
    """`engine init` hands what is queued, or was under way, over to the workers of this version."""
    assert fleet.run(fleet.manifest(2), "--detach").code == 0
    with psycopg.connect(fleet.url) as connection:
        connection.execute("UPDATE dbos.workflow_status SET application_version = 'state 0'")
        connection.execute(
            "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'ghost'"
            " WHERE workflow_uuid IN (SELECT min(workflow_uuid) FROM dbos.workflow_status)"
        )
    assert fleet.shell("engine", "init", KLING_BATCH_ENGINE=fleet.url).code == 0
    with fleet.worker("one"):
        assert fleet.run(fleet.manifest(2), "--join").code == 0
    assert fleet.box.stats.created == 2


def test_job_without_a_delivery_is_delivered_again(fleet: Fleet) -> None:
    """Whoever claimed it is gone, and so is what the engine had of it."""
    assert fleet.run(fleet.manifest(2), "--detach").code == 0
    with psycopg.connect(fleet.url) as connection:
        connection.execute("DELETE FROM dbos.workflow_status")
        connection.execute(
            "INSERT INTO kling.claims (library, job_id, token, run_id, worker)"
            " SELECT library, job_id, 0, run_id, 'ghost' FROM kling.runs JOIN kling.jobs USING (run_id)"
        )
    with fleet.worker("one"):
        assert fleet.run(fleet.manifest(2), "--join").code == 0
    assert fleet.box.stats.created == 2


@pytest.mark.parametrize("point", ["before delivery", "before known"])
def test_death_of_who_takes_over_is_taken_over(fleet: Fleet, point: str) -> None:
    """It queues the job again that the first has died over, and claims it."""
    assert fleet.run(fleet.manifest(1), "--detach").code == 0
    with fleet.worker("first", "after Open"):
        fleet.shell.until(lambda: "at after Open" in fleet.said("first"))
    with psycopg.connect(fleet.url) as connection:
        connection.execute("DELETE FROM dbos.workflow_status")
    with fleet.worker("second", point):
        fleet.shell.until(lambda: f"at {point}" in fleet.said("second"))
    with fleet.worker("healthy"):
        said = fleet.run(fleet.manifest(1), "--join", "--json")
        fleet.shell.until(lambda: fleet.queued() == 0)
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 1})
    assert fleet.box.stats.created == 1


def test_death_before_a_removal_leaves_nothing_queued(fleet: Fleet) -> None:
    assert fleet.run(fleet.manifest(2), "--detach").code == 0
    with fleet.worker("mortal", "before removal"):
        fleet.shell.until(lambda: "at before removal" in fleet.said("mortal"))
    with fleet.worker("healthy"):
        said = fleet.run(fleet.manifest(2), "--join", "--json")
        fleet.shell.until(lambda: fleet.queued() == 0)
    assert (said.code, said.json["outcomes"]) == (0, {"succeeded": 2})
    assert fleet.box.stats.created == 2


def test_budget_of_a_run_holds_over_all_workers(fleet: Fleet) -> None:
    with fleet.worker("one"), fleet.worker("two"), fleet.worker("mortal", "after post"):
        said = fleet.run(fleet.manifest(12), "--budget", "1.05", "--json")
    assert (said.code, said.json["left"], fleet.box.stats.created) == (3, 7, 5)
    assert said.json["stopped"].startswith("the budget of $1.05 is used up")


@pytest.mark.parametrize("points", [POINTS[:5], POINTS[5:]], ids=["submitting", "collecting"])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_stopped_workers_pay_for_nothing_twice(fleet: Fleet, points: Any, how: str) -> None:
    with ExitStack() as exits:
        begun = {
            point: exits.enter_context(fleet.worker(_name(point), point, how)) for point in points
        }
        with (
            fleet.running(fleet.manifest(40), "--json") as run,
            _waking(fleet, dict(list(begun.items())[::2])) if how == "stop" else nullcontext(),
        ):
            # Before a healthy one comes: on a busy machine it would leave some of them without a job.
            fleet.shell.until(
                lambda: all(f"at {point}" in fleet.said(_name(point)) for point in points)
            )
            exits.enter_context(fleet.worker("healthy"))
            out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err.decode()
    assert json.loads(out)["outcomes"] == {"succeeded": 40}
    assert fleet.box.stats.created == 40
    assert fleet.box.stats.most_in_flight <= CAP


@contextmanager
def _waking(fleet: Fleet, workers: dict[str, int]) -> Iterator[None]:
    """Wake each worker two seconds after it has fallen asleep: by then it is taken over."""
    is_over = threading.Event()

    def wake() -> None:
        asleep_since: dict[str, float] = {}
        while not is_over.wait(0.1):
            for point, process in workers.items():
                if point not in asleep_since and f"at {point}" in fleet.said(_name(point)):
                    asleep_since[point] = time.monotonic()
                elif asleep_since.get(point, math.inf) < time.monotonic() - 2.0:
                    send(process, signal.SIGCONT)

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _name(point: str) -> str:
    return point.replace(" ", "-")
