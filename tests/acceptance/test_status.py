"""What `status` reports: numbers, troubles by name with a way out, and what is paid for and not here."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from patience import PATIENCE_S

from batch.cli.commands.status import to_view

JOBS = [{"id": "a", "prompt": "fox"}, {"id": "b", "prompt": "sandbox:moderation"}]


def test_status_lists_paid_tasks_without_file(shell: Any, sandbox: Any) -> None:
    """In text and in JSON, with and without a folder."""
    box = sandbox("download:503:until=1", median_s=0.05)
    jobs = [*JOBS, {"id": "c", "prompt": "sandbox:stuck"}]
    manifest = shell.manifest(jobs, limits={"task_timeout": "300ms", "stall_timeout": "1s"})
    # The download of the first never succeeds; the deadline ends the run.
    shell("run", manifest, "--base-url", box.base_url, "--deadline", "1s")
    said = shell("status", "outputs/night", "--json", key=None)
    assert said.code == 0
    (found,) = said.json
    assert found["tasks_paid"] == 3
    assert found["running"] is None
    assert found["last_run"]["exit_code"] in {1, 3}
    missing = {item["job_id"]: item["task_id"] for item in found["paid_without_file"]}
    assert {item["days_left"] for item in found["paid_without_file"]} == {29}
    assert set(missing) == {"a", "c"}
    text = shell("status", "outputs/night", key=None).out
    assert all(task_id in text for task_id in missing.values())
    assert shell("status", key=None).out == text
    assert shell("status", "--json", key=None).json == [found]


def test_status_lists_unconfirmed_jobs(shell: Any, sandbox: Any) -> None:
    """They may have been paid for, so the text names them."""
    box = sandbox("submit:drop-after:first=1", lookup=False)
    shell("run", shell.manifest(1), "--base-url", box.base_url)
    said = shell("status", "outputs/night", key=None)
    assert "1 unconfirmed, perhaps paid for" in said.out
    assert "\n    job-0: unconfirmed: " in said.out
    assert "kling-batch adopt outputs/night job-0 TASK_ID" in said.out
    assert "kling-batch forget outputs/night job-0" in said.out


def test_status_tells_why_an_answer_was_lost(shell: Any, sandbox: Any) -> None:
    """Also of a job that a run has left before it knew; nothing is looked up without a run."""
    box = sandbox("submit:drop-after:first=1", lookup=False)
    manifest = shell.manifest(1, limits={"settle_time": "9s"})
    said = shell("run", manifest, "--base-url", box.base_url, "--deadline", "500ms")
    assert (said.code, box.stats.created) == (3, 1)
    (found,) = shell("status", "--json", key=None).json
    assert found["jobs"] == {"unconfirmed": 1}
    assert "closed the connection" in found["unconfirmed"][0]["message"]


def test_status_names_failures_with_a_way_out(shell: Any, sandbox: Any) -> None:
    """The reason in the provider's words, the external id, when it was sent, and what to do."""
    shell("run", shell.manifest(JOBS), "--base-url", sandbox().base_url)
    (found,) = shell("status", "--json", key=None).json
    (failed,) = found["failed"]
    assert (failed["job_id"], failed["kind"]) == ("b", "moderation")
    assert "risk control" in failed["message"]
    assert failed["external_task_id"].startswith("kb-")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", failed["submitted_at"])
    assert "change the prompt" in failed["to_do"]
    text = shell("status", key=None).out
    assert all(failed[name] in text for name in ("message", "to_do", "submitted_at"))


def test_status_reports_several_folders(shell: Any, sandbox: Any) -> None:
    """JSON is a list of the same fields, one folder or many."""
    box = sandbox()
    for name in ("day", "night"):
        shell("run", shell.manifest(1, name=f"{name}.yaml"), "--base-url", box.base_url)
    found = shell("status", "outputs/night", "outputs/day", "--json", key=None).json
    assert [item["output_dir"] for item in found] == ["outputs/night", "outputs/day"]
    assert found[0].keys() == found[1].keys()
    assert shell("status", "--json", key=None).json == found[::-1]
    assert shell("status", "outputs/nihgt", key=None).code == 2


