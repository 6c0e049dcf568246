"""Faults of submissions: each job gets one video from one task, where possible."""

from __future__ import annotations

from typing import Any

import pytest

from batch.errors import ExitCode
from batch.events import Adopted
from batch.sandbox import FaultPlan

# The task was created, but the answer does not say so: it is found by its external id.
CREATED_AND_LOST = [
    *("drop-after", "hang-after:seconds=9", "truncated", "truncated:at=0.97", "slow:seconds=9"),
    *("empty-2xx", "garbled-2xx", "garbled-2xx:at=0.99", "html-2xx", "html-2xx-after"),
    *("500-after", "502-after", "502-html-after", "503-after", "504-after", "524-after"),
    *("5000-after", "5001-after", "5002-after", "404-html-after"),
]
# No task was created, but the answer does not say so: proved absent, resent under the same id.
ABSENT_AND_LOST = [
    *("drop", "drop-before", "hang:seconds=9", "truncated-before", "empty-2xx-before"),
    *("garbled-2xx-before", "html-2xx-before", "500", "502", "502-html", "503", "504", "524"),
    *("5000", "5001", "5002", "404-html", "slow-before:seconds=9"),
]
# Certainly no task was created; the request may be sent again.
NOT_NOW = ["1302", "429", "1303", "new-api-1303", "429:retry-after=0.2", "1303:retry-after=0.1"]
ACCOUNT = [
    *("401", "1000", "1001", "1002", "1003", "1004", "1100", "1101", "1102", "1103", "1304"),
    *("quota", "insufficient_user_quota", "301"),
]
INVALID = ["1200", "1201", "1203", "404", "500-invalid"]
MODERATION = ["1300", "1301"]
DRESSES = [*(f"shape:{n}" for n in range(6)), "numeric-ids"]


async def all_home(desk: Any, box: Any, count: int = 20) -> None:
    """Check that every job is done and paid for once."""
    assert desk.statuses == {"succeeded": count}
    assert box.stats.created == count
    assert len(desk.videos) == count
    assert all(row["attempts"] == 1 for row in desk.last.values())
    posts = box.stats.posts
    summary = await desk.run(box, count)
    assert summary.exit_code is ExitCode.OK
    assert box.stats.posts == posts


@pytest.mark.parametrize("fault", CREATED_AND_LOST)
async def test_task_with_lost_answer_is_adopted(desk: Any, fault: str) -> None:
    """Every answer is lost after creation; no POST is repeated."""
    seen = desk.witness()
    async with desk.sandbox(f"submit:{fault}") as box:
        summary = await desk.run(box, 5, observers=[seen])
        assert summary.exit_code is ExitCode.OK
        assert len(seen.of(Adopted)) == 5
        assert box.stats.posts == 5
        await all_home(desk, box, 5)


@pytest.mark.parametrize("fault", ABSENT_AND_LOST)
async def test_absent_request_is_resent_under_its_id(desk: Any, fault: str) -> None:
    """The other tasks have proved look-up, so "not found" is trusted."""
    async with desk.sandbox(desk.rule("submit", fault, "first=2")) as box:
        summary = await desk.run(box, 6)
        assert summary.exit_code is ExitCode.OK
        lost = sum(box.faults_fired.values())
        assert lost >= 1
        assert box.stats.posts == 6 + lost
        # One attempt per job: a resent request keeps its external id.
        assert len(desk.sql("SELECT * FROM attempts")) == 6
        await all_home(desk, box, 6)


@pytest.mark.parametrize("fault", NOT_NOW)
async def test_temporarily_refused_submission_is_retried(desk: Any, fault: str) -> None:
    """The first five submissions are refused for now."""
    async with desk.sandbox(desk.rule("submit", fault, "first=5")) as box:
        summary = await desk.run(box, 8)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.posts == 13
        await all_home(desk, box, 8)


@pytest.mark.parametrize("fault", DRESSES)
async def test_every_shape_of_answer_is_understood(desk: Any, fault: str) -> None:
    """Five envelopes, mixed ones and numeric ids, from creation to the link."""
    async with desk.sandbox(
        *(f"{where}:{fault}" for where in ("submit", "query", "lookup"))
    ) as box:
        summary = await desk.run(box, 6)
        assert summary.exit_code is ExitCode.OK
        created = {task.task_id for task in box.tasks}
        assert {row["task_id"] for row in desk.rows} == created
        await all_home(desk, box, 6)


@pytest.mark.parametrize("fault", ACCOUNT)
async def test_refused_account_stops_and_collects(desk: Any, fault: str) -> None:
    """Refused after five tasks: five videos, five jobs as if never started, exit code 4."""
    async with desk.sandbox(f"submit:{fault}:after=5", median_s=0.2) as box:
        summary = await desk.run(box, 10, limits={"max_in_flight": 4})
        assert summary.exit_code is ExitCode.ACCOUNT
        assert summary.outcomes == {"succeeded": 5}
        assert summary.left == 5
        assert box.stats.created == 5
        assert box.stats.posts <= 9, "it went on submitting"
        assert len(desk.rows) == 5
        assert desk.states() == {"Landed": 5}
        assert desk.plan(box, 10) == {"unchanged": 5, "new": 5}
        assert "account" in desk.log.getvalue()


