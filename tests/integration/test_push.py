"""Callbacks end to end: a callback moves the next poll and changes nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import PATIENCE_S, until_so
from ports import free_port

from batch.callbacks.hints import PROVED_BY, hash_token
from batch.errors import ExitCode, UsageError
from batch.events import Adopted
from batch.run.stop import Stop, StopReason
from batch.sandbox import FaultPlan
from batch.sandbox.engine import Task

REPOSITORY = Path(__file__).parents[2]
LONG = "1h"  # a poll interval: what is polled sooner was called back


def push(prefix: str = "", host: str = "127.0.0.1") -> dict[str, str]:
    """Return the two options of a run with callbacks."""
    name = f"[{host}]" if ":" in host else host
    place = f"{name}:{free_port(host)}"
    return {"callback_url": f"http://{place}{prefix}", "callback_listen": place}


def url_of(task: Task) -> str:
    """Return the callback URL of a task."""
    url = task.body["callback_url"]
    assert isinstance(url, str)
    return url


def told(task: Task, status: str = "succeed", **more: Any) -> dict[str, Any]:
    """Return a callback for a task, as of now."""
    return {
        "task_id": task.task_id,
        "task_status": status,
        "updated_at": round(time.time() * 1000),
        "task_info": {"external_task_id": task.external_task_id},
        **more,
    }


async def post(url: str, body: Any) -> int:
    """Send a callback; returns the status of the answer, 0 if there is none."""
    try:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


@asynccontextmanager
async def running(desk: Any, box: Any, count: int, **how: Any) -> AsyncIterator[Any]:
    """Run in the background of the block, then wait for the end."""
    run = asyncio.create_task(desk.run(box, count, **how))
    try:
        await until_so(lambda: run.done() or len(box.tasks) == count)
        yield run
        await run
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run


def check_no_token(desk: Any, box: Any) -> None:
    """Search the output folder and the log, at every level, for tokens and callback URLs."""
    tokens = {url_of(task).rpartition("/")[2] for task in box.tasks}
    assert len(tokens) == len(box.tasks), "each task has a token of its own"
    assert all(re.fullmatch(r"[\w-]{43,}", token) for token in tokens)
    files = {str(p): p.read_bytes() for p in desk.root.rglob("*") if p.is_file()}
    files["log"] = desk.log.getvalue().encode()
    for name, data in files.items():
        assert not [token for token in tokens if token.encode() in data], name
    hashes = {row[0] for row in desk.sql("SELECT token_hash FROM attempts")}
    assert {hash_token(token) for token in tokens} <= hashes


def outcome(desk: Any) -> list[tuple[Any, ...]]:
    """Return what callbacks must not change."""
    names = ("status", "attempts", "file", "sha256", "cost_usd")
    return sorted((job_id, *(row[n] for n in names)) for job_id, row in desk.last.items())


BAD = [
    *("late:seconds=0.1", "late:0.5,seconds=0.3", "twice", "out-of-order", "forged"),
    *("wrong-path", "never", "never:0.5", "late:seconds=60"),
]


@pytest.mark.parametrize("fault", ["", *BAD])
async def test_callbacks_do_not_change_the_outcome(desk: Any, fault: str) -> None:
    """Valid, late, repeated, reordered, forged, misdirected and lost callbacks."""
    faults = [f"callback:{fault}"] if fault else []
    async with desk.sandbox(*faults) as box:
        summary = await desk.run(box, **push())
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == box.stats.posts == 20
        check_no_token(desk, box)
    pushed = outcome(desk)
    desk.root = desk.tmp_path / "without"
    async with desk.sandbox() as box:
        await desk.run(box)
    assert outcome(desk) == pushed


@pytest.mark.parametrize("fault", ["", "twice", "forged", "out-of-order"])
async def test_announced_end_is_polled_at_once(desk: Any, fault: str) -> None:
    """Despite a long poll interval, the run ends soon after the generation."""
    faults = [f"callback:{fault}"] if fault else []
    async with desk.sandbox(*faults, median_s=0.3) as box:
        # A forged end causes a poll as a true one does, the next only after poll_interval.
        interval = "600ms" if fault == "forged" else LONG
        summary = await desk.run(box, 5, limits={"poll_interval": interval}, **push())
        assert summary.exit_code is ExitCode.OK
        assert box.stats.callbacks >= 10
        if not fault:
            assert max(box.stats.queries_per_task.values()) == 1


@pytest.mark.parametrize("shape", ["bare", "enveloped", "newer"])
async def test_every_shape_wakes(desk: Any, shape: str) -> None:
    """Relays reshape callbacks."""
    async with (
        desk.sandbox("callback:never", median_s=0.2, sigma=0.0) as box,
        running(desk, box, 1, limits={"poll_interval": LONG}, **push()),
    ):
        [task] = box.tasks
        await asyncio.sleep(0.25)
        bare = told(task)
        body = {
            "bare": bare,
            "enveloped": {"code": 0, "message": "ok", "data": bare},
            "newer": {
                "id": task.task_id,
                "status": "succeeded",
                "update_time": bare["updated_at"],
            },
        }[shape]
        assert await post(url_of(task), body) == 204


async def test_forged_callback_causes_one_poll(desk: Any) -> None:
    """Submitted and processing cause no poll; a forged end causes one."""
    later, stop = 0.0, Stop()
    async with desk.sandbox(
        "callback:never", median_s=300.0, now=lambda: time.time() + later
    ) as box:
        long = {"poll_interval": LONG}
        async with running(desk, box, 1, limits=long, stop=stop, **push()):
            [task] = box.tasks
            for status in ("submitted", "processing", "odd"):
                assert await post(url_of(task), told(task, status)) == 204
            await asyncio.sleep(0.02)
            assert box.stats.queries == 0
            for n in range(20):
                assert await post(url_of(task), told(task, updated_at=10**15 + n)) == 204
            await until_so(lambda: box.stats.queries)
            await asyncio.sleep(0.05)
            assert box.stats.queries + box.stats.lookups <= 2, "twenty forgeries, one look"
            stop.ask(StopReason.INTERRUPTED, "enough")
        later = 3600.0
        await desk.run(box, 1)
        assert desk.statuses == {"succeeded": 1}
        assert desk.last["job-00"]["generated_at"] >= desk.last["job-00"]["submitted_at"]


@pytest.mark.parametrize(
    "make",
    [
        lambda task, _other: {"task_id": "unknown-1", "task_status": "succeed"},
        lambda task, _other: told(task, "failed", task_status_msg="forged"),
        lambda task, other: told(other),
        lambda task, other: told(task, task_id=other.task_id),
        lambda task, other: {**told(other), "task_info": {}},
        lambda task, _other: told(task, task_info={"external_task_id": "kb-nobody"}),
        lambda task, _other: told(task, updated_at=1),
        lambda task, _other: [told(task)],
    ],
    ids=[
        *("unknown-id", "forged-failure", "anothers", "anothers-task-id", "anothers-unnamed"),
        *("unknown-external-id", "ages-old", "list"),
    ],
)
async def test_callback_claims_are_not_believed(desk: Any, make: Any) -> None:
    """With the right token and wrong content, each job still gets its own task and video."""
    async with desk.sandbox("callback:never", median_s=0.3) as box:
        async with running(desk, box, 2, **push()):
            one, other = box.tasks
            for _ in range(3):
                assert await post(url_of(one), make(one, other)) == 204
                await asyncio.sleep(0.03)
        assert desk.statuses == {"succeeded": 2}
        mine = {task.prompt: task.task_id for task in box.tasks}
        assert {row["prompt"]: row["task_id"] for row in desk.last.values()} == mine
        assert box.stats.created == 2


async def test_a_callback_for_a_finished_job_changes_nothing(desk: Any) -> None:
    """It is accepted during the run and causes no poll."""
    async with desk.sandbox("outcome:stuck:match=*number 1", "callback:never") as box:
        limits = {"task_timeout": "1s"}
        async with running(desk, box, 2, limits=limits, **push()):
            await until_so(lambda: len(desk.rows) == 1)
            [done] = [task for task in box.tasks if task.outcome == "succeed"]
            asked, rows = box.stats.queries_per_task[done.task_id], desk.rows
            for status in ("succeed", "failed", "processing"):
                assert await post(url_of(done), told(done, status)) == 204
            await asyncio.sleep(0.1)
            assert box.stats.queries_per_task[done.task_id] == asked
            assert desk.rows == rows
        assert desk.statuses == {"succeeded": 1, "timed_out": 1}


# -- trust -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "is_rarer"), [(None, True), ("never", False)])
async def test_polling_is_rarer_only_while_callbacks_come(
    desk: Any, fault: str | None, is_rarer: bool
) -> None:
    """How often a long task is polled depends on whether earlier ends were announced."""
    faults = ["outcome:stuck:match=*number 0", *([f"callback:{fault}"] if fault else [])]
    async with desk.sandbox(*faults, median_s=0.05, sigma=0.0) as box:
        limits = {"poll_interval": "100ms", "task_timeout": "2s"}
        await desk.run(box, PROVED_BY + 1, limits=limits, **push())
        [stuck] = [task for task in box.tasks if task.prompt.endswith("number 0")]
        asked = box.stats.queries_per_task[stuck.task_id]
    desk.root = desk.tmp_path / "without"
    async with desk.sandbox(faults[0], median_s=0.05, sigma=0.0) as box:
        await desk.run(box, PROVED_BY + 1, limits=limits)
        [stuck] = [task for task in box.tasks if task.prompt.endswith("number 0")]
        usual = box.stats.queries_per_task[stuck.task_id]
    assert (asked < usual * 0.7) is is_rarer, (asked, usual)


# -- lost answers ----------------------------------------------------------------------------


async def test_callback_recovers_a_lost_task(desk: Any) -> None:
    """Without look-up, a GET confirms the callback's task id."""
    seen = desk.witness()
    async with desk.sandbox("submit:drop-after", lookup=False) as box:
        summary = await desk.run(box, 5, observers=[seen], **push())
        assert summary.exit_code is ExitCode.OK
        assert len(seen.of(Adopted)) == 5
        assert box.stats.posts == box.stats.created == 5
        assert desk.statuses == {"succeeded": 5}
        assert desk.sql("SELECT count(*) FROM lookup_proofs") == [(0,)], (
            "no proof of look-up by our id"
        )


