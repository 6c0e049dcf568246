"""The output folder: results are repaired, damage is reported and secrets are not written."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from batch.errors import ExitCode, LockedError, StateError, UsageError
from batch.events import VideoReady, Warned
from batch.output import lock


def snapshot(root: Path) -> dict[str, bytes]:
    """Read every file of a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def tear(text: bytes) -> bytes:
    """Cut the last line in half."""
    return text[:-40]


def lose_one(text: bytes) -> bytes:
    """Remove the second line."""
    lines = text.splitlines(keepends=True)
    return b"".join([lines[0], *lines[2:]])


def lose_end(text: bytes) -> bytes:
    """Remove the last two lines."""
    return b"".join(text.splitlines(keepends=True)[:-2])


def lose_newline(text: bytes) -> bytes:
    """Remove the last byte."""
    return text[:-1]


def lose_all(_text: bytes) -> bytes:
    """Remove everything."""
    return b""


@pytest.mark.parametrize("damage", [tear, lose_one, lose_end, lose_newline, lose_all])
async def test_damaged_results_are_repaired_at_next_start(desk: Any, damage: Any) -> None:
    """Torn and missing rows are written again, each once."""
    async with desk.sandbox() as box:
        await desk.run(box, 5)
        path = desk.root / "results.jsonl"
        good = path.read_bytes()
        path.write_bytes(damage(good))
        posts = box.stats.posts
        summary = await desk.run(box, 5, is_checked=False)
        assert summary.exit_code is ExitCode.OK
        desk.check()
        assert sorted(path.read_bytes().splitlines()) == sorted(good.splitlines())
        assert box.stats.posts == posts


async def test_deleted_results_come_back(desk: Any) -> None:
    async with desk.sandbox() as box:
        await desk.run(box, 5)
        good = (desk.root / "results.jsonl").read_bytes()
        (desk.root / "results.jsonl").unlink()
        summary = await desk.run(box, 5, is_checked=False)
        assert summary.exit_code is ExitCode.OK
        desk.check()
        assert (desk.root / "results.jsonl").read_bytes() == good


async def test_foreign_line_in_results_is_kept(desk: Any) -> None:
    """The run's own rows are complete."""
    async with desk.sandbox() as box:
        await desk.run(box, 3)
        path = desk.root / "results.jsonl"
        good = path.read_bytes()
        path.write_bytes(good + b'{"a note": "of mine"}\n')
        await desk.run(box, 4, is_checked=False)
        lines = path.read_bytes().splitlines()
        assert lines[:4] == [*good.splitlines(), b'{"a note": "of mine"}']
        assert json.loads(lines[4])["job_id"] == "job-03"
        assert len(lines) == 5


@pytest.mark.parametrize(
    "garbage", [b"no database at all, but long enough to be one" * 99, b"short"]
)
async def test_damaged_state_sends_nothing(desk: Any, garbage: bytes) -> None:
    """A run without it would pay again: the error is clear and the folder unchanged."""
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        state = desk.root / ".kling-batch/state.db"
        state.write_bytes(garbage)
        before, requests = snapshot(desk.root / "videos"), box.stats.counts()
        with pytest.raises(StateError, match=r"state\.db is damaged.*nothing was sent"):
            await desk.run(box, 3)
        assert state.read_bytes() == garbage
        assert snapshot(desk.root / "videos") == before
        assert box.stats.counts() == requests
        with pytest.raises(StateError):
            desk.plan(box, 3)


async def test_damaged_state_page_is_reported(desk: Any) -> None:
    """Only the header is intact."""
    async with desk.sandbox() as box:
        await desk.run(box, 20)
        state = desk.root / ".kling-batch/state.db"
        data = bytearray(state.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        state.write_bytes(data)
        posts = box.stats.posts
        with pytest.raises(StateError, match="damaged"):
            await desk.run(box, 21)
        assert box.stats.posts == posts


async def test_emptied_state_is_not_a_new_folder(desk: Any) -> None:
    """With an empty state beside results, a run would pay for everything again."""
    async with desk.sandbox() as box:
        await desk.run(box, 3)
        (desk.root / ".kling-batch/state.db").write_bytes(b"")
        posts = box.stats.posts
        with pytest.raises((StateError, UsageError)):
            await desk.run(box, 3)
        assert box.stats.posts == posts


async def test_folder_of_a_run_dead_early_is_usable(desk: Any) -> None:
    """Killed before the first table was written, the folder counts as new."""
    state = desk.root / ".kling-batch/state.db"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"")
    async with desk.sandbox() as box:
        assert desk.plan(box, 2) == {"new": 2}
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK


async def test_state_of_newer_release_is_reported(desk: Any) -> None:
    """The error says to install the newer one, and nothing is changed."""
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        desk.sql("PRAGMA user_version = 99")
        posts = box.stats.posts
        with pytest.raises(StateError, match="newer release"):
            await desk.run(box, 3)
        assert box.stats.posts == posts


