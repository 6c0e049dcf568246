"""Changes between two nights: prompts, jobs and options."""

from __future__ import annotations

import time
from typing import Any

from batch.errors import ExitCode
from batch.events import Submitted
from batch.run.stop import Stop, StopReason
from batch.sandbox import FaultPlan


class StopAfter:
    """Stops the run as a first signal does, after *count* submissions."""

    def __init__(self, stop: Stop, count: int, reason: StopReason = StopReason.TERMINATED) -> None:
        self._stop, self._left, self._reason = stop, count, reason

    def notify(self, event: Any) -> None:
        self._left -= isinstance(event, Submitted)
        if self._left == 0:
            self._stop.ask(self._reason, "enough")


async def leave_open(desk: Any, box: Any, listed: Any, count: int) -> None:
    """Submit all *count* jobs of *listed*, and stop while their tasks are open."""
    stop = Stop()
    summary = await desk.run(box, listed, stop=stop, observers=[StopAfter(stop, count)])
    assert summary.exit_code is ExitCode.TERMINATED
    assert desk.states() == {"Open": count}
    assert desk.rows == []


def former(desk: Any) -> list[Any]:
    """List the videos of former versions."""
    root = desk.root / "versions"
    return sorted(path for path in root.rglob("*") if path.is_file())


async def test_soft_stop_leaves_open_tasks(desk: Any) -> None:
    """No row is written, and the next run pays for nothing again."""
    async with desk.sandbox(median_s=0.4) as box:
        await leave_open(desk, box, 5, 5)
        assert desk.plan(box, 5) == {"resume": 5}
        summary = await desk.run(box, 5)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 5
        assert desk.statuses == {"succeeded": 5}
        assert [row["attempts"] for row in desk.rows] == [1] * 5


async def test_changed_job_keeps_both_videos(desk: Any) -> None:
    """The old task is collected as a former version beside the new video."""
    old = [{"id": "a", "prompt": "an old fox"}, {"id": "b", "prompt": "same"}]
    new = [{"id": "a", "prompt": "a new fox"}, {"id": "b", "prompt": "same"}]
    async with desk.sandbox(median_s=0.4, clip="prompt") as box:
        await leave_open(desk, box, old, 2)
        assert desk.plan(box, new) == {"changed": 1, "resume": 1}
        summary = await desk.run(box, new)
        assert summary.exit_code is ExitCode.OK
        assert summary.superseded == 1
        assert box.stats.created == 3
        by_prompt = {task.prompt: box.clip(task) for task in box.tasks}
        fresh, stale = by_prompt["a new fox"], by_prompt["an old fox"]
        assert desk.videos["a.mp4"].read_bytes() == b"".join(fresh.chunks(0, fresh.size))
        assert [p.read_bytes() for p in former(desk)] == [b"".join(stale.chunks(0, stale.size))]
        assert desk.last["a"]["prompt"] == "a new fox", "the last line of a job is its state"
        assert desk.plan(box, new) == {"unchanged": 2}
        assert (await desk.run(box, new)).exit_code is ExitCode.OK
        assert box.stats.created == 3


async def test_former_version_ending_later_is_not_last_row(desk: Any) -> None:
    old = [{"id": "a", "prompt": "slow", "duration": 10, "mode": "pro"}]
    new = [{"id": "a", "prompt": "quick"}]
    async with desk.sandbox(median_s=0.5, sigma=0.0) as box:
        await leave_open(desk, box, old, 1)
        summary = await desk.run(box, new)
        assert summary.exit_code is ExitCode.OK
        assert desk.last["a"]["prompt"] == "quick"
        assert desk.last["a"]["file"] == "videos/a.mp4"