async def test_firewall_page_fails_one_job(desk: Any) -> None:
    """A 403 page without a code fails one job; three in a row fail the account."""
    async with desk.sandbox("submit:waf:match=fox number 3") as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert summary.outcomes == {"succeeded": 19, "failed": 1}
    async with desk.sandbox("submit:waf") as box:
        summary = await desk.run(box, 30, limits={"max_in_flight": 1})
        assert summary.exit_code is ExitCode.ACCOUNT
        assert box.stats.posts == 3


async def test_restored_account_completes_the_rest(desk: Any) -> None:
    """The next run pays only for the remaining jobs."""
    async with desk.sandbox("submit:quota:after=10") as box:
        assert (await desk.run(box)).exit_code is ExitCode.ACCOUNT
        made = box.stats.created
        box.set_faults(type(box.config.faults)())
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.OK
        assert summary.tasks_created == 20 - made
        await all_home(desk, box)


async def test_wrong_key_costs_one_post_per_slot(desk: Any) -> None:
    """Every POST is refused with 401: exit code 4, no rows, no attempts."""
    async with desk.sandbox(api_key="another") as box:
        summary = await desk.run(box, limits={"max_in_flight": 3})
        assert summary.exit_code is ExitCode.ACCOUNT
        assert box.stats.posts <= 3
        assert desk.rows == []
        assert desk.plan(box) == {"new": 20}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [*((fault, "invalid_request") for fault in INVALID), *((f, "moderation") for f in MODERATION)],
)
async def test_refused_request_rests_alone(desk: Any, fault: str, kind: str) -> None:
    """Three are refused for good: four videos, exit code 1, and later runs do not retry."""
    async with desk.sandbox(f"submit:{fault}:first=3") as box:
        summary = await desk.run(box, 7)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"succeeded": 4, "failed": 3}
        assert desk.kinds == {kind: 3}
        assert box.stats.created == 4
        assert box.stats.posts == 7
        failed = [row for row in desk.rows if row["status"] == "failed"]
        assert all(row["task_id"] is None and row["attempts"] == 0 for row in failed)
        assert all(row["cost_usd"] is None and row["error"]["http_status"] for row in failed)
        before = desk.results()
        again = await desk.run(box, 7)
        assert again.exit_code is ExitCode.JOBS_FAILED
        assert again.planned == {"unchanged": 4, "resting": 3}
        assert box.stats.posts == 7
        assert desk.results() == before
        asked = await desk.run(box, 7, retry_failed=True)
        assert asked.exit_code is ExitCode.OK
        assert asked.tasks_created == 3
        await all_home(desk, box, 7)


async def test_unexplained_1201_creates_no_second_task(desk: Any) -> None:
    """A proxy may repeat a POST and answer with the second one's 1201; the task is this run's."""
    async with desk.sandbox("submit:1201-after") as box:
        summary = await desk.run(box, 3)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == box.stats.posts == summary.tasks_created == 3
        assert all(row["paid"] for row in desk.rows)


async def test_unexplained_1201_without_look_up_counts_as_refused(desk: Any) -> None:
    """The sandbox's canned 1201 gives no reason."""
    async with desk.sandbox("submit:1201-after", lookup=False) as box:
        assert (await desk.run(box, 3)).exit_code is ExitCode.JOBS_FAILED
        assert box.stats.created == box.stats.posts == 3


async def test_resent_duplicate_is_looked_up(desk: Any) -> None:
    """Not found at the end of the settle time, it is resent, answered 1201 and then found."""
    other = [{"id": "other", "prompt": "a task that proves look-up"}]
    async with desk.sandbox() as box:
        await desk.run(box, other)
        lost = ("submit:drop-after:first=5", "lookup:1203:per_task=2,match=fox*")
        box.set_faults(FaultPlan.from_strings(lost))
        summary = await desk.run(box, [*desk.jobs(5), *other], limits={"settle_time": "1ms"})
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 6
        assert box.stats.posts == 11
        assert desk.statuses == {"succeeded": 6}


async def test_briefly_invisible_task_is_found(desk: Any) -> None:
    """Every answer is lost, and the look-up is repeated until the tasks are visible."""
    async with desk.sandbox("submit:drop-after", invisible_s=0.3, median_s=0.5) as box:
        summary = await desk.run(box, limits={"settle_time": "900ms"})
        assert summary.exit_code is ExitCode.OK
        assert box.stats.posts == box.stats.created == 20