async def test_another_run_holds_the_folder(desk: Any) -> None:
    """The error names the holder's pid."""
    async with desk.sandbox() as box:
        with (
            lock.hold(desk.root / ".kling-batch/lock"),
            pytest.raises(LockedError, match=f"process {os.getpid()} on .* since") as caught,
        ):
            await desk.run(box, 2)
        assert caught.value.exit_code is ExitCode.LOCKED
        assert box.stats.posts == 0
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK


async def test_lock_file_of_a_dead_run_is_free(desk: Any) -> None:
    """The operating system holds the lock; the file only names the holder."""
    path = desk.root / ".kling-batch/lock"
    path.parent.mkdir(parents=True)
    path.write_text('{"pid": 1, "host": "elsewhere", "since": "2020-01-01"}', encoding="utf-8")
    async with desk.sandbox() as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK


async def test_sandbox_videos_never_pass_for_real(desk: Any) -> None:
    """A folder belongs either to the sandbox or to the real API."""
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        with pytest.raises(UsageError, match="real API"):
            await desk.run(box, 2, sandbox=True, base_url=None)


async def test_attempt_is_on_disk_before_its_request(desk: Any) -> None:
    """Rule 1: at the moment of the POST, the intent with that external id is committed."""
    missing: list[str] = []

    async with desk.sandbox() as box:
        count = box._world.engine.create

        def create(account: str, order: Any, *rest: Any) -> Any:
            # Another connection reads only committed changes.
            found = desk.sql(
                "SELECT state FROM attempts WHERE external_task_id = ?", order.external_task_id
            )
            if found != [("Intended",)]:
                missing.append(order.external_task_id)
            return count(account, order, *rest)

        box._world.engine.create = create
        await desk.run(box)
        assert box.stats.created == 20
    assert missing == []


async def test_no_secret_is_written_anywhere(desk: Any) -> None:
    """The faults quote keys and links; the desk checks all files and logs."""
    faults = [
        "submit:drop-after:0.2",
        "query:500:0.2",
        "download:cut:per_task=1",
        "download:403:0.2",
        "download:redirect:0.2",
        "outcome:moderation:first=1",
    ]
    async with desk.sandbox(*faults, clip="prompt") as box:
        listed = [*desk.jobs(15), {"id": "quote", "prompt": "sandbox:unsafe"}]
        await desk.run(box, listed)
        assert box.stats.downloads > 15
    assert desk.log.getvalue().count("\n") > 60


async def test_key_quoted_in_an_answer_is_redacted(desk: Any) -> None:
    """Some gateways quote the key when they refuse it."""
    from aiohttp import web  # noqa: PLC0415

    async def refuse(request: web.BaseRequest) -> web.Response:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        return web.json_response(
            {"error": {"message": f"invalid token {key}", "code": "invalid_api_key"}}, status=401
        )

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        summary = await desk.run(f"http://127.0.0.1:{runner.addresses[0][1]}", 2)
    finally:
        await runner.cleanup()
    assert summary.exit_code is ExitCode.ACCOUNT
    assert "verysecret" not in json.dumps(summary.to_json())
    assert "verysecret" not in repr(summary)


async def test_state_is_readable_during_a_run(desk: Any) -> None:
    """`status` reads the state during a run."""
    seen: list[int] = []

    class Reader:
        def notify(self, _event: Any) -> None:
            connection = sqlite3.connect(
                f"file:{desk.root}/.kling-batch/state.db?mode=ro", uri=True
            )
            seen.append(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])
            connection.close()

    async with desk.sandbox() as box:
        await desk.run(box, 5, observers=[Reader()])
    assert max(seen) == 5


async def test_older_state_takes_over_what_its_results_name(desk: Any) -> None:
    """With a restored backup nothing is paid again; the plan says the same, and changes nothing."""
    state = desk.root / ".kling-batch/state.db"
    async with desk.sandbox() as box:
        await desk.run(box, 2)
        backup = state.read_bytes()
        await desk.run(box, 5)
        state.write_bytes(backup)
        assert desk.plan(box, 6) == {"unchanged": 5, "new": 1}
        assert state.read_bytes() == backup
        witness = desk.witness()
        assert (await desk.run(box, 6, observers=[witness])).exit_code is ExitCode.OK
        assert ["3 rows" in event.message for event in witness.of(Warned)] == [True]
        assert box.stats.created == 6
        assert desk.plan(box, 6) == {"unchanged": 6}


async def test_moved_folder_is_not_written_to(desk: Any) -> None:
    """The folder in its old place is another run's; the moved one stays intact."""
    moved = desk.root.with_name("moved")

    class Mover:
        def notify(self, event: Any) -> None:
            if isinstance(event, VideoReady) and not moved.exists():
                desk.root.rename(moved)
                (desk.root / ".kling-batch/parts").mkdir(parents=True)
                (desk.root / ".kling-batch/state.db").touch()

    async with desk.sandbox() as box:
        with pytest.raises(StateError, match="moved, replaced or deleted"):
            await desk.run(box, 4, observers=[Mover()], is_checked=False)
        assert desk.videos == {}
        assert desk.results() == ""
        shutil.rmtree(desk.root)
        moved.rename(desk.root)
        assert (await desk.run(box, 4)).exit_code is ExitCode.OK
        assert box.stats.created == 4
