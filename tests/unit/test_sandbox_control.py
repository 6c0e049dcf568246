"""The pages under /sandbox/ and the request log, over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from batch.sandbox import PAGES, FaultPlan, Logged, Sandbox, SandboxConfig, serve
from batch.sandbox.api import PATH

BODY = {"prompt": "A fox", "model_name": "kling-v2-6"}
KEY = "sk-secret-of-the-test"


class Client:
    """Somebody else's client."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        async with self.session.request(
            method,
            self.sandbox.base_url + path,
            json=body,
            headers={"Authorization": f"Bearer {KEY}", **headers},
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def create(self, external_task_id: str, prompt: str = "A fox") -> str:
        body = {**BODY, "prompt": prompt, "external_task_id": external_task_id}
        status, answer = await self.ask("POST", PATH, body)
        assert status == 200, answer
        task_id: str = answer["data"]["task_id"]
        return task_id

    async def status(self, reference: str) -> str:
        data = (await self.ask("GET", f"{PATH}/{reference}"))[1]["data"]
        return f"{data['task_status']}"


@asynccontextmanager
async def client(
    *faults: str, log: list[Logged] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """Serve a sandbox whose tasks take an hour."""
    values = {"median_s": 3600.0, "sigma": 0.0, "seed": 1, "clip": "tiny", **options}
    config = SandboxConfig(**values, faults=FaultPlan.from_strings(faults))
    async with (
        serve(config, log=None if log is None else log.append) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        yield Client(sandbox, session)


async def test_finish_ends_every_open_task() -> None:
    """Each with its own outcome; one that is stuck succeeds, and the slots are free."""
    async with client(max_parallel=3) as it:
        ids = [
            await it.create("a"),
            await it.create("b", "sandbox:moderation"),
            await it.create("c", "sandbox:stuck"),
        ]
        finished = await it.ask("POST", "/sandbox/finish")
        seen = [await it.status(task_id) for task_id in ids]
        again = await it.ask("POST", "/sandbox/finish")
        await it.create("d")

    assert finished == (200, {"finished": ids})
    assert seen == ["succeed", "failed", "succeed"]
    assert again == (200, {"finished": []})


@pytest.mark.parametrize("name", ["task_id", "external_task_id"])
async def test_finish_ends_one_task(name: str) -> None:
    async with client() as it:
        ids = {"task_id": await it.create("mine"), "external_task_id": "mine"}
        other = await it.create("other")
        status, answer = await it.ask("POST", "/sandbox/finish", {name: ids[name]})
        seen = [await it.status(ids["task_id"]), await it.status(other)]

    assert (status, answer) == (200, {"finished": [ids["task_id"]]})
    assert seen == ["succeed", "submitted"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"task_id": "8"}, 404, "no task has the task_id 8"),
        ({"id": "8"}, 400, "task_id or external_task_id"),
        ({"task_id": "8", "external_task_id": "a"}, 400, "name one task"),
        (["8"], 400, "name one task"),
    ],
)
async def test_finish_refuses_unknown_task(body: Any, status: int, words: str) -> None:
    async with client() as it:
        await it.create("a")
        found, answer = await it.ask("POST", "/sandbox/finish", body)

    assert found == status
    assert words in answer["error"]


async def test_finished_task_is_found_after_restart(tmp_path: Path) -> None:
    """The journal holds a line more, and one task."""
    journal = tmp_path / "journal"
    async with client(journal=journal) as it:
        task_id = await it.create("a")
        await it.ask("POST", "/sandbox/finish")
    async with client(journal=journal) as it:
        assert await it.status(task_id) == "succeed"
        assert await it.status("a") == "succeed"
        assert len(it.sandbox.tasks) == 1


