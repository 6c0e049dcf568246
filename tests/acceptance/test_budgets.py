"""Budgets per day and per month, through the command: derived from the state, over all its runs."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

PRICES = {"kling-v2-6": {"std": 0.20}}
DAY_S = 86_400
DAY = {"budget_per_day": 0.60, "max_in_flight": 1}
SHOW = "UPDATE attempts SET detail = json_set(detail, '$.submitted_at', json_extract(detail, '$.submitted_at') - ?)"


def library(shell: Any, box: Any, jobs: Any, **limits: Any) -> tuple[Any, ...]:
    """Return the arguments for a library with known prices."""
    manifest = shell.manifest(jobs, prices=PRICES, limits=limits)
    return (manifest, "--base-url", box.base_url)


def age(shell: Any, seconds: int) -> None:
    """Let all tasks of the library have been submitted so much earlier."""
    with sqlite3.connect(shell.folder / "outputs/night/.kling-batch/state.db") as database:
        database.execute(SHOW, (seconds,))


def test_runs_of_a_day_share_its_budget(shell: Any, sandbox: Any) -> None:
    """Three runs buy what one may; the fourth says so again, and the next day goes on."""
    box = sandbox()
    args = library(shell, box, 5, **DAY)
    for _ in range(3):
        said = shell("run", *args)
        assert said.code == 3
        assert "the budget of $0.60 for one day (budget_per_day) is used up" in said.out
        assert box.stats.created == 3
    age(shell, 2 * DAY_S)
    assert shell("run", *args).code == 0
    assert box.stats.created == 5


def test_month_outlasts_its_days(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    args = library(shell, box, 4, budget_per_month=0.40)
    said = shell("run", *args, "--json")
    assert said.code == 3
    assert "for one month (budget_per_month)" in said.json["stopped"]
    assert (box.stats.created, said.json["left"]) == (2, 2)
    age(shell, 32 * DAY_S)
    assert shell("run", *args).code == 0


def test_task_of_a_killed_run_counts(shell: Any, sandbox: Any) -> None:
    """What it had sent is in the state, and nowhere else."""
    box = sandbox()
    jobs = [{"id": f"{n}", "prompt": f"sandbox:stuck {n}"} for n in range(4)]
    args = library(shell, box, jobs, budget_per_day=0.45, max_in_flight=1, task_timeout="200ms")
    with shell.running("run", *args) as process:
        shell.until(lambda: box.stats.created == 1)
        process.kill()
        process.wait()
    said = shell("run", *args)
    assert said.code == 3
    assert box.stats.created == 2


def test_refused_request_costs_no_day_anything(shell: Any, sandbox: Any) -> None:
    box = sandbox("submit:1201:first=3")
    said = shell("run", *library(shell, box, 6, **DAY))
    assert said.code == 1
    assert box.stats.created == 3


def test_old_doubt_takes_nothing_from_tonight(shell: Any, sandbox: Any) -> None:
    """It is looked for every night, and was perhaps paid for in the night that sent it."""
    box = sandbox("submit:drop-after:first=1", lookup=False)
    args = library(shell, box, 3, budget_per_day=0.20, max_in_flight=1)
    assert shell("run", *args).code == 3
    assert box.stats.created == 1
    with sqlite3.connect(shell.folder / "outputs/night/.kling-batch/state.db") as database:
        database.execute(
            "UPDATE attempts SET detail = json_set(detail, '$.sent_at',"
            " json_extract(detail, '$.sent_at') - ?)",
            (2 * DAY_S,),
        )
    assert shell("run", *args).code == 3
    assert box.stats.created == 2
    assert "today $0.20 of $0.20" in shell("plan", *args).out


def test_plan_says_how_the_budgets_stand(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    args = library(shell, box, 2, budget_per_day=25, budget_per_month=300)
    assert (
        "today $0.00 of $25.00, this month $0.00 of $300.00 (estimates)" in shell("plan", *args).out
    )
    shell("run", *args)
    said = shell("plan", *args)
    assert "today $0.40 of $25.00, this month $0.40 of $300.00 (estimates)" in said.out
    budget = shell("plan", *args, "--json").json["budget"]
    assert budget["day"]["limit_usd"] == 25
    assert budget["day"]["spent_usd"] == budget["month"]["spent_usd"] == 0.4
    assert budget["day"]["begins_at"] < budget["day"]["ends_at"]


def test_plan_says_what_is_left_of_a_day(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    shell("run", *library(shell, box, 2, **DAY))
    said = shell("plan", *library(shell, box, 5, **DAY))
    assert "the budget of $0.20 left today will stop the run early" in said.out


def test_plan_without_such_budgets_names_none(shell: Any) -> None:
    manifest = shell.manifest(1)
    assert "today" not in shell("plan", manifest).out
    budget = shell("plan", manifest, "--json").json["budget"]
    assert (budget["day"], budget["month"]) == (None, None)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"day_starts": "25:00"}, "'25:00' is not a valid time of day; for example 06:00"),
        ({"budget_per_day": -1}, "'-1' is not a valid amount in USD"),
        ({"deadline": "6:75"}, "'6:75' is not a valid time of day; for example 06:00"),
        ({"order": "old_first"}, "manifest, new_first, changed_first"),
        ({"give_up_after": 0}, "must be a whole number from 1 to 1000"),
        ({"max_attempts_per_run": "none"}, "must be a whole number from 1 to 100"),
    ],
)
def test_limit_that_means_nothing_is_refused(shell: Any, limits: Any, told: str) -> None:
    said = shell("run", shell.manifest(1, limits=limits))
    assert said.code == 2
    assert told in said.err


def test_budget_above_that_of_the_day_is_warned_of(shell: Any) -> None:
    manifest = shell.manifest(1, limits={"budget": 30, "budget_per_day": 25})
    said = shell("plan", manifest)
    assert "night.yaml:1:" in said.err
    assert "budget ($30.00) is above budget_per_day ($25.00), which ends a run first" in said.err
