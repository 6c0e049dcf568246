"""The ledger: one line for each task ever created, in text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import shutil
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

FIELDS = [
    *("submitted_at", "output_dir", "job_id", "task_id", "external_task_id", "model", "mode"),
    *("duration", "tags", "cost_usd", "outcome", "file", "here", "days_left", "sandbox"),
    "url",
]
PRICES = {"kling-v2-6": {"std": 0.21}}


def run(shell: Any, box: Any, jobs: Any, *flags: str, **keys: Any) -> Any:
    """Run a manifest with known prices."""
    manifest = shell.manifest(jobs, prices=PRICES, **keys)
    return shell("run", manifest, "--base-url", box.base_url, "--json", *flags)


def outcomes(shell: Any, *flags: str) -> list[str]:
    """Return the outcomes in the ledger."""
    return [item["outcome"] for item in shell("ledger", "--json", *flags, key=None).json["tasks"]]


def test_every_task_has_a_line(shell: Any, sandbox: Any) -> None:
    """A job that failed three times has one row of results, and three tasks in the ledger."""
    box = sandbox("outcome:generation:first=3")
    said = run(shell, box, 1)
    assert said.json["tasks_created"] == box.stats.created == 3
    found = shell("ledger", "--json", key=None).json
    assert [list(item) for item in found["tasks"]] == [FIELDS] * 3
    assert outcomes(shell) == ["failed"] * 3
    assert found["schema"] == 1
    assert found["total"] == {
        "tasks": 3,
        "cost_usd": 0.63,
        "perhaps_paid": 0,
        "perhaps_usd": 0.0,
    }
    assert said.json["cost_usd"] == 0.63


def test_displaced_video_is_former(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    run(shell, box, [{"id": "a", "prompt": "fox"}])
    run(shell, box, [{"id": "a", "prompt": "deer"}])
    assert outcomes(shell) == ["former", "current"]
    first, second = shell("ledger", "--json", key=None).json["tasks"]
    assert second["file"] == "videos/a.mp4"
    for item in (first, second):
        assert item["here"]
        assert (shell.folder / "outputs/night" / item["file"]).exists()
        assert item["days_left"] == 29


def test_unconfirmed_stands_apart(shell: Any, sandbox: Any) -> None:
    """It is perhaps paid, and in no sum of tasks."""
    box = sandbox("submit:drop-after:first=1", lookup=False)
    said = run(shell, box, 2, limits={"max_in_flight": 1})
    found = shell("ledger", "--json", key=None).json
    assert len(found["tasks"]) == 1
    (doubtful,) = found["perhaps_paid"]
    assert (doubtful["task_id"], doubtful["outcome"]) == (None, "unconfirmed")
    assert found["total"] == {
        "tasks": 1,
        "cost_usd": 0.21,
        "perhaps_paid": 1,
        "perhaps_usd": 0.21,
    }
    assert (said.json["tasks_created"], said.json["cost_usd"]) == (1, 0.21)
    text = shell("ledger", key=None).out
    assert "perhaps paid:\n" in text
    assert "total: 1 task, about $0.21, perhaps 1 more ($0.21)" in text


def test_missing_lists_what_is_paid_and_not_here(shell: Any, sandbox: Any) -> None:
    """Open tasks, and a deleted video: with the days for which the provider keeps them."""
    box = sandbox()
    run(shell, box, 2)
    (shell.folder / "outputs/night/videos/job-0.mp4").unlink()
    jobs = [{"id": f"job-{n}", "prompt": f"fox number {n}"} for n in range(2)]
    jobs.append({"id": "stuck", "prompt": "sandbox:stuck"})
    run(shell, box, jobs, "--select", "stuck", limits={"task_timeout": "200ms"})
    found = shell("ledger", "--missing", "--json", key=None).json["tasks"]
    assert [(item["job_id"], item["outcome"], item["days_left"]) for item in found] == [
        *(("job-0", "current", 29), ("stuck", "open", 29)),
    ]
    assert "not here, 29 days left" in shell("ledger", "--missing", key=None).out


@pytest.mark.parametrize(
    ("by", "tasks"),
    [
        ("tag", {"animal": 2, "night": 1, "(no tag)": 1}),
        ("model", {"kling-v2-6": 3}),
        ("outcome", {"current": 2, "failed": 1}),
    ],
)
def test_groups_add_up(shell: Any, sandbox: Any, by: str, tasks: dict[str, int]) -> None:
    """A task with two tags counts under both, and once in the total."""
    jobs = [
        {"id": "a", "prompt": "fox", "tags": ["animal", "night"]},
        {"id": "b", "prompt": "deer", "tags": ["animal"]},
        {"id": "c", "prompt": "sandbox:moderation"},
    ]
    run(shell, sandbox(), jobs)
    found = shell("ledger", "--by", by, "--json", key=None).json
    assert {group[by]: group["tasks"] for group in found["groups"]} == tasks
    assert found["total"]["tasks"] == 3
    assert "total: 3 tasks, about $0.63" in shell("ledger", "--by", by, key=None).out


def test_removed_jobs_keep_their_tags(shell: Any, sandbox: Any) -> None:
    """Those of their last rows; a job that is listed has what the manifest says."""
    box = sandbox()
    tagged = [{"id": name, "prompt": name, "tags": ["animal", name]} for name in ("fox", "deer")]
    run(shell, box, tagged)
    run(shell, box, [{"id": "fox", "prompt": "fox"}])
    found = shell("ledger", "--by", "tag", "--json", key=None).json
    counts = {group["tag"]: group["tasks"] for group in found["groups"]}
    assert counts == {"animal": 1, "deer": 1, "(no tag)": 1}


def test_days_may_begin_at_noon(shell: Any, sandbox: Any) -> None:
    """As those of a budget per day: what the plan calls today is one line of the ledger."""
    manifest = shell.manifest(2, prices=PRICES, limits={"budget_per_day": 1, "day_starts": "12:00"})
    shell("run", manifest, "--base-url", sandbox().base_url, TZ="Asia/Kathmandu")
    place = ZoneInfo("Asia/Kathmandu")
    now = datetime.now(place)
    today = now.date() if now.hour >= 12 else now.date() - timedelta(days=1)
    args = ("ledger", "--day-starts", "12:00", "--by")
    assert f"{today}: 2 tasks, about $0.42" in shell(*args, "day", TZ="Asia/Kathmandu").out
    assert f"{today:%Y-%m}: 2 tasks" in shell(*args, "month", TZ="Asia/Kathmandu").out
    assert "today $0.42 of $1.00" in shell("plan", manifest, TZ="Asia/Kathmandu").out
    said = shell("ledger", "--day-starts", "12:00", "--by", "tag")
    assert said.code == 2
    assert "--day-starts goes with --by day or --by month" in said.err
    assert "for example 06:00" in shell(*args, "day", "--day-starts", "noon").err


def test_since_keeps_later_tasks(shell: Any, sandbox: Any) -> None:
    run(shell, sandbox(), 1)
    assert outcomes(shell, "--since", "1d") == ["current"]
    assert outcomes(shell, "--since", "2020-01-31") == ["current"]
    assert outcomes(shell, "--since", "2999-01-31") == []
    said = shell("ledger", "--since", "yesterday", key=None)
    assert said.code == 2
    assert "2026-11-20 or 30d" in said.err


def test_csv_holds_no_formula(shell: Any, sandbox: Any) -> None:
    """An id that a spreadsheet would calculate begins with a quote."""
    jobs = [{"id": "=cmd", "prompt": "fox", "tags": ["@x", "y"]}, {"id": "-b", "prompt": "deer"}]
    run(shell, sandbox(), jobs)
    said = shell("ledger", "--csv", key=None)
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert list(rows[0]) == FIELDS
    assert sorted(row["job_id"] for row in rows) == ["'-b", "'=cmd"]
    assert {row["tags"] for row in rows} == {"'@x y", ""}
    assert {row["cost_usd"] for row in rows} == {"0.21"}
    by_tag = shell("ledger", "--csv", "--by", "tag", key=None).out.splitlines()
    assert by_tag[0] == "tag,tasks,cost_usd,perhaps_paid,perhaps_usd"
    assert by_tag[-1].startswith("y,1,0.21")


def test_sandbox_is_named(shell: Any) -> None:
    """Its videos are paid for by nobody."""
    shell("run", shell.manifest(1), "--sandbox", key=None)
    assert "made by the sandbox" in shell("ledger", key=None).out
    assert shell("ledger", "--json", key=None).json["tasks"][0]["sandbox"] is True


def test_sandbox_is_left_out_beside_what_is_paid(shell: Any, sandbox: Any) -> None:
    """It is added up only where it is named, or where there is nothing else."""
    tried = shell.manifest(1, name="tried.yaml")
    shell("run", tried, "--sandbox", key=None)
    run(shell, sandbox(), 2)
    for how in ((), ("--by", "month")):
        *_, note, total = shell("ledger", *how, key=None).out.splitlines()
        assert note.startswith("left out, since the sandbox made it")
        assert total == "total: 2 tasks, about $0.42"
    assert shell("ledger", "--json", key=None).json["total"]["tasks"] == 2
    named = shell("ledger", "outputs/tried.sandbox", key=None).out.splitlines()
    assert named[-1] == "total: 1 task, about $0.21"


def test_task_that_a_copy_shares_is_counted_once(shell: Any, sandbox: Any) -> None:
    """Also where only the copy still has the video, or went on by itself."""
    box, outputs = sandbox(), shell.folder / "outputs"
    run(shell, box, 2)
    shutil.copytree(outputs / "night", outputs / "backup")
    (outputs / "night/videos/job-0.mp4").unlink()
    run(shell, box, 3, output_dir="outputs/backup")
    said = shell("ledger", "--json", key=None).json
    found = {item["job_id"]: item["output_dir"] for item in said["tasks"]}
    assert len(said["tasks"]) == said["total"]["tasks"] == box.stats.created == 3
    assert {job: str(folder) for job, folder in found.items()} == {
        "job-0": "outputs/backup",
        "job-1": "outputs/backup",
        "job-2": "outputs/backup",
    }
    *_, note, total = shell("ledger", "--by", "month", key=None).out.splitlines()
    assert note == "counted once: 2 tasks that a copy of a folder has, too"
    assert total == "total: 3 tasks, about $0.63"
    assert "total: 1 task" in shell("ledger", "outputs/night", "--missing", key=None).out
    assert shell("ledger", "--missing", "--json", key=None).json["tasks"] == []


def test_tasks_of_several_folders_stand_below_their_names(shell: Any, sandbox: Any) -> None:
    """The same id in two folders is two jobs."""
    box = sandbox()
    run(shell, box, 1)
    assert "outputs/night" not in shell("ledger", key=None).out
    run(shell, box, 2, output_dir="outputs/other")
    lines = shell("ledger", key=None).out.splitlines()
    assert [line for line in lines if line.startswith("outputs/")] == [
        "outputs/night:",
        "outputs/other:",
    ]
    assert [line.split("  ")[-1] for line in lines[1:2] + lines[3:5]] == [
        "videos/job-0.mp4",
        "videos/job-0.mp4",
        "videos/job-1.mp4",
    ]


def test_ledger_without_folder_is_wrong_usage(shell: Any) -> None:
    assert shell("ledger", key=None).code == 2
    said = shell("ledger", "--csv", "--json", key=None)
    assert said.code == 2


def test_tags_that_share_tasks_are_said_not_to_add_up(shell: Any, sandbox: Any) -> None:
    jobs = [{"id": "a", "prompt": "x", "tags": ["s", "t"]}, {"id": "b", "prompt": "y"}]
    shell("run", shell.manifest(jobs), "--base-url", sandbox().base_url)
    hint = "a task of several tags counts under each of them"
    assert hint in shell("ledger", "--by", "tag", key=None).out
    assert hint not in shell("ledger", "--by", "model", key=None).out


def test_ledger_of_no_task_is_its_total_alone(shell: Any, sandbox: Any) -> None:
    base_url = sandbox().base_url
    shell("run", shell.manifest(1), "--base-url", base_url, "--max-plan-cost", "0.01")
    assert shell("ledger", key=None).out == "total: 0 tasks, about $0.00\n"