async def test_task_invisible_beyond_settle_time_is_paid_once(
    desk: Any,
) -> None:
    """The resent request is refused as a duplicate, and its task is found."""
    async with desk.sandbox("submit:drop-after:until=4", invisible_s=0.5) as box:
        first = await desk.run(box, limits={"settle_time": "100ms"})
        assert box.stats.created == 20
        if first.exit_code is not ExitCode.OK:
            assert set(desk.kinds) == {"unconfirmed"}
            second = await desk.run(box, limits={"settle_time": "1s"})
            assert second.exit_code is ExitCode.OK
        assert box.stats.created == 20
        assert desk.statuses == {"succeeded": 20}


async def test_all_answers_lost_and_nothing_created_is_unconfirmed(desk: Any) -> None:
    """Without a proof of look-up, the jobs are reported, kept and not resent."""
    async with desk.sandbox("submit:drop-before") as box:
        summary = await desk.run(box, 5)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"unconfirmed": 5}
        assert desk.kinds == {"unconfirmed": 5}
        assert box.stats.posts == 5
        assert box.stats.created == 0
        # On the next night the network works, but lost tasks may exist: looked up, not resent.
        box.set_faults(type(box.config.faults)())
        again = await desk.run(box, 5)
        assert again.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"unconfirmed": 5}
        assert box.stats.posts == 5
        assert box.stats.lookups >= 10
        asked = await desk.run(box, 5, resubmit_unconfirmed=True)
        assert asked.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 5}
        assert box.stats.created == 5


async def test_a_later_proof_settles_what_was_unconfirmed(desk: Any) -> None:
    """A new job proves look-up; then "not found" is trusted, and lost requests are resent."""
    async with desk.sandbox("submit:drop-before") as box:
        await desk.run(box, 5)
        assert desk.statuses == {"unconfirmed": 5}
        box.set_faults(type(box.config.faults)())
        summary = await desk.run(box, 6)
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 6}
        assert box.stats.created == 6


@pytest.mark.parametrize("not_found", ["kling", "new-api"])
async def test_without_look_up_a_lost_answer_stays_unconfirmed(desk: Any, not_found: str) -> None:
    """The provider has no look-up; no form of "not found" is trusted."""
    async with desk.sandbox("submit:drop-after:until=5", lookup=False, not_found=not_found) as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        unsure = desk.statuses["unconfirmed"]
        assert unsure >= 5 - 4
        assert desk.statuses["succeeded"] == 20 - unsure
        assert box.stats.posts == box.stats.created == 20
        lookups = box.stats.lookups
        again = await desk.run(box)
        assert again.exit_code is ExitCode.JOBS_FAILED
        assert box.stats.lookups > lookups, "the next run looks again"
        assert box.stats.posts == 20
        assert desk.plan(box) == {"unchanged": 20 - unsure, "resume": unsure}
        row = next(row for row in desk.last.values() if row["status"] == "unconfirmed")
        assert row["task_id"] is None
        assert row["external_task_id"].startswith("kb-")


async def test_duplicate_refusal_of_resubmission_proves_the_task(desk: Any) -> None:
    """The forced resubmission is refused as a duplicate, so no second task is created."""
    async with desk.sandbox("submit:drop-after:first=3", lookup=False) as box:
        await desk.run(box, 6)
        assert desk.statuses == {"unconfirmed": 3, "succeeded": 3}
        summary = await desk.run(box, 6, resubmit_unconfirmed=True)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert box.stats.created == 6
        assert desk.statuses == {"unconfirmed": 3, "succeeded": 3}
        row = next(row for row in desk.last.values() if row["status"] == "unconfirmed")
        assert "exists" in row["error"]["message"]


async def test_later_look_up_finds_unconfirmed_task(desk: Any) -> None:
    """It is found on the next night and paid once."""
    async with desk.sandbox("submit:drop-after", "lookup:500") as box:
        first = await desk.run(box, 4, limits={"task_timeout": "300ms", "settle_time": "50ms"})
        assert first.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"unconfirmed": 4}
        box.set_faults(type(box.config.faults)())
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.OK
        assert summary.adopted == 4
        assert box.stats.created == box.stats.posts == 4


async def test_unreachable_server_fails_jobs_for_tonight(desk: Any) -> None:
    """No request was sent: kind network, and the next run plans the jobs again."""
    summary = await desk.run("http://127.0.0.1:9", 2, limits={"task_timeout": "200ms"})
    assert summary.exit_code is ExitCode.JOBS_FAILED
    assert desk.statuses == {"failed": 2}
    assert desk.kinds == {"network": 2}
    assert desk.plan("http://127.0.0.1:9", 2) == {"retry": 2}


async def test_reusable_external_ids_are_paid_once(
    desk: Any,
) -> None:
    """CometAPI may not enforce unique ids, so the run must not rely on 1201."""
    async with desk.sandbox("submit:drop-after:0.5", unique_external_ids=False) as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 20
