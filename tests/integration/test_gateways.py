"""Answers of gateways: one task a job and the right verdict. Tasks are counted at the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from batch.errors import ExitCode

PLACES = [
    *("fail_reason", "url", "video_url", "metadata.url", "data.url", "task_result.url"),
    *("task_result.video_url", "watermark_url", "videos"),
]
NOT_NOW = ["throttled-words", "saturated-words", "403-rate-limit", "200-429"]
NO_ACCOUNT = [
    "credit-words",
    "429-credit",
    "200-401",
    "200-402",
    "200-403",
    "200-false",
    "200-error",
]
ODD_FILES = ["label", "label:to=text/plain", "label:to=application/json", "gzip", "203", "206"]
PAGES = ["html-2xx", "404-html", "405-html"]


@asynccontextmanager
async def relay(
    box: Any, said: str, name: Callable[[str], Any] = lambda _: {"job_id": "1"}
) -> AsyncIterator[str]:
    """Relay every request to the sandbox; answer a POST with data made of the id by *name*."""

    async def forward(request: web.Request) -> web.Response:
        url, headers = f"{box.base_url}{request.path_qs}", dict(request.headers)
        async with session.request(
            request.method, url, data=await request.read(), headers=headers
        ) as answer:
            body = await answer.read()
        if request.method == "POST" and answer.status == 200:
            data = name(json.loads(body)["data"]["task_id"])
            return web.json_response({"success": True, "message": said, "data": data})
        return web.Response(status=answer.status, body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


async def test_unknown_failure_is_retried_once_in_later_run(desk: Any) -> None:
    """An unlisted reason may be moderation: one more task in a later run, then the job rests."""
    async with desk.sandbox("outcome:unknown-words") as box:
        counts = []
        for _ in range(3):
            summary = await desk.run(box, 4)
            assert summary.exit_code is ExitCode.JOBS_FAILED
            counts.append(box.stats.created)
        assert counts == [4, 8, 8]
        assert set(desk.kinds) == {"generation"}
        words = "The take did not come together"
        assert all(words in row["error"]["message"] for row in desk.last.values())
        assert all(words in reason for _, reason in summary.resting)


async def test_reworded_moderation_rests_at_once(desk: Any) -> None:
    async with desk.sandbox("outcome:reworded-moderation") as box:
        for _ in range(2):
            assert (await desk.run(box, 4)).exit_code is ExitCode.JOBS_FAILED
        assert box.stats.created == 4
        assert set(desk.kinds) == {"moderation"}


async def test_known_passing_reason_is_retried_at_once(desk: Any) -> None:
    async with desk.sandbox("outcome:generation:per_task=1:until=4") as box:
        summary = await desk.run(box, 4)
        assert (summary.exit_code, box.stats.created) == (ExitCode.OK, 8)


@pytest.mark.parametrize("place", PLACES)
async def test_link_elsewhere_is_fetched(desk: Any, place: str) -> None:
    faults = [f"{stage}:link:to={place}" for stage in ("query", "lookup")]
    async with desk.sandbox(*faults) as box:
        assert (await desk.run(box, 3)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (3, 3)


@pytest.mark.parametrize("fault", NOT_NOW)
async def test_refusal_for_now_makes_every_video_once(desk: Any, fault: str) -> None:
    async with desk.sandbox(f"submit:{fault}:first=2") as box:
        assert (await desk.run(box, 4)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (4, 4)


@pytest.mark.parametrize("fault", NO_ACCOUNT)
async def test_refused_account_exits_4_until_restored(desk: Any, fault: str) -> None:
    """No rows, at most one POST per slot; after the top-up every video is made."""
    async with desk.sandbox(f"submit:{fault}") as box:
        summary = await desk.run(box, 9, limits={"max_in_flight": 3})
        assert summary.exit_code is ExitCode.ACCOUNT
        assert (box.stats.created, desk.rows) == (0, [])
        assert box.stats.posts <= 3
    async with desk.sandbox() as mended:
        assert (await desk.run(mended, 9)).exit_code is ExitCode.OK
        assert mended.stats.created == 9


@pytest.mark.parametrize("fault", PAGES)
async def test_wrong_address_costs_nothing_and_recovers(desk: Any, fault: str) -> None:
    """Three pages in a row, and never a task accepted; the right address needs no flag."""
    async with desk.sandbox(f"any:{fault}") as wrong:
        summary = await desk.run(wrong, 9, limits={"max_in_flight": 3})
        assert summary.exit_code is ExitCode.ACCOUNT
        assert "check the base URL" in (summary.stopped or "")
        assert wrong.stats.posts <= 3 + 3
        assert (desk.rows, dict(desk.states())) == ([], {})
    async with desk.sandbox() as right:
        assert (await desk.run(right, 9)).exit_code is ExitCode.OK
        assert right.stats.created == 9


async def test_one_page_in_a_working_night_stays_ambiguous(desk: Any) -> None:
    async with desk.sandbox("submit:html-2xx-after:every=3") as box:
        assert (await desk.run(box, 9)).exit_code is ExitCode.OK
        assert (box.stats.created, box.stats.posts) == (9, 9)


async def test_older_task_proves_look_up(desk: Any) -> None:
    """Without a new task, an older one proves it, and the lost request is known to be absent."""
    async with desk.sandbox("submit:drop-before:after=2:per_task=1") as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        desk.sql("DELETE FROM lookup_proofs")
        assert (await desk.run(box, 3)).exit_code is ExitCode.OK
        assert (box.stats.created, box.stats.posts) == (3, 4)


@pytest.mark.parametrize("fault", ODD_FILES)
async def test_right_bytes_under_an_odd_head_land(desk: Any, fault: str) -> None:
    async with desk.sandbox(f"download:{fault}") as box:
        assert (await desk.run(box, 3)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (3, 3)


async def test_file_server_retry_after_is_respected(desk: Any) -> None:
    """Eight refusals with Retry-After in a row do not count as failed tries."""
    async with desk.sandbox("download:503:retry_after=0.05:per_task=8") as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (2, 2)


@pytest.mark.parametrize("fault", ["big-header", "many-headers"])
@pytest.mark.parametrize("stage", ["submit", "query", "download"])
async def test_large_head_loses_nothing(desk: Any, stage: str, fault: str) -> None:
    async with desk.sandbox(f"{stage}:{fault}") as box:
        assert (await desk.run(box, 3)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (3, 3)


async def test_idle_connection_loses_no_submission(desk: Any) -> None:
    """Where look-up is not served, a POST lost with its connection would stay unconfirmed."""
    async with desk.sandbox("connection:idle:seconds=0.02", lookup=False) as box:
        summary = await desk.run(box, 8, limits={"max_in_flight": 2, "submit_rate": "20/s"})
        assert summary.exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (8, 8)


async def test_link_on_own_origin_gets_the_key(desk: Any) -> None:
    faults = [f"{stage}:link:to=own-origin" for stage in ("query", "lookup")]
    async with desk.sandbox(*faults) as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        assert len(desk.videos) == 2


async def test_absurd_retry_after_does_not_hold_the_run(desk: Any) -> None:
    """An epoch time is absurd; no pause exceeds `task_timeout`."""
    async with desk.sandbox("submit:429:moment=ms:retry_after=0.2:first=1") as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        assert box.stats.created == 2


async def test_unread_success_is_looked_up_not_repeated(desk: Any) -> None:
    """The id is in an unread field; the friendly message is no refusal."""
    said = "Task created; content review in progress, please try again later to query it"
    async with desk.sandbox() as box, relay(box, said) as base_url:
        for _ in range(2):
            await desk.run(base_url, 2)
        assert box.stats.created == 2
        assert desk.statuses == {"succeeded": 2}


async def test_new_key_does_not_make_an_address_unknown(desk: Any) -> None:
    """The old key had tasks there, so a page still counts as a lost answer."""
    async with desk.sandbox("submit:html-2xx-after:after=2") as box:
        assert (await desk.run(box, 2)).exit_code is ExitCode.OK
        await desk.run(box, 3, api_key="sk-the-new-one-0000")
        await desk.run(box, 3, api_key="sk-the-new-one-0000")
        assert box.stats.created == 3


@pytest.mark.parametrize("name", [str, lambda task_id: {"id": task_id}, lambda task_id: [task_id]])
async def test_id_in_an_unknown_place_is_confirmed(desk: Any, name: Callable[[str], Any]) -> None:
    """Where look-up is not served, nothing else could bring the task home."""
    async with desk.sandbox(lookup=False) as box, relay(box, "success", name) as base_url:
        assert (await desk.run(base_url, 2)).exit_code is ExitCode.OK
        assert (box.stats.created, len(desk.videos)) == (2, 2)
