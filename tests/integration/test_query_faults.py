"""Faults of polls and look-ups: they are retried and are never a verdict."""

from __future__ import annotations

from typing import Any

import pytest

from batch.errors import ExitCode
from batch.sandbox import FaultPlan

READ_FAULTS = [
    *("500", "502", "502-html", "503", "504", "524", "5000", "5001", "5002", "500-invalid"),
    *("429", "1302", "1303", "new-api-1303", "429:retry-after=0.1", "waf", "404-html", "301"),
    *(
        "empty-2xx",
        "garbled-2xx",
        "html-2xx",
        "truncated",
        "drop",
        "hang:seconds=9",
        "slow:seconds=9",
    ),
    *("404", "1203", "task_not_exist", "1200", "1201", "1300", "401", "1004", "1102", "quota"),
    *("unknown-status", "backwards"),
]


@pytest.mark.parametrize("fault", [*READ_FAULTS, "no-url"])
async def test_failed_poll_is_retried(desk: Any, fault: str) -> None:
    """The first two polls of each task fail: five videos, five tasks, one attempt each."""
    async with desk.sandbox(desk.rule("query", fault, "per_task=2")) as box:
        summary = await desk.run(box, 5)
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 5}
        assert box.stats.created == box.stats.posts == 5
        assert sum(box.faults_fired.values()) >= 5


@pytest.mark.parametrize("fault", READ_FAULTS)
async def test_failed_look_up_is_retried(desk: Any, fault: str) -> None:
    """All answers to submissions are lost, and the first look-ups fail as well: all are adopted."""
    faults = ["submit:drop-after", desk.rule("lookup", fault, "per_task=2")]
    async with desk.sandbox(*faults) as box:
        summary = await desk.run(box, 5, limits={"settle_time": "2s"})
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 5}
        assert box.stats.created == box.stats.posts == 5


async def test_failed_look_up_is_confirmed_by_a_poll(desk: Any) -> None:
    """An adopted task is polled by its task id, and that answer counts."""
    async with desk.sandbox("submit:drop-after", "lookup:failed") as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 20


async def test_refused_key_leaves_tasks_open(desk: Any) -> None:
    """Every poll is refused: exit code 4, no verdict, and the next run collects."""
    async with desk.sandbox("query:401", "lookup:401") as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.ACCOUNT
        assert desk.rows == []
        created = box.stats.created
        assert desk.states() == {"Open": created}
        box.set_faults(FaultPlan())
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 20
        assert desk.statuses == {"succeeded": 20}


async def test_success_without_a_link_is_polled_again(desk: Any) -> None:
    """Without a link: kind download, the task is kept, and the next run fetches its video."""
    async with desk.sandbox("query:no-url", "lookup:no-url") as box:
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"failed": 4}
        assert desk.kinds == {"download": 4}
        box.set_faults(FaultPlan())
        assert desk.plan(box, 4) == {"fetch": 4}
        assert (await desk.run(box, 4)).exit_code is ExitCode.OK
        assert box.stats.created == 4


async def test_a_failed_generation_gets_a_new_attempt(desk: Any) -> None:
    """The job of a failed task gets a second task under a new external id."""
    async with desk.sandbox("outcome:generation:first=1") as box:
        summary = await desk.run(box)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 21
        assert sorted(row["attempts"] for row in desk.rows) == [1] * 19 + [2]
        assert len(desk.rows) == 20
        assert len({task.external_task_id for task in box.tasks}) == 21


@pytest.mark.parametrize("outcome", ["generation", "empty-failure"])
async def test_never_more_tasks_than_max_attempts(desk: Any, outcome: str) -> None:
    """Every task fails: each job pays for `max_attempts` tasks over all runs."""
    async with desk.sandbox(f"outcome:{outcome}") as box:
        summary = await desk.run(box, 4, limits={"max_attempts": 2})
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert box.stats.created == 8
        assert desk.kinds == {"generation": 4}
        assert [row["attempts"] for row in desk.rows] == [2] * 4
        assert all(row["task_id"] for row in desk.rows)
        again = await desk.run(box, 4, limits={"max_attempts": 2})
        assert again.exit_code is ExitCode.JOBS_FAILED
        assert again.planned == {"resting": 4}
        asked = await desk.run(box, 4, limits={"max_attempts": 2}, retry_failed=True)
        assert asked.exit_code is ExitCode.JOBS_FAILED
        assert box.stats.created == 8, "max_attempts is the most ever paid for"
        # The limit is raised, and the provider has recovered.
        box.set_faults(FaultPlan())
        healed = await desk.run(box, 4, limits={"max_attempts": 3})
        assert healed.exit_code is ExitCode.OK
        assert box.stats.created == 12
        assert {row["attempts"] for row in desk.last.values()} == {3}