async def test_finish_sends_the_callback() -> None:
    """At once, and once."""
    told: list[str] = []

    async def listen(request: web.BaseRequest) -> web.StreamResponse:
        told.append((await request.json())["task_status"])
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(listen, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with client() as it:
        await it.ask("POST", PATH, {**BODY, "callback_url": url})
        await it.ask("POST", "/sandbox/finish")
        while "succeed" not in told:
            await it.ask("GET", "/sandbox/stats")
    await runner.cleanup()

    assert [status for status in told if status != "submitted"] == ["processing", "succeed"]


async def test_reset_forgets_all_but_the_faults_of_the_start(tmp_path: Path) -> None:
    """As if it had just been started, the journal included."""
    journal = tmp_path / "journal"
    async with client("query:500:first=1", journal=journal) as it:
        task_id = await it.create("a")
        await it.ask("POST", "/sandbox/faults", ["submit:500"])
        answer = await it.ask("POST", "/sandbox/reset")
        _, stats = await it.ask("GET", "/sandbox/stats")
        status, _ = await it.ask("GET", f"{PATH}/{task_id}")
        _, faults = await it.ask("GET", "/sandbox/faults")
        new = await it.create("a")

    assert answer == (200, {"forgotten": 1})
    assert (stats["created"], stats["posts"], stats["tasks"], stats["post_times"]) == (0, 0, [], [])
    assert status == 500
    assert faults["fired"] == {"query:500": 1}
    assert new != task_id
    assert len(journal.read_text().splitlines()) == 1


async def test_faults_change_while_it_runs() -> None:
    """Those in force are told as they may be sent back, with what they hit."""
    async with client() as it:
        task_id = await it.create("a")
        seen = [(await it.ask("GET", f"{PATH}/{task_id}"))[0]]
        await it.ask("POST", "/sandbox/faults", ["query:503:first=1", "lookup:429"])
        seen += [(await it.ask("GET", f"{PATH}/{task_id}"))[0] for _ in range(2)]
        seen.append((await it.ask("GET", f"{PATH}/a"))[0])
        status, told = await it.ask("GET", "/sandbox/faults")
        sent_back, _ = await it.ask("POST", "/sandbox/faults", told["rules"])
        await it.ask("POST", "/sandbox/faults", [])
        seen.append((await it.ask("GET", f"{PATH}/a"))[0])

    assert seen == [200, 503, 200, 429, 200]
    assert (status, sent_back) == (200, 200)
    assert told["rules"] == [
        {"where": "query", "kind": "503", "first": 1},
        {"where": "lookup", "kind": "429"},
    ]
    assert told["fired"] == {"query:503": 1, "lookup:429": 1}


async def test_pages_are_hit_by_no_fault() -> None:
    """Not even by one of every path."""
    async with client("any:500") as it:
        assert (await it.ask("GET", "/sandbox/stats"))[0] == 200


async def test_pages_refuse_a_web_page() -> None:
    """A browser on this machine is no way in."""
    async with client() as it:
        status, answer = await it.ask("POST", "/sandbox/reset", Origin="https://evil.example")

    assert status == 403
    assert "this machine only" in answer["error"]


async def test_unknown_page_lists_the_pages() -> None:
    async with client() as it:
        status, answer = await it.ask("POST", "/sandbox/stats")

    assert status == 404
    assert answer["pages"] == PAGES


async def test_log_tells_of_every_request() -> None:
    """Time, method, path, status and external id; what was closed has no status."""
    log: list[Logged] = []
    async with client("query:drop", log=log) as it:
        task_id = await it.create("mine")
        with pytest.raises(aiohttp.ClientError):
            await it.session.get(
                f"{it.sandbox.base_url}{PATH}/{task_id}", headers={"Authorization": f"Bearer {KEY}"}
            )
        await it.ask("POST", "/sandbox/finish")
        link = (await it.ask("GET", f"{PATH}/mine"))[1]["data"]["task_result"]["videos"][0]["url"]
        async with it.session.get(link) as answer:
            await answer.read()
        await it.session.get(f"{it.sandbox.base_url}/nowhere%0A?key={KEY}")

    assert [(entry.method, entry.path, entry.status, entry.external_task_id) for entry in log] == [
        ("POST", PATH, 200, "mine"),
        *[("GET", f"{PATH}/{task_id}", None, "mine")] * 2,  # aiohttp has tried once more
        ("POST", "/sandbox/finish", 200, None),
        ("GET", f"{PATH}/mine", 200, "mine"),
        ("GET", link.removeprefix(it.sandbox.cdn_url).partition("?")[0], 200, "mine"),
        ("GET", "/nowhere\n", 404, None),
    ]
    lines = "\n".join(map(str, log))
    assert not re.search(f"{KEY}|ksSecret|A fox", lines)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S+ POST ", lines)
    assert len(lines.splitlines()) == len(log)


def test_request_is_read_as_json_text() -> None:
    """What a rule tells of itself is what it was made of."""
    texts = ["submit:429:every=5,retry-after=2", "download:cut:at=0.25", "query:shape:3"]
    plan = FaultPlan.from_strings(texts)
    rules = json.loads(json.dumps([rule.to_mapping() for rule in plan.rules]))
    assert FaultPlan.from_mapping(rules).rules == plan.rules
