"""Faults of downloads: a bad file never gets its final name, and no second task is paid for."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from batch.errors import ExitCode
from batch.output.results import ResultsFile
from batch.sandbox import FaultPlan

SIZE = 300_000
ONCE = [
    *("cut", "cut:at=0", "cut:at=0.99", "stall:seconds=9", "500", "503", "403", "404", "html-200"),
    *(
        "empty-200",
        "zero-filled:at=0.002",
        "truncated-file",
        "redirect-evil",
        "drop",
        "hang:seconds=9",
    ),
]
HARMLESS = ["no-range", "no-length", "etag-changes", "redirect", "slow:bytes_per_s=3000000"]
AFTER_A_CUT = ["no-range", "no-length", "etag-changes", "wrong-offset", "416", "500", "403", "cut"]
FOR_GOOD = {
    **dict.fromkeys(("500", "503", "403", "404", "html-200", "empty-200", "drop"), "download"),
    **dict.fromkeys(("cut:at=0", "stall:seconds=9,at=0", "redirect-evil"), "download"),
    **dict.fromkeys(("zero-filled:at=0.002", "truncated-file"), "media"),
}


async def made(desk: Any, box: Any, count: int) -> None:
    """Check that all jobs are done, whole and paid for once."""
    assert desk.statuses == {"succeeded": count}
    assert box.stats.created == box.stats.posts == count
    for task in box.tasks:
        row = next(row for row in desk.rows if row["task_id"] == task.task_id and row["file"])
        assert row["bytes"] == box.clip(task).size
    assert not list((desk.root / ".kling-batch").glob("**/*.part"))


@pytest.mark.parametrize("fault", ONCE)
async def test_download_failing_once_is_retried(desk: Any, fault: str) -> None:
    async with desk.sandbox(desk.rule("download", fault, "per_task=1"), video_bytes=SIZE) as box:
        summary = await desk.run(box, 8)
        assert summary.exit_code is ExitCode.OK
        assert sum(box.faults_fired.values()) == 8
        await made(desk, box, 8)


@pytest.mark.parametrize("fault", HARMLESS)
async def test_unusual_server_answers_do_no_harm(desk: Any, fault: str) -> None:
    """No ranges, no length, another ETag each time, a redirect, a slow line."""
    async with desk.sandbox(f"download:{fault}", video_bytes=SIZE) as box:
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 4}
        assert box.stats.created == 4


@pytest.mark.parametrize("fault", AFTER_A_CUT)
async def test_resumed_download_never_mixes_two_files(desk: Any, fault: str) -> None:
    """After the cut, the server does not continue where it should."""
    faults = ["download:cut:per_task=1", desk.rule("download", fault, "per_task=1")]
    async with desk.sandbox(*faults, video_bytes=SIZE) as box:
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.OK
        assert desk.statuses == {"succeeded": 4}
        assert box.stats.created == 4
        if fault != "etag-changes":
            await made(desk, box, 4)


async def test_interrupted_download_resumes_where_it_stopped(desk: Any) -> None:
    """Every connection breaks half-way through the rest: hardly a byte is fetched twice."""
    async with desk.sandbox("download:cut:per_task=3", video_bytes=SIZE) as box:
        summary = await desk.run(box, 4)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.bytes <= 4 * SIZE * 1.1
        await made(desk, box, 4)


@pytest.mark.parametrize(("fault", "kind"), FOR_GOOD.items())
async def test_failed_download_costs_no_second_task(desk: Any, fault: str, kind: str) -> None:
    """The task is kept, and the next run fetches its video without paying."""
    async with desk.sandbox(f"download:{fault}", video_bytes=SIZE) as box:
        summary = await desk.run(box, 3)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"failed": 3}
        assert desk.kinds == {kind: 3}
        assert desk.videos == {}
        assert all(row["task_id"] and row["file"] is None for row in desk.rows)
        assert all(row["generated_at"] for row in desk.rows)
        assert box.stats.created == box.stats.posts == 3
        box.set_faults(FaultPlan())
        assert desk.plan(box, 3) == {"fetch": 3}
        again = await desk.run(box, 3)
        assert again.exit_code is ExitCode.OK
        assert again.tasks_created == 0
        await made(desk, box, 3)


async def test_expired_links_are_renewed(desk: Any) -> None:
    """The link expires at once: kind download, and nothing is paid again."""
    async with desk.sandbox(link_ttl_s=-5) as box:
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.kinds == {"download": 2}
        assert box.stats.bad_links >= 4
        assert box.stats.created == 2


async def test_a_missing_file_is_fetched_again(desk: Any) -> None:
    """A deleted video costs one download, no submission and one more row."""
    async with desk.sandbox() as box:
        await desk.run(box, 3)
        desk.videos["job-01.mp4"].unlink()
        assert desk.plan(box, 3) == {"unchanged": 2, "fetch": 1}
        summary = await desk.run(box, 3)
        assert summary.exit_code is ExitCode.OK
        assert summary.tasks_created == 0
        assert [row["job_id"] for row in desk.rows[3:]] == ["job-01"]
        await made(desk, box, 3)


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["before", "after"])
async def test_video_that_is_back_is_reported_once(
    desk: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run that finds it dies before or after its row reaches results.jsonl."""
    away = desk.tmp_path / "away"
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        (desk.root / "videos").rename(away)
        box.set_faults(FaultPlan.from_strings(["download:404"]))
        summary = await desk.run(box, 2, is_checked=False)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.statuses == {"failed": 2}
        assert desk.states() == {"Landed": 2}
        away.rename(desk.root / "videos")
        append = ResultsFile.append

        def die(self: ResultsFile, lines: list[str]) -> None:
            if step == "after":
                append(self, lines)
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(ResultsFile, "append", die)
            with pytest.raises(Died):
                await desk.run(box, 2)
        for _ in range(2):
            summary = await desk.run(box, 2)
            assert (summary.exit_code, summary.planned["unchanged"]) == (ExitCode.OK, 2)
        assert [row["status"] for row in desk.rows] == [*["succeeded"] * 2, *["failed"] * 2] + [
            "succeeded"
        ] * 2
        assert box.stats.created == 2