async def test_removed_job_with_open_task_is_collected(desk: Any) -> None:
    """The job is an orphan, but its task is paid for."""
    async with desk.sandbox(median_s=0.4) as box:
        await leave_open(desk, box, 2, 2)
        assert desk.plan(box, 1) == {"resume": 1, "orphaned": 1}
        summary = await desk.run(box, 1)
        assert summary.exit_code is ExitCode.OK
        assert summary.superseded == 1
        assert len(former(desk)) == 1
        assert set(desk.videos) == {"job-00.mp4"}
        assert box.stats.created == 2


async def test_job_brought_back_is_not_paid_again(desk: Any) -> None:
    """Collected as an orphan, its video is the job's again once the job is listed again."""
    async with desk.sandbox(median_s=0.3) as box:
        await leave_open(desk, box, 2, 2)
        await desk.run(box, 1)
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 2
        assert set(desk.videos) == {"job-00.mp4", "job-01.mp4"}


async def test_a_changed_job_keeps_its_former_video(desk: Any) -> None:
    """Changing back costs nothing."""
    a, b = [{"id": "a", "prompt": "first"}], [{"id": "a", "prompt": "second"}]
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, a)
        first = desk.videos["a.mp4"].read_bytes()
        assert desk.plan(box, b) == {"changed": 1}
        await desk.run(box, b)
        second = desk.videos["a.mp4"].read_bytes()
        assert second != first
        assert [path.read_bytes() for path in former(desk)] == [first]
        summary = await desk.run(box, a)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 2, "the first version was paid for already"
        assert desk.videos["a.mp4"].read_bytes() == first
        assert second in [path.read_bytes() for path in former(desk)]
        assert (await desk.run(box, a)).planned == {"unchanged": 1}


async def test_missing_videos_of_swapped_jobs_come_back_to_their_places(desk: Any) -> None:
    """Each comes to where the other was recorded, at the same time: neither loses its own place."""
    names = [f"job-{number}" for number in range(24)]
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, [{"id": name, "prompt": name} for name in names])
        for video in desk.root.rglob("*.mp4"):
            video.unlink()
        swapped = [
            {"id": new, "prompt": old} for old, new in zip(names, reversed(names), strict=True)
        ]
        summary = await desk.run(box, swapped, is_checked=False)
        assert (summary.exit_code, summary.tasks_created) == (0, 0)
        assert desk.plan(box, swapped) == {"unchanged": 24}
        assert former(desk) == []


async def test_a_renamed_manifest_order_or_tag_changes_nothing(desk: Any) -> None:
    """Only a change of the request counts."""
    listed = desk.jobs(3)
    async with desk.sandbox() as box:
        await desk.run(box, listed)
        shuffled = [{**job, "tags": ["x"]} for job in reversed(listed)]
        assert desk.plan(box, shuffled) == {"unchanged": 3}


async def test_forced_job_is_regenerated_and_former_video_kept(desk: Any) -> None:
    """`--force` pays one more time."""
    async with desk.sandbox(clip="prompt") as box:
        await desk.run(box, 2)
        first = desk.videos["job-00.mp4"].read_bytes()
        summary = await desk.run(box, 2, force=True, select=("job-00",))
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 3
        assert desk.videos["job-00.mp4"].read_bytes() != first
        assert [path.read_bytes() for path in former(desk)] == [first]
        assert desk.last["job-00"]["attempts"] == 2
        assert desk.plan(box, 2) == {"unchanged": 2}


async def test_selected_jobs_only(desk: Any) -> None:
    """Globs over ids and tags; exit code 0 means that the selected jobs are done."""
    listed = [*desk.jobs(3), {"id": "x/owl", "prompt": "owl", "tags": ["night"]}]
    async with desk.sandbox() as box:
        summary = await desk.run(box, listed, select=("tag:night", "*-01"))
        assert summary.exit_code is ExitCode.OK
        assert set(desk.last) == {"x/owl", "job-01"}
        assert box.stats.created == 2
        assert (await desk.run(box, listed)).tasks_created == 2