async def test_moderated_prompt_rests_until_retried_or_changed(desk: Any) -> None:
    listed = [{"id": "bad", "prompt": "sandbox:moderation please"}, {"id": "good", "prompt": "fox"}]
    async with desk.sandbox() as box:
        summary = await desk.run(box, listed)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.kinds == {"moderation": 1}
        assert "risk control" in desk.last["bad"]["error"]["message"]
        assert (await desk.run(box, listed)).planned == {"resting": 1, "unchanged": 1}
        assert box.stats.created == 2
        assert (await desk.run(box, listed, retry_failed=True)).tasks_created == 1
        assert box.stats.created == 3
        # Another prompt is another job.
        listed[0]["prompt"] = "a friendlier one"
        assert desk.plan(box, listed) == {"changed": 1, "unchanged": 1}
        assert (await desk.run(box, listed)).exit_code is ExitCode.OK


async def test_slow_task_is_collected_later(desk: Any) -> None:
    """`task_timeout` is no verdict: the next run polls the timed-out task without paying."""
    async with desk.sandbox(median_s=1.0, sigma=0.0) as box:
        summary = await desk.run(box, 3, limits={"task_timeout": "200ms"})
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"timed_out": 3}
        assert desk.kinds == {"timeout": 3}
        assert all(row["task_id"] and row["attempts"] == 1 for row in desk.rows)
        assert desk.plan(box, 3) == {"resume": 3}
        summary = await desk.run(box, 3)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == box.stats.posts == 3
        assert [row["attempts"] for row in desk.last.values()] == [1] * 3


async def test_stuck_task_is_never_paid_again(desk: Any) -> None:
    """It stays open for ever, so every run polls it and none submits another."""
    listed = [{"id": "stuck", "prompt": "sandbox:stuck"}]
    async with desk.sandbox() as box:
        for night in range(1, 3):
            summary = await desk.run(box, listed, limits={"task_timeout": "150ms"})
            assert summary.exit_code is ExitCode.JOBS_FAILED
            assert desk.statuses == {"timed_out": 1}
            assert len(desk.rows) == night
        assert box.stats.created == 1


PEERS = {
    "clean": ((), {}),
    "every answer dropped after creation": (("submit:drop-after",), {}),
    "account cap 5": ((), {"max_parallel": 5}),
    "20 % of the looks answer 500": (("query:500:0.2",), {}),
    "first five submissions 429 with Retry-After": (("submit:429:first=5,retry-after=1",), {}),
}


@pytest.mark.parametrize("scenario", PEERS)
async def test_peer_benchmark_faults_cost_one_task_each(desk: Any, scenario: str) -> None:
    """Twenty prompts at once: twenty videos, twenty paid tasks, few polls, in every row."""
    faults, options = PEERS[scenario]
    async with desk.sandbox(*faults, median_s=0.3, **options) as box:
        summary = await desk.run(box, limits={"poll_interval": "150ms"})
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 20}
        assert box.stats.created == 20
        polls = sum(box.stats.queries_per_task.values()) + box.stats.lookups
        assert polls / 20 <= 5
        if not options and "429" not in scenario:
            assert box.stats.posts == 20


@pytest.mark.parametrize(("submit_rate", "refused"), [("2000/s", 15), ("20/s", 5)])
async def test_first_refusal_teaches_a_cap(desk: Any, submit_rate: str, refused: int) -> None:
    """What is under way with the first 1303 is refused as well; what waits for its turn stays."""
    async with desk.sandbox(max_parallel=5, median_s=0.4) as box:
        summary = await desk.run(box, limits={"submit_rate": submit_rate})
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 20
        assert box.stats.posts <= 20 + refused
        assert box.stats.most_in_flight <= 5


async def test_slot_of_a_shared_account_is_awaited(desk: Any) -> None:
    """Every submission is answered 1303 although the run has no open task."""
    async with desk.sandbox("submit:1303:first=6") as box:
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 2