async def test_forged_task_name_recovers_nothing(desk: Any) -> None:
    """The token is right, but the GET shows another job's task, or none."""
    async with desk.sandbox(
        "submit:drop-after:match=*number 1", "callback:never", lookup=False, median_s=0.2
    ) as box:
        async with running(
            desk, box, 2, limits={"settle_time": "300ms", "task_timeout": "3s"}, **push()
        ):
            by_number = {task.prompt[-1]: task for task in box.tasks}
            lost, other = by_number["1"], by_number["0"]
            forged = told(lost, "processing", task_id=other.task_id)
            assert await post(url_of(lost), forged) == 204
            unknown = told(lost, "processing", task_id="8888")
            assert await post(url_of(lost), unknown) == 204
        assert desk.last["job-00"]["status"] == "succeeded"
        assert desk.last["job-01"]["status"] == "unconfirmed"
        assert desk.last["job-01"]["task_id"] is None
        assert box.stats.posts == 2


# -- dying -----------------------------------------------------------------------------------


def command(desk: Any, *options: str, **environ: str) -> Any:
    """Start the real command over the desk's manifest."""
    return asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batch", "run", "--new", str(desk.tmp_path / "night.yaml")),
        *("--output-dir", str(desk.root), "--verbose", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],  # the test's own: without one, the person's is found
            "PYTHONPATH": str(REPOSITORY),
            "COMETAPI_KEY": "sk-verysecretkey0123456789",
            **environ,
        },
    )