async def test_budget_is_never_exceeded(desk: Any) -> None:
    """At 0.21 each, 1.00 pays for four tasks: exit code 3, and the next run continues."""
    desk.extra = {"prices": {"kling-v2-6": 0.21}}
    async with desk.sandbox() as box:
        summary = await desk.run(box, 10, limits={"budget": 1.00})
        assert summary.exit_code is ExitCode.LIMIT
        assert box.stats.created == 4
        assert summary.cost_usd == 0.84
        assert summary.left == 6
        assert desk.statuses == {"succeeded": 4}
        assert "budget" in (summary.stopped or "")
        again = await desk.run(box, 10, limits={"budget": 1.00})
        assert again.exit_code is ExitCode.LIMIT
        assert box.stats.created == 8
        assert (await desk.run(box, 10)).exit_code is ExitCode.OK
        assert box.stats.created == 10


async def test_exact_budget_does_not_stop_the_run(desk: Any) -> None:
    desk.extra = {"prices": {"kling-v2-6": 0.1}}
    async with desk.sandbox() as box:
        summary = await desk.run(box, 3, limits={"budget": 0.3})
        assert summary.exit_code is ExitCode.OK


async def test_refused_requests_do_not_use_up_the_budget(desk: Any) -> None:
    desk.extra = {"prices": {"kling-v2-6": 0.1}}
    async with desk.sandbox("submit:1301:first=3") as box:
        summary = await desk.run(box, 6, limits={"budget": 0.3, "max_in_flight": 1})
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"failed": 3, "succeeded": 3}


async def test_deadline_leaves_open_tasks(desk: Any) -> None:
    """Exit code 3 in time; nothing is lost or paid twice."""
    later = 0.0
    async with desk.sandbox(median_s=300.0, now=lambda: time.time() + later) as box:
        summary = await desk.run(box, 10, limits={"deadline": "1s", "max_in_flight": 4})
        assert summary.exit_code is ExitCode.LIMIT
        assert box.stats.created == 4
        assert summary.left == 10
        assert desk.states() == {"Open": 4}
        assert desk.plan(box, 10) == {"resume": 4, "new": 6}
        later = 3600.0
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 4


async def test_deadline_during_look_up_leaves_job_lost(desk: Any) -> None:
    """The next run resumes the look-up and finds the task."""
    async with desk.sandbox("submit:drop-after", "lookup:500") as box:
        summary = await desk.run(box, 3, limits={"deadline": "200ms"})
        assert summary.exit_code is ExitCode.LIMIT
        assert desk.states() == {"Lost": 3}
        assert desk.rows == []
        box.set_faults(FaultPlan())
        summary = await desk.run(box, 3)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == box.stats.posts == 3


async def test_deadline_during_downloads_leaves_them(desk: Any) -> None:
    """A video server that is down does not keep a run beyond its deadline."""
    async with desk.sandbox("download:503") as box:
        stop = Stop()
        summary = await desk.run(
            box, 3, stop=stop, observers=[StopAfter(stop, 3, StopReason.INTERRUPTED)]
        )
        assert summary.exit_code is ExitCode.INTERRUPTED
        box.set_faults(FaultPlan())
        assert (await desk.run(box, 3)).exit_code is ExitCode.OK
        assert box.stats.created == 3


async def test_plan_changes_nothing(desk: Any) -> None:
    """Neither in the folder nor at the provider."""
    async with desk.sandbox() as box:
        assert desk.plan(box) == {"new": 20}
        assert not desk.root.exists()
        assert sum(box.stats.counts().values()) == 0


async def test_lessons_of_a_run_are_kept(desk: Any) -> None:
    """Generation times and the proof of look-up are in the state for the next run."""
    async with desk.sandbox() as box:
        await desk.run(box, 5)
        assert len(desk.sql("SELECT * FROM generation_times")) == 5
        assert desk.sql("SELECT base_url FROM lookup_proofs") == [(box.base_url,)]
        lookups = box.stats.lookups
        await desk.run(box, 10)
        assert box.stats.lookups == lookups, "proved already"
