"""Output folders made by commit c951909 and before: read, migrated and continued, nothing paid twice.

`tests/data/c951909/README.md` says what is in them and how they were made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

MADE = Path(__file__).parents[1] / "data" / "c951909"
AGE_S = 86_400.0  # the folder was left yesterday, whenever the test runs
LEFT_IN_DOUBT = {"unconfirmed", "unconfirmed-exists"}
RESTING = {"failed-invalid", "failed-moderation", "failed-thrice", "refused"}
UNTOUCHED = {"landed", "landed-changed", "orphan"}


class Library:
    """An old output folder, and a provider that knows the old tasks and no others."""

    def __init__(self, shell: Any, sandbox: Callable[..., Any], name: str) -> None:
        shutil.copytree(MADE / name, shell.folder, dirs_exist_ok=True)
        self.shell = shell
        self.root = shell.folder / "outputs" / "night"
        tasks = shell.folder / "provider.jsonl"
        self.old_tasks = [json.loads(line) for line in tasks.read_text("utf-8").splitlines()]
        with closing(sqlite3.connect(self.root / ".kling-batch" / "state.db")) as state:
            (left_at,) = state.execute("SELECT max(started_at) FROM runs").fetchone()
            shift_s = time.time() - AGE_S - left_at
            tasks.write_text(
                "".join(json.dumps(moved(task, shift_s)) + "\n" for task in self.old_tasks), "utf-8"
            )
            self.provider = sandbox(journal=tasks)
            assert len(self.provider.tasks) == len(self.old_tasks)
            with state:
                move_state(state, shift_s, self.provider.base_url)
        self.old_results = (self.root / "results.jsonl").read_bytes()

    def __call__(self, command: str, *flags: str) -> Any:
        """Run a command on the old manifest."""
        url = self.provider.base_url
        return self.shell(command, "night.yaml", "--base-url", url, "--json", *flags)

    @property
    def requests(self) -> dict[str, int]:
        """Count what the provider was asked."""
        counts: dict[str, int] = self.provider.stats.counts()
        return counts

    def paid(self) -> Counter[str]:
        """Count the tasks created since the folder was left, by job."""
        new = self.provider.tasks[len(self.old_tasks) :]
        return Counter(task.prompt.split(", ")[1] for task in new)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the last row of each job."""
        lines = (self.root / "results.jsonl").read_text("utf-8").splitlines()
        return {row["job_id"]: row for row in map(json.loads, lines)}

    def statuses(self) -> dict[str, set[str]]:
        """Return the jobs by the status of their last rows."""
        found: dict[str, set[str]] = {}
        for job_id, row in self.rows().items():
            found.setdefault(row["status"], set()).add(job_id)
        return found


def moved(values: dict[str, Any], shift_s: float) -> dict[str, Any]:
    """Return *values* with all their times shifted."""
    return {
        key: value + shift_s
        if value is not None and (key == "since" or key.endswith("_at"))
        else value
        for key, value in values.items()
    }


def move_state(state: sqlite3.Connection, shift_s: float, base_url: str) -> None:
    """Shift the times of a state, and have its tasks be at *base_url*."""
    for external_task_id, detail in state.execute(
        "SELECT external_task_id, detail FROM attempts"
    ).fetchall():
        state.execute(
            "UPDATE attempts SET detail = ?, base_url = ? WHERE external_task_id = ?",
            (json.dumps(moved(json.loads(detail), shift_s)), base_url, external_task_id),
        )
    state.execute(
        "UPDATE lookup_proofs SET proved_at = proved_at + ?, base_url = ?", (shift_s, base_url)
    )
    state.execute(
        "UPDATE runs SET started_at = started_at + ?, finished_at = finished_at + ?",
        (shift_s, shift_s),
    )


@pytest.fixture
def old(shell: Any, sandbox: Any) -> Callable[[str], Library]:
    """Give a function that brings back an old folder."""
    return lambda name: Library(shell, sandbox, name)


@pytest.mark.parametrize("name", ["state-1", "state-2"])
def test_reading_an_old_folder_changes_nothing(old: Any, name: str) -> None:
    """Neither `plan` nor `status` migrates it, or asks the provider."""
    library = old(name)
    files, requests = library.shell.files(), library.requests
    assert library("plan").code == 0
    assert library.shell("status").code == 0
    assert library.shell.files() == files
    assert library.requests == requests


def test_status_reads_every_old_state(old: Any) -> None:
    """No run is submitting or looking anything up: what was left in doubt is unconfirmed."""
    (found,) = old("state-2").shell("status", "outputs/night", "--json").json
    assert found["jobs"] == {
        "generating": 3,
        "timed out": 1,
        "to download": 2,
        "succeeded": 4,
        "failed": 5,
        "unconfirmed": 7,
    }
    assert found["tasks_paid"] == 16
    assert {item["job_id"] for item in found["paid_without_file"]} == {
        *("landed-gone", "open", "orphan-open", "superseded", "timed-out"),
        *("generated", "generated-trouble"),
    }


