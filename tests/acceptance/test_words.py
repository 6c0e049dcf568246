"""What a person reads in the morning: the news first, what to do, and nothing twice."""

from __future__ import annotations

import re
from typing import Any

import pytest

from batch.sandbox import FaultPlan


def mail(said: Any) -> str:
    """Return what cron mails."""
    return said.out + said.err


def test_first_line_of_a_mail_is_the_news(shell: Any, sandbox: Any) -> None:
    """Why the run stopped; the log does not say it again."""
    manifest = shell.manifest(3, prices={"kling-v2-6": 1})
    args = ("run", manifest, "--base-url", sandbox().base_url, "--budget", "2", "--quiet")
    text = mail(shell(*args))
    assert text.startswith(
        "night: stopped early: the budget of $2.00 is used up (estimated so far: $2.00, and the next"
        " task: $1.00); run again to go on"
    )
    assert text.splitlines()[1] == "  1 left to the next run, 2 made"
    assert text.count("budget") == 1


def test_lost_answer_is_told_once(shell: Any, sandbox: Any) -> None:
    """As an unconfirmed job, with the two commands that settle it."""
    box = sandbox("submit:drop-after:first=1", lookup=False)
    text = mail(shell("run", shell.manifest(1), "--base-url", box.base_url, "--quiet"))
    assert text.startswith("night: 1 unconfirmed, 0 made\n")
    assert "0 tasks created, about $0.00 (1 perhaps, about $0.21)" in text
    assert "  job-0: unconfirmed: the answer to its submission was lost" in text
    assert "kling-batch adopt outputs/night JOB TASK_ID" in text
    assert "kling-batch forget outputs/night JOB" in text
    assert text.count("job-0") == 1


def test_deadline_names_an_unreachable_provider(shell: Any) -> None:
    text = mail(shell("run", shell.manifest(2), "--deadline", "1s", "--quiet"))
    assert "the deadline is reached, 1 s after the start" in text
    assert "the provider could not be reached (cannot connect to 127.0.0.1:9" in text
    assert "(connection refused)" in text


def test_deadline_names_a_provider_that_fell_silent(shell: Any, sandbox: Any) -> None:
    """Also where every task was submitted before that."""
    box = sandbox(median_s=600.0)
    args = ("run", shell.manifest(2), "--base-url", box.base_url)
    assert "reached (" not in shell(*args, "--deadline", "1s").out
    box.set_faults(FaultPlan.from_strings(["query:drop"]))
    assert "the provider could not be reached (" in shell(*args, "--deadline", "1s").out


def test_same_trouble_of_many_jobs_is_one_line(shell: Any) -> None:
    """In the system's words, without the addresses in Python's spelling."""
    manifest = shell.manifest(9, limits={"task_timeout": "300ms", "max_in_flight": 9})
    text = mail(shell("run", manifest, "--quiet"))
    assert re.search(
        r"job-\d, job-\d, job-\d and \d more: failed \(network\): cannot connect", text
    )
    assert text.count("127.0.0.1:9") <= 2
    assert "('" not in text


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("submit:401", "check the key (COMETAPI_KEY)"),
        ("submit:429-credit", "top up the account"),
        ("submit:200-402", "top up the account"),
    ],
)
def test_account_stop_says_what_to_do(shell: Any, sandbox: Any, fault: str, advice: str) -> None:
    said = shell("run", shell.manifest(2), "--base-url", sandbox(fault).base_url)
    assert said.code == 4
    assert advice in said.out


def test_wrong_address_loses_no_answers(shell: Any, sandbox: Any) -> None:
    """One sentence about the address, none about each job."""
    said = shell("run", shell.manifest(5), "--base-url", sandbox("any:html-2xx").base_url)
    assert said.code == 4
    assert "check the base URL" in said.out
    assert "lost" not in said.out + said.err


def test_retried_download_says_why(shell: Any, sandbox: Any) -> None:
    box = sandbox("download:503:per_task=1")
    said = shell("run", shell.manifest(1), "--base-url", box.base_url)
    assert re.search(r"job-0: retrying the download in \d\.\d s \(.*503.*\)", said.err)


def test_status_and_kind_are_not_said_twice(shell: Any, sandbox: Any) -> None:
    box = sandbox("submit:drop-after:until=1", lookup=False)
    jobs = [{"id": "a", "prompt": "fox"}, {"id": "b", "prompt": "sandbox:stuck"}]
    manifest = shell.manifest(jobs, limits={"task_timeout": "500ms"})
    said = shell("run", manifest, "--base-url", box.base_url)
    text = said.out + said.err + shell("status", key=None).out
    assert "b: timed out" in text
    assert "(unconfirmed)" not in text
    assert "(timeout)" not in text


def test_deadline_says_when_it_is(shell: Any, sandbox: Any) -> None:
    """Whoever meant five hours by 5 reads a time that is near."""
    manifest = shell.manifest(1)
    clock = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    planned = shell("plan", manifest, "--deadline", "5").out
    assert re.search(f"a run that begins now ends by {clock}, its deadline", planned)
    said = shell("run", manifest, "--base-url", sandbox().base_url, "--deadline", "20")
    assert re.search(f"run \\S+: 1 new; ends by {clock}", said.err)
    assert "ends by" not in shell("plan", manifest, "--deadline", "5").out  # nothing to do


def test_model_of_unknown_price_is_named(shell: Any) -> None:
    jobs = [{"id": "a", "prompt": "x", "model": "kling-v26"}, {"id": "b", "prompt": "y"}]
    said = shell("plan", shell.manifest(jobs))
    assert (
        "of unknown price: kling-v26 (1 task), counted as the dearest known one, up to $2.10 each;"
        " mend the name, or set it under prices:" in said.out
    )
    known = shell("plan", shell.manifest(jobs, prices={"kling-v26": 0.5}))
    assert "unknown price" not in known.out
