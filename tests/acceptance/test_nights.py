"""When a run stops submitting, in which order it pays, and when a job is given up, night after night."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Any

PRICES = {"kling-v2-6": {"std": 0.20}}
ONE = {"budget": 0.20, "max_attempts_per_run": 1}


def library(shell: Any, box: Any, jobs: Any, **limits: Any) -> tuple[Any, ...]:
    """Return the arguments for a library with known prices."""
    manifest = shell.manifest(jobs, prices=PRICES, limits=limits)
    return (manifest, "--base-url", box.base_url)


def job(job_id: str, prompt: str = "a fox") -> dict[str, str]:
    return {"id": job_id, "prompt": f"{prompt} {job_id}"}


def done(shell: Any) -> set[str]:
    """Return the names of the videos."""
    return {path.stem for path in (shell.folder / "outputs/night/videos").glob("*.mp4")}


def yesterday(shell: Any) -> None:
    """Let every failure have happened a day earlier."""
    with sqlite3.connect(shell.folder / "outputs/night/.kling-batch/state.db") as database:
        database.execute(
            "UPDATE attempts SET detail = json_set(detail, '$.failed_at',"
            " json_extract(detail, '$.failed_at') - 86400) WHERE state = 'Failed'"
        )


# -- the last call


def test_deadline_without_time_for_a_task_submits_none(shell: Any, sandbox: Any) -> None:
    """What tasks take is known from the first night; the second does not wait for its deadline.

    For that, the command would be given too little time.
    """
    box = sandbox()
    shell("run", *library(shell, box, 1))
    said = shell("run", *library(shell, box, 3), "--deadline", "110s", "--json")
    assert said.code == 3
    assert said.json["left"] == 2
    assert "the deadline leaves no time to submit anything" in said.json["stopped"]
    assert box.stats.created == 1
    assert shell("run", *library(shell, box, 3), "--deadline", "10m").code == 0
    assert box.stats.created == 3


def test_open_task_is_collected_after_the_last_call(shell: Any, sandbox: Any) -> None:
    box = sandbox(median_s=0.7)
    shell("run", *library(shell, box, [job("a")]))
    with shell.running("run", *library(shell, box, [job("a"), job("b")])) as process:
        shell.until(lambda: box.stats.created == 2)
        process.kill()
        process.wait()
    args = library(shell, box, [job("c"), job("b"), job("a")])
    assert shell("run", *args, "--deadline", "90s").code == 3
    assert done(shell) == {"a", "b"}
    assert box.stats.created == 2


def test_deadline_may_be_a_time_of_day(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    shell("run", *library(shell, box, 1))
    here = datetime.now()  # noqa: DTZ005 - as the command's clock shows it
    soon, late = (here + timedelta(minutes=minutes) for minutes in (2, 90))
    said = shell("run", *library(shell, box, 2, deadline=f"{soon:%H:%M}"))
    assert (said.code, box.stats.created) == (3, 1)
    said = shell("run", *library(shell, box, 2), "--deadline", f"{late:%H:%M}")
    assert (said.code, box.stats.created) == (0, 2)


def test_deadline_that_is_none_names_both_forms(shell: Any) -> None:
    said = shell("run", shell.manifest(1), "--deadline", "soon")
    assert said.code == 2
    assert "5s or 1h30m; or a time of day, for example 06:00" in said.err


# -- the order


def test_order_says_what_a_budget_buys_first(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    shell("run", *library(shell, box, [job("changed")]))
    jobs = [job("new"), job("changed", "a deer")]
    assert shell("run", *library(shell, box, jobs, order="changed_first", **ONE)).code == 3
    assert done(shell) == {"changed"}
    assert box.stats.created == 2
    assert shell("run", *library(shell, box, jobs, order="changed_first", **ONE)).code == 0
    assert done(shell) == {"changed", "new"}


def test_sick_job_on_top_does_not_eat_the_budget(shell: Any, sandbox: Any) -> None:
    """It is retried last, whatever the order."""
    box = sandbox("outcome:generation:first=1")
    sick = job("sick")
    assert shell("run", *library(shell, box, [sick], max_attempts_per_run=1)).code == 1
    assert shell("run", *library(shell, box, [sick, job("well")], **ONE)).code == 3
    assert done(shell) == {"well"}


# -- how often a job is paid for


def test_attempts_are_spread_over_nights(shell: Any, sandbox: Any) -> None:
    """One a night, and after max_attempts the job rests and the way out is named."""
    box = sandbox("outcome:generation:first=9")
    args = library(shell, box, 1, max_attempts_per_run=1)
    for night in (1, 2, 3):
        assert shell("run", *args).code == 1
        assert box.stats.created == night
    said = shell("run", *args, "--retry-failed")
    assert said.code == 1
    assert box.stats.created == 3
    assert "change the job, or raise limits.max_attempts" in said.out


def test_resumed_task_leaves_room_for_one_attempt(shell: Any, sandbox: Any) -> None:
    """A task of last night that fails tonight is followed by tonight's one attempt."""
    box = sandbox("outcome:generation:first=9")
    args = library(shell, box, 1, max_attempts_per_run=1, max_attempts=9)
    with shell.running("run", *args) as process:
        shell.until(lambda: box.stats.created == 1)
        process.kill()
        process.wait()
    assert shell("run", *args).code == 1
    assert box.stats.created == 2


def test_job_that_fails_night_after_night_rests(shell: Any, sandbox: Any) -> None:
    box = sandbox("outcome:generation:first=9")
    limits = {"max_attempts": 9, "max_attempts_per_run": 2, "give_up_after": 2}
    args = library(shell, box, 1, **limits)
    assert shell("run", *args).code == 1
    yesterday(shell)
    assert shell("run", *args).code == 1
    assert box.stats.created == 4
    said = shell("run", *args)
    assert said.code == 1
    assert "rests since 20" in said.out
    assert "change it, or --retry-failed" in said.out
    assert box.stats.created == 4
    shell("run", *args, "--retry-failed")
    assert box.stats.created == 6
    shell("run", *library(shell, box, [job("job-0", "another")], **limits))
    assert box.stats.created == 8