async def test_an_altered_file_is_fetched_again_and_kept(desk: Any) -> None:
    """The edited video is kept beside the original."""
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        desk.videos["job-01.mp4"].write_bytes(b"edited by hand")
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.OK
        former = [p for p in (desk.root / "versions").rglob("*") if p.is_file()]
        assert [path.read_bytes() for path in former] == [b"edited by hand"]
        await made(desk, box, 2)


async def test_zeroed_file_is_fetched_again(desk: Any) -> None:
    """Zeros of the same length replace a video when a disk fails; a copied video is left alone."""
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        dead, copied = desk.videos["job-00.mp4"], desk.videos["job-01.mp4"]
        dead.write_bytes(bytes(dead.stat().st_size))
        for path in (dead, copied):
            os.utime(path, (time.time() + 60, time.time() + 60))
        assert desk.plan(box, 2) == {"unchanged": 1, "fetch": 1}
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.OK
        assert summary.tasks_created == 0
        await made(desk, box, 2)


async def test_foreign_file_in_the_way_is_kept(desk: Any) -> None:
    """A file from before the first run is moved aside."""
    (desk.root / "videos").mkdir(parents=True)
    (desk.root / "videos/job-00.mp4").write_bytes(b"not ours")
    async with desk.sandbox() as box:
        summary = await desk.run(box, 1)
        assert summary.exit_code is ExitCode.OK
    former = [p for p in (desk.root / "versions").rglob("*") if p.is_file()]
    assert [path.read_bytes() for path in former] == [b"not ours"]


async def test_folder_in_the_way_is_a_disk_error(desk: Any) -> None:
    """Once the folder is gone, the video is fetched without paying."""
    (desk.root / "videos/job-00.mp4/inside").mkdir(parents=True)
    async with desk.sandbox() as box:
        summary = await desk.run(box, 2)
        assert summary.exit_code is ExitCode.JOBS_FAILED
        assert desk.kinds == {"disk": 1}
        (desk.root / "videos/job-00.mp4/inside").rmdir()
        (desk.root / "videos/job-00.mp4").rmdir()
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        await made(desk, box, 2)


@asynccontextmanager
async def stranger() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Serve another origin, and record the headers of its requests."""
    seen: list[dict[str, str]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(text="hello", content_type="video/mp4")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/x.mp4", seen
    finally:
        await runner.cleanup()


async def test_redirect_elsewhere_gets_no_key(desk: Any) -> None:
    """The other origin's answer is no video, so it is refused."""
    async with stranger() as (url, seen):
        plan = FaultPlan.from_mapping(
            [{"where": "download", "kind": "redirect-evil", "per_task": 1, "to": url}]
        )
        async with desk.sandbox() as box:
            box.set_faults(plan)
            summary = await desk.run(box, 2)
            assert summary.exit_code is ExitCode.OK
            await made(desk, box, 2)
        assert seen
        assert not any("authorization" in {name.lower() for name in each} for each in seen)
        assert not any("cookie" in {name.lower() for name in each} for each in seen)