def test_status_counts_jobs_that_wait(shell: Any, sandbox: Any) -> None:
    """What the budget has left: new jobs, and changed ones that have a former video."""
    box = sandbox()
    prices = {"kling-v2-6": 1}
    shell("run", shell.manifest(1, prices=prices), "--base-url", box.base_url)
    jobs = [{"id": f"job-{n}", "prompt": f"deer number {n}"} for n in range(4)]
    manifest = shell.manifest(jobs, prices=prices)
    assert shell("run", manifest, "--base-url", box.base_url, "--budget", "1").code == 3
    (found,) = shell("status", "--json", key=None).json
    assert found["waiting"] == 3
    assert "3 waiting" in shell("status", key=None).out


def test_status_counts_no_job_twice(shell: Any, sandbox: Any) -> None:
    """One that has a video, or has failed, and waits to be made anew, is one job."""
    box = sandbox()
    prices = {"kling-v2-6": 1}
    jobs = [{"id": f"job-{n}", "prompt": f"owl number {n}"} for n in range(3)]
    shell("run", shell.manifest(jobs, prices=prices), "--base-url", box.base_url)
    jobs = [{"id": f"job-{n}", "prompt": f"deer number {n}"} for n in range(2)] + jobs[2:]
    jobs += [{"id": f"new-{n}", "prompt": f"hare number {n}"} for n in range(2)]
    manifest = shell.manifest(jobs, prices=prices)
    for budget, counts, again in (
        (0.5, "3 succeeded, 2 of these to be made anew, 2 waiting", 2),
        (1, "3 succeeded, 1 of these to be made anew, 2 waiting", 1),
        (1, "3 succeeded, 2 waiting", 0),
        (1, "4 succeeded, 1 waiting", 0),
    ):
        args = ("run", manifest, "--base-url", box.base_url, "--budget", str(budget))
        assert shell(*args).code == 3
        text = shell("status", key=None).out
        assert text.startswith(f"outputs/night: {counts}\n")
        (found,) = shell("status", "--json", key=None).json
        view = to_view(found)
        assert (found["waiting_again"], view.all) == (again, 5)


def test_orphan_without_file_is_not_promised(shell: Any, sandbox: Any) -> None:
    """No run fetches a job that the manifest no longer lists."""
    box = sandbox()
    shell("run", shell.manifest(2), "--base-url", box.base_url)
    shell("run", shell.manifest(1), "--base-url", box.base_url)
    (shell.folder / "outputs/night/videos/job-1.mp4").unlink()
    (found,) = shell("status", "--json", key=None).json
    assert [item["will_be_fetched"] for item in found["paid_without_file"]] == [False]
    text = shell("status", key=None).out
    assert "no longer lists" in text
    assert "next run downloads" not in text


def test_status_and_plan_agree_on_truncated_video(shell: Any, sandbox: Any) -> None:
    """A video that is cut short is missing to both, and fetched by the next run."""
    box = sandbox()
    args = (shell.manifest(2), "--base-url", box.base_url)
    shell("run", *args)
    video = shell.folder / "outputs/night/videos/job-1.mp4"
    video.write_bytes(video.read_bytes()[:-100])
    (found,) = shell("status", "--json", key=None).json
    assert [item["job_id"] for item in found["paid_without_file"]] == ["job-1"]
    assert shell("plan", *args, "--json").json["counts"]["fetch"] == 1


def test_watch_reports_changes_until_interrupted(shell: Any, sandbox: Any) -> None:
    """Without a terminal it prints each change; Ctrl-C is its end, not an error."""
    box = sandbox()
    manifest = shell.manifest(1)
    shell("run", manifest, "--base-url", box.base_url)
    with shell.running("status", "--watch") as process:
        assert b"1 succeeded" in process.stdout.readline()
        (shell.folder / "outputs/night/videos/job-0.mp4").unlink()
        lines = iter(process.stdout.readline, b"")
        assert any(b"paid for and without a file" in line for line in lines)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (0, b""), out


def test_status_works_during_run(shell: Any, sandbox: Any) -> None:
    """It names the process and the tasks in flight."""
    box = sandbox(median_s=600)
    with shell.running("run", shell.manifest(), "--base-url", box.base_url) as process:
        shell.until(lambda: box.stats.created == 2)
        for _ in range(100):  # until both answers are in the state
            (found,) = shell("status", "outputs/night", "--json").json
            if found["jobs"] == {"generating": 2}:
                break
        assert found["running"]["pid"] == process.pid
        assert found["running"].keys() == {"pid", "host", "since"}
        assert found["jobs"] == {"generating": 2}
        assert len(found["paid_without_file"]) == 2
        assert "running" in shell("status", "outputs/night").out