async def test_restarted_run_receives_its_callbacks(desk: Any) -> None:
    """With the same port and tokens, tasks submitted before the kill are announced after it."""
    options = push("/kling")
    later = 0.0
    async with desk.sandbox(
        "callback:never", median_s=300.0, now=lambda: time.time() + later
    ) as box:
        # At its start a run polls each task once; then only a callback ends the wait.
        desk.manifest(3, poll_interval=LONG, task_timeout="1h")
        flags = (
            *("--base-url", box.base_url, "--callback-url", options["callback_url"]),
            *("--callback-listen", options["callback_listen"]),
        )
        first = await command(desk, *flags)
        await until_so(lambda: len(box.tasks) == 3)
        await until_so(lambda: desk.states()["Open"] == 3)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        lookups = box.stats.lookups
        second = await command(desk, *flags)
        # A run killed before it has proved look-up makes one of these polls a look-up.
        await until_so(lambda: len(box.stats.query_times) + box.stats.lookups >= 3 + lookups)
        later = 3600.0
        assert [await post(url_of(task), told(task)) for task in box.tasks] == [204] * 3
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await second.communicate()
        assert second.returncode == 0, out.decode()
        assert desk.statuses == {"succeeded": 3}
        assert box.stats.created == 3
        desk.log.write(out.decode())
        check_no_token(desk, box)


