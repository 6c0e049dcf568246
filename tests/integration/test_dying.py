"""Killed processes: SIGKILL at every step and at random, SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, until_so

from batch.output.sqlite import Database
from batch.output.state import FORGOT_AT
from batch.sandbox import FaultPlan

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

REPOSITORY = Path(__file__).parents[2]
PATHS = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests/acceptance")))
MORTALS = Path(__file__).with_name("mortals.py")
LIMITS = {
    "submit_rate": "1000/s",
    "poll_interval": "30ms",
    "settle_time": "60ms",
    "request_timeout": "1s",
}


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process."""
    home = os.environ["HOME"]  # the test's own: without one, the person's is found
    return {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": PATHS, **more}


async def mortals(
    desk: Any, box: Any, mode: str, count: int, limits: Any, *rest: str, **keys: Any
) -> list[Any]:
    """Kill runs of a manifest with *keys*, and return their reports."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(MORTALS), mode, box.base_url, str(desk.tmp_path), str(count)),
        *(json.dumps({**LIMITS, **limits}), *rest),
        stdout=asyncio.subprocess.PIPE,
        env=environment(MORTALS_KEYS=json.dumps(keys)),
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def check_night(box: Any, night: dict[str, Any], count: int) -> None:
    """One task per job, one file per job, one state per job."""
    account = hashlib.sha256(night["key"].encode()).hexdigest()[:16]
    created = [task for task in box.tasks if task.account == account]
    per_job = Counter(task.prompt for task in created)
    told = f"{night['key']}: {night['codes']}, see {night['out']}.log"
    assert max(per_job.values()) == 1, f"paid twice: {told}"
    assert len(created) == count, told
    assert night["codes"][-1] == 0, told
    last = {row["job_id"]: row for row in night["rows"]}
    assert [row["status"] for row in last.values()] == ["succeeded"] * count, told
    for row in last.values():
        data = (Path(night["out"]) / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"], told
    assert {row["task_id"] for row in last.values()} == {task.task_id for task in created}
    assert not list((Path(night["out"]) / ".kling-batch").glob("parts/*")), told
    with Database.open_to_read(Path(night["out"]) / ".kling-batch/state.db") as database:
        assert database.fact(FORGOT_AT) is None, f"a false alarm: {told}"


async def test_run_killed_at_every_step_loses_nothing(desk: Any) -> None:
    """Two jobs, one at a time; night n is killed at its n-th step, then runs again.

    The first job has no trouble, the answers for the second are lost. What is derived, the files
    beside the videos and index.json, is whole, and of the last results.
    """
    lost = "match=*number 1,per_task=1"
    # Only the run prevents it: this provider accepts the same external id twice.
    options = {"median_s": 0.02, "sigma": 0.0, "unique_external_ids": False}
    async with desk.sandbox(f"submit:drop-after:{lost}", f"download:cut:{lost}", **options) as box:
        keys = {"output": {"sidecar": "both"}}
        nights = await mortals(desk, box, "steps", 2, {"max_in_flight": 1}, **keys)
        assert sum(night["codes"][0] == -signal.SIGKILL for night in nights) > 40
        for night in nights:
            check_night(box, night, 2)
            check_derived(Path(night["out"]), night["rows"])


def check_derived(root: Path, rows: list[dict[str, Any]]) -> None:
    """Check the derived files against the last row of each job."""
    last = {row["job_id"]: row for row in rows}
    index = json.loads((root / "index.json").read_text("utf-8"))
    assert (index["missing"], index["orphans"]) == ([], [])
    for job_id, row in last.items():
        said = json.loads((root / f"videos/{job_id}.json").read_text("utf-8"))
        assert row.items() <= said.items()
        assert row["prompt"] in (root / f"videos/{job_id}.mp4.xmp").read_text("utf-8")
    assert [(item["job_id"], item["sha256"]) for item in index["videos"]] == [
        (job_id, last[job_id]["sha256"]) for job_id in sorted(last)
    ]
    assert not (root / ".kling-batch/derived.part").exists()


@pytest.mark.parametrize("seed", range(4))
async def test_run_killed_at_random_loses_nothing(desk: Any, seed: int) -> None:
    """Answers, polls and downloads fail as well."""
    faults = ("submit:drop-after:0.2", "query:500:0.2", "download:cut:0.2")
    async with desk.sandbox(*faults, median_s=0.15, unique_external_ids=False) as box:
        nights = await mortals(desk, box, "random", 8, {"max_in_flight": 3}, str(seed))
        assert nights[0]["codes"].count(-signal.SIGKILL) >= 1
        check_night(box, nights[0], 8)


# -- signals ---------------------------------------------------------------------------------


@asynccontextmanager
async def running(desk: Any, box: Any, count: int, **limits: Any) -> AsyncIterator[Any]:
    """Start the command over *count* jobs."""
    desk.manifest(count, **{"request_timeout": "1h", **limits})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batch", "run", "--new", str(desk.tmp_path / "night.yaml")),
        *("--base-url", box.base_url, "--output-dir", str(desk.root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(COMETAPI_KEY="sk-verysecretkey0123456789"),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def end(process: Any) -> tuple[int, str, str]:
    """Wait for the end, which does not wait for anything; return the exit code and the output."""
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def says(process: Any, words: bytes) -> None:
    """Read stderr until a line has *words*."""
    while words not in (line := await process.stderr.readline()):
        assert line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_second_signal_ends_run_and_loses_nothing(
    desk: Any, number: signal.Signals, code: int
) -> None:
    """The run ends within seconds, submits nothing more, and the next run collects."""
    later = 0.0
    async with desk.sandbox(median_s=300.0, now=lambda: time.time() + later) as box:
        async with running(desk, box, 6, max_in_flight=3) as process:
            await until_so(lambda: len(desk_states(desk)) == 3)
            process.send_signal(number)
            returned, out, err = await end(process)
        assert returned == code
        assert box.stats.posts == 3
        assert "night" in out
        assert "next run" in err
        assert desk.rows == []
        assert desk.plan(box, 6) == {"resume": 3, "new": 3}
        later = 3600.0
        box_limits = {"max_in_flight": 3}
        resumed = asyncio.create_task(desk.run(box, 3, limits=box_limits))
        summary = await resumed
        assert summary.outcomes == {"succeeded": 3}
        assert box.stats.created == 3


def desk_states(desk: Any) -> list[str]:
    """Return the states of all open attempts as they are on disk."""
    try:
        return [s for (s,) in desk.sql("SELECT state FROM attempts WHERE state = 'Open'")]
    except Exception:  # noqa: BLE001 - not made yet
        return []


async def test_first_signal_lets_downloads_finish(desk: Any) -> None:
    """The download needs one more second: exit code 143, with the row written."""
    async with desk.sandbox("download:slow:bytes_per_s=300000", video_bytes=200_000) as box:
        async with running(desk, box, 1) as process:
            await until_so(lambda: box.stats.downloads == 1)
            process.send_signal(signal.SIGTERM)
            returned, _out, _err = await end(process)
        assert returned == 143
        assert desk.statuses == {"succeeded": 1}
        desk.check()


async def test_the_second_signal_leaves_at_once(desk: Any) -> None:
    """The first signal waits for a download of an hour, the second does not."""
    async with desk.sandbox("download:slow:bytes_per_s=2000", video_bytes=2_000_000) as box:
        async with running(desk, box, 2) as process:
            await until_so(lambda: box.stats.downloads == 2)
            process.send_signal(signal.SIGTERM)
            await says(process, b"once more")
            process.send_signal(signal.SIGTERM)
            returned, _out, _err = await end(process)
        assert returned == 143
        assert desk.videos == {}
        box.set_faults(FaultPlan())
        assert desk.plan(box, 2) == {"fetch": 2}
        summary = await desk.run(box, 2)
        assert summary.outcomes == {"succeeded": 2}
        assert box.stats.created == 2


async def test_the_second_signal_leaves_a_post_that_hangs(desk: Any) -> None:
    """The attempt stays intended, and the next run adopts its task."""
    async with desk.sandbox("submit:hang-after") as box:
        async with running(desk, box, 1) as process:
            await until_so(lambda: box.stats.created == 1)
            process.send_signal(signal.SIGINT)
            await says(process, b"once more")
            process.send_signal(signal.SIGINT)
            returned, _out, _err = await end(process)
        assert returned == 130
        box.set_faults(FaultPlan())
        summary = await desk.run(box, 1)
        assert summary.outcomes == {"succeeded": 1}
        assert summary.adopted == 1
        assert box.stats.created == 1