@pytest.mark.parametrize("is_there", [True, False])
def test_folder_that_lost_its_state_is_not_called_empty(
    shell: Any, sandbox: Any, is_there: bool
) -> None:
    """Every command that reads says so, and the page that was made stays."""
    box = sandbox()
    shell("run", shell.manifest(1), "--base-url", box.base_url)
    root = shell.folder / "outputs" / "night"
    page = (root / "report.html").read_bytes()
    state = root / ".kling-batch" / "state.db"
    if is_there:
        state.write_bytes(b"")
    else:
        state.unlink()
    for args in (
        ("status",),
        ("status", "outputs/night"),
        ("ledger",),
        ("report", "outputs/night"),
        ("restore", "outputs/night", "job-0", "--list"),
        ("prune", "night.yaml", "--strays", "--dry-run"),
        ("forget", "outputs/night", "job-0"),
    ):
        said = shell(*args, key=None)
        assert (said.code, "their state in outputs/night/.kling-batch is gone" in said.err) == (
            2,
            True,
        )
    assert (root / "report.html").read_bytes() == page


def test_video_that_could_not_come_back_is_not_counted_as_here(shell: Any, sandbox: Any) -> None:
    """As in the summary of the run that has tried."""
    box = sandbox()
    manifest = shell.manifest(2)
    shell("run", manifest, "--base-url", box.base_url)
    video = shell.folder / "outputs" / "night" / "videos" / "job-0.mp4"
    video.unlink()
    video.mkdir()
    said = shell("run", manifest, "--base-url", box.base_url, "--json")
    assert (said.code, said.json["outcomes"]) == (1, {"failed": 1})
    (found,) = shell("status", "--json", key=None).json
    assert found["jobs"] == {"succeeded": 1, "to download": 1}
    assert [item["job_id"] for item in found["failed"]] == ["job-0"]


@pytest.mark.parametrize(
    ("fault", "limits", "nights", "kind", "to_do"),
    [
        ("generation", {"max_attempts": 2}, 1, "spent", "raise that"),
        ("generation", {"max_attempts_per_run": 1}, 1, "generation", "the next run submits it"),
        (
            "generation",
            {"give_up_after": 1, "max_attempts_per_run": 1},
            1,
            "resting",
            "not retried",
        ),
        ("unknown-words", {}, 1, "unexplained", "once more"),
        ("unknown-words", {}, 2, "resting", "not retried any more"),
        ("moderation", {"max_attempts": 1}, 1, "spent", "raise that"),
    ],
)
def test_no_advice_promises_a_retry_that_the_plan_denies(
    shell: Any, sandbox: Any, fault: str, limits: dict[str, Any], nights: int, kind: str, to_do: str
) -> None:
    """Nor names --retry-failed where that does nothing: for `status` and the page as for `plan`."""
    box = sandbox(f"outcome:{fault}")
    manifest = shell.manifest(1, limits=limits)
    for _ in range(nights):
        shell("run", manifest, "--base-url", box.base_url)
    (planned,) = shell("plan", manifest, "--json").json["jobs"]
    (failed,) = shell("status", "--json", key=None).json[0]["failed"]
    said = shell("report", "outputs/night", "--json", key=None).json
    assert to_do in failed["to_do"]
    assert said["kinds"] == [{"kind": kind, "jobs": 1}]
    assert ("next run" in failed["to_do"]) is (planned["action"] == "retry")
    assert ("raise" in failed["to_do"]) is ("raise" in planned["reason"])


def test_limit_that_stopped_the_last_run_is_named(shell: Any, sandbox: Any) -> None:
    """By `status` and at the top of the page, which has no night to tell it where none was made."""
    base_url = sandbox().base_url
    shell("run", shell.manifest(1), "--base-url", base_url, "--max-plan-cost", "0.01")
    assert shell("report", "outputs/night", key=None).code == 0
    page = (shell.folder / "outputs/night/report.html").read_text("utf-8")
    head = page.partition("<header")[2].partition("</header>")[0]
    for said in (shell("status", key=None).out, head):
        assert "more than max_plan_cost allows" in said