def test_plan_decides_every_old_state(old: Any) -> None:
    plan = old("state-2")("plan").json
    assert {item["job_id"]: item["action"] for item in plan["jobs"]} == {
        "new": "new",
        "superseded": "changed",
        "failed-once": "retry",
        **dict.fromkeys(("landed-gone", "generated", "generated-trouble"), "fetch"),
        **dict.fromkeys(("open", "timed-out", "unconfirmed-found", *LEFT_IN_DOUBT), "resume"),
        **dict.fromkeys(("intended-absent", "intended-created"), "resume"),
        **dict.fromkeys(("lost-absent", "lost-created"), "resume"),
        **dict.fromkeys(RESTING, "resting"),
        **dict.fromkeys(("orphan", "orphan-open"), "orphaned"),
    }
    assert plan["counts"]["unchanged"] == 2
    assert [item["job_id"] for item in plan["jobs"] if item["cost_usd"]] == [
        *("new", "superseded", "failed-once"),
    ]


@pytest.mark.parametrize("is_moved", [False, True], ids=["as it was", "from Postgres"])
def test_run_continues_every_old_state(
    old: Any, is_moved: bool, request: pytest.FixtureRequest
) -> None:
    """It pays for what the plan says, and sends again only requests that created nothing."""
    library = old("state-2")
    if is_moved:  # there and back
        url = request.getfixturevalue("engine_url")
        for move in ("import", "export"):
            said = library.shell("engine", move, "outputs/night", KLING_BATCH_ENGINE=url)
            assert said.code == 0, said.err
        assert (library.root / "results.jsonl").read_bytes() == library.old_results
    before = {path: data for path, data in library.shell.files().items() if path.endswith(".mp4")}
    said = library("run")
    assert said.code == 1
    assert library.paid() == dict.fromkeys(
        ("new", "superseded", "failed-once", "intended-absent", "lost-absent"), 1
    )
    assert library.requests["posts"] == library.requests["created"] == 5
    assert said.json["tasks_created"] == 5
    assert said.json["adopted"] == 3
    assert library.statuses() == {
        "failed": RESTING,
        "unconfirmed": LEFT_IN_DOUBT,
        "succeeded": library.rows().keys() - RESTING - LEFT_IN_DOUBT,
    }
    after = library.shell.files()
    assert before.items() <= after.items(), "a video that was there has changed"
    (status,) = library.shell("status", "outputs/night", "--json").json
    assert status["paid_without_file"] == []
    assert status["tasks_paid"] == 16 + 3 + 5


def test_continued_jobs_land_the_tasks_paid_before(old: Any) -> None:
    """Each video is the one that its row tells of, made by the task that was already paid for."""
    library = old("state-2")
    library("run")
    task_of = {task["prompt"].split(", ", 1)[1]: task["task_id"] for task in library.old_tasks}
    rows = library.rows()
    continued = [
        *("landed-gone", "open", "timed-out", "generated", "generated-trouble", "orphan-open"),
        *("intended-created", "lost-created", "unconfirmed-found"),
    ]
    for job_id in continued:
        assert rows[job_id]["task_id"] == task_of[job_id]
    for job_id in rows.keys() - RESTING - LEFT_IN_DOUBT:
        video = (library.root / rows[job_id]["file"]).read_bytes()
        assert hashlib.sha256(video).hexdigest() == rows[job_id]["sha256"]
    for job_id in ("superseded", "orphan-open"):
        (former,) = (library.root / "versions" / job_id).iterdir()
        assert former.stat().st_size > 0


def test_old_results_keep_their_lines(old: Any) -> None:
    library = old("state-2")
    library("run")
    results = (library.root / "results.jsonl").read_bytes()
    assert results.startswith(library.old_results)
    assert len(results) > len(library.old_results)
    added = results[len(library.old_results) :].decode().splitlines()
    assert UNTOUCHED.isdisjoint(json.loads(line)["job_id"] for line in added)


@pytest.mark.parametrize("name", ["state-1", "state-2"])
def test_second_run_only_asks_for_unconfirmed(old: Any, name: str) -> None:
    library = old(name)
    library("run")
    requests, videos = library.requests, sorted(library.root.rglob("*.mp4"))
    said = library("run")
    in_doubt = set(library.statuses()["unconfirmed"])
    assert said.code == 1
    assert said.json["outcomes"] == {"unconfirmed": len(in_doubt)}
    asked = library.requests
    assert {**asked, "lookups": 0} == {**requests, "lookups": 0}
    assert sorted(library.root.rglob("*.mp4")) == videos


def test_version_1_sends_no_doubtful_request_again(old: Any) -> None:
    """It does not record the key of a submission, so "not found" proves nothing."""
    library = old("state-1")
    assert library("run").code == 1
    assert library.paid() == {"new": 1, "failed-once": 1}
    assert library.requests["posts"] == 2
    assert library.statuses() == {
        "unconfirmed": {"unconfirmed", "intended-absent", "lost-absent"},
        "succeeded": {
            *("new", "failed-once", "landed", "landed-gone", "open", "generated"),
            *("intended-created", "lost-created"),
        },
    }
    assert (library.root / "results.jsonl").read_bytes().startswith(library.old_results)
