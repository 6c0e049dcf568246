"""A video that has landed and is missed: it is fetched again, and never given up before that."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from downloads import BROKEN, FILE, LINK, SIZE, VIDEO, whole
from sample_jobs import feed, job, tried
from scripted import ACCOUNT, NOT_FOUND, SAID, Stages, landed, play
from virtual_time import EPOCH

from batch.attempt import Landed
from batch.errors import ExitCode
from batch.job import FailureKind
from batch.output.state import Put
from batch.plan import Action, Policy

HERE = landed("8", FILE, SIZE)
OTHER = "videos/other.mp4"


def missed(
    root: Path, queries: list[Any], fetches: list[Any] | None = None, **policy: Any
) -> tuple[Stages, ExitCode]:
    """Run over a job whose landed video is not at its place."""

    async def story(stages: Stages) -> tuple[Stages, ExitCode]:
        await stages.state.commit(Put(tried(HERE, job())))
        stages.api.queries, stages.api.fetches = queries, fetches or [BROKEN]
        plan = await feed(stages, job())
        assert set(plan.counts) == {Action.FETCH}
        assert stages.api.count("submit") == 0
        return stages, stages.counts.exit_code(plan, stages.stop)

    return play(root, story, proved_at=EPOCH, policy=Policy(**policy))


def state_of(stages: Stages) -> Landed:
    state = stages.state.attempts["kb-0"].state
    assert isinstance(state, Landed)
    return state


def error_of(stages: Stages) -> dict[str, Any]:
    """Return the error of the only row."""
    (line,) = stages.state.rows
    row = json.loads(line)
    assert (row["status"], row["file"], row["sha256"], row["task_id"]) == (
        *("failed", None, None, "8"),
    )
    error: dict[str, Any] = row["error"]
    return error


@pytest.mark.parametrize("policy", [{}, {"retry_failed": True}], ids=["usual", "--retry-failed"])
def test_dropped_task_leaves_the_video_landed(tmp_path: Path, policy: dict[str, Any]) -> None:
    """The job has failed in this run; with its disk back, the next one finds it up to date."""
    stages, exit_code = missed(tmp_path, [NOT_FOUND], **policy)
    assert exit_code is ExitCode.JOBS_FAILED
    assert stages.api.count("query") == 1, "hundreds of them take no time"
    assert replace(state_of(stages), trouble=None) == HERE
    error = error_of(stages)
    assert error["kind"] == FailureKind.DOWNLOAD
    for words in (FILE, "is missing", "30 days", "Mount its disk", "--force"):
        assert words in error["message"]


def test_missing_disk_is_named_where_nothing_is_there(tmp_path: Path) -> None:
    stages, _ = missed(tmp_path, [NOT_FOUND])
    assert "is a disk not mounted?" in error_of(stages)["message"]


def test_missing_disk_is_not_named_beside_others(tmp_path: Path) -> None:
    (tmp_path / OTHER).parent.mkdir()
    (tmp_path / OTHER).write_bytes(VIDEO)
    stages, _ = missed(tmp_path, [NOT_FOUND])
    assert "mounted" not in error_of(stages)["message"]


def test_changed_video_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(b"half")
    stages, _ = missed(tmp_path, [NOT_FOUND])
    assert f"{FILE} was changed and is not whole, and" in error_of(stages)["message"]
    assert (tmp_path / FILE).read_bytes() == b"half"


def test_failed_download_leaves_the_video_landed(tmp_path: Path) -> None:
    stages, exit_code = missed(tmp_path, [LINK], [BROKEN])
    assert exit_code is ExitCode.JOBS_FAILED
    assert replace(state_of(stages), trouble=None) == HERE
    assert SAID.message in error_of(stages)["message"]
    assert "the next run" in error_of(stages)["message"]


def test_missed_video_is_fetched_again(tmp_path: Path) -> None:
    stages, exit_code = missed(tmp_path, [LINK], [whole()])
    assert exit_code is ExitCode.OK
    assert (tmp_path / FILE).read_bytes() == VIDEO
    state = state_of(stages)
    assert (state.file, state.task, state.trouble) == (FILE, HERE.task, None)
    assert state.landed_at > HERE.landed_at


@pytest.mark.parametrize("step", ["query", "fetch", "commit"])
def test_run_that_dies_leaves_the_video_landed(tmp_path: Path, step: str) -> None:
    async def story(stages: Stages) -> Stages:
        await stages.state.commit(Put(tried(HERE, job())))
        stages.api.queries, stages.api.fetches = [LINK], [whole()]

        def die(*_args: Any, **_how: Any) -> Any:
            raise asyncio.CancelledError

        target: Any = stages.state if step == "commit" else stages.api
        setattr(target, step, die)
        await feed(stages, job())
        return stages

    stages = play(tmp_path, story, proved_at=EPOCH)
    assert state_of(stages) == HERE
    assert stages.state.rows == []
    assert stages.state.attempts["kb-0"].account == ACCOUNT