# -- hostile clients -------------------------------------------------------------------------


async def test_held_connections_do_not_delay_the_run(desk: Any) -> None:
    """Despite 300 idle connections and slow bodies, valid callbacks arrive and the run ends."""
    options = push()
    host, _, port = options["callback_listen"].rpartition(":")
    async with desk.sandbox("callback:never", median_s=0.1) as box:
        async with running(desk, box, 10, limits={"poll_interval": LONG}, **options):
            held = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
            path = url_of(box.tasks[0]).rpartition("/")[2]
            for _ in range(10):
                reader, writer = await asyncio.open_connection(host, int(port))
                head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n ["
                writer.write(head.encode())
                held.append((reader, writer))
            await until_so(lambda: all(task.status(time.time()) == "succeed" for task in box.tasks))
            for task in box.tasks:
                assert await post(url_of(task), told(task)) == 204
        assert desk.statuses == {"succeeded": 10}
        for _, writer in held:
            writer.close()


# -- options ---------------------------------------------------------------------------------


async def test_taken_port_is_reported_before_sending(desk: Any) -> None:
    """Exit code 2, one sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        async with desk.sandbox() as box:
            desk.manifest(3)
            flags = ("--callback-url", "https://x.example/", "--callback-listen", place)
            process = await command(desk, "--base-url", box.base_url, *flags)
            out, _ = await process.communicate()
            assert process.returncode == 2, out.decode()
            assert f"cannot listen for callbacks on {place}" in " ".join(out.decode().split())
            assert "Traceback" not in out.decode()
            assert box.stats.posts == box.stats.queries == box.stats.lookups == 0
            assert (await desk.run(box, 3)).exit_code is ExitCode.OK, "the folder is as it was"


@pytest.mark.parametrize("name", ["callback_url", "callback_listen"])
def test_one_option_without_the_other_is_refused(desk: Any, name: str) -> None:
    with pytest.raises(UsageError, match=r"callback_url.*callback_listen"):
        desk.settings("http://127.0.0.1:1", desk.manifest(1), **{name: push()[name]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"callback_url": "studio.example/kling"},
        {"callback_url": "ftp://studio.example"},
        {"callback_listen": "8090"},
        {"callback_listen": "127.0.0.1:http"},
        {"callback_listen": "127.0.0.1:99999"},
        {"callback_listen": ":8090"},
    ],
)
def test_options_that_cannot_be_are_refused(desk: Any, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="^callback_"):
        desk.settings("http://127.0.0.1:1", desk.manifest(1), **{**push(), **wrong})


@pytest.mark.parametrize("prefix", ["", "/", "/kling", "/a/b/", "/kling?from=night"])
async def test_manifest_sets_callbacks_with_a_prefix(desk: Any, prefix: str) -> None:
    """`callback:` with url and listen, as the options."""
    options = push(prefix)
    desk.extra["callback"] = {
        "url": options["callback_url"],
        "listen": options["callback_listen"],
    }
    async with desk.sandbox(median_s=0.1) as box:
        summary = await desk.run(box, 3, limits={"poll_interval": LONG})
        assert summary.exit_code is ExitCode.OK
        assert box.stats.failed_callbacks == 0


async def test_ipv6_is_listened_on(desk: Any) -> None:
    """The address has brackets."""
    try:
        options = push(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with desk.sandbox(median_s=0.1) as box:
        await desk.run(box, 3, limits={"poll_interval": LONG}, **options)


async def test_each_attempt_has_a_token_of_its_own(desk: Any) -> None:
    """Failed tasks are retried and lost requests resent."""
    async with desk.sandbox("outcome:generation:until=3", "submit:502:first=2") as box:
        assert (await desk.run(box, 5, **push())).exit_code is ExitCode.OK
        assert box.stats.created == 8
        check_no_token(desk, box)
        assert (
            json.loads(desk.results().splitlines()[0])["options"]
            .keys()
            .isdisjoint({"callback_url"})
        )
        box.set_faults(FaultPlan())
