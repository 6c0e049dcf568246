from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve

PATH = "/kling/v1/videos/text2video"
BODY: dict[str, Any] = {
    "prompt": "A fox walks through tall grass",
    "model_name": "kling-v2-6",
    "mode": "std",
    "duration": "5",
}


class Hands:
    """A client of the plainest kind, and a clock that stands still."""

    def __init__(self) -> None:
        self.moment = 1_800_000_000.0
        self.session: aiohttp.ClientSession
        self.sandbox: Sandbox

    def now(self) -> float:
        return self.moment

    async def ask(
        self, method: str, path: str, *, key: str | None = "k", **options: Any
    ) -> tuple[int, Any]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = self.sandbox.base_url + path
        async with self.session.request(
            method, url, headers=headers, allow_redirects=False, **options
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def post(self, key: str | None = "k", **changes: Any) -> tuple[int, Any]:
        body = {name: value for name, value in {**BODY, **changes}.items() if value is not None}
        return await self.ask("POST", PATH, key=key, json=body)

    async def create(self, **changes: Any) -> str:
        status, answer = await self.post(**changes)
        assert status == 200, answer
        task_id: str = answer["data"]["task_id"]
        return task_id

    async def query(self, reference: str, key: str = "k") -> tuple[int, Any]:
        return await self.ask("GET", f"{PATH}/{reference}", key=key)


@asynccontextmanager
async def hands(*faults: str, **options: Any) -> AsyncIterator[Hands]:
    made = Hands()
    config = SandboxConfig(seed=1, faults=FaultPlan.from_strings(faults), **options)
    async with serve(config, now=made.now) as made.sandbox, aiohttp.ClientSession() as made.session:
        yield made


# -- the plain road --------------------------------------------------------------------------------


async def test_task_goes_from_submitted_to_succeed() -> None:
    """In the documented envelope, with an id that is a text and times in milliseconds."""
    async with hands() as api:
        status, answer = await api.post(external_task_id="mine-1")
        created = answer["data"]
        task_id = created["task_id"]
        seen = []
        for seconds in (0, 30, 300):
            api.moment = 1_800_000_000.0 + seconds
            seen.append((await api.query(task_id))[1]["data"])

    assert status == 200
    assert answer["code"] == 0
    assert answer["message"] == "SUCCEED"
    assert answer["request_id"]
    assert isinstance(task_id, str)
    assert 18 <= len(task_id) <= 19
    assert created["created_at"] == 1_800_000_000_000
    assert "task_result" not in created
    assert [task["task_status"] for task in seen] == ["submitted", "processing", "succeed"]
    assert seen[1]["task_result"] == {}
    assert seen[2]["task_result"]["videos"][0]["duration"] == "5.04"
    assert seen[2]["task_info"] == {"external_task_id": "mine-1"}
    assert seen[2]["updated_at"] > seen[2]["created_at"]


async def test_link_looks_like_real_one() -> None:
    """Another origin, a path that ends in .mp4, and a signature that ends after thirty days."""
    async with hands() as api:
        task_id = await api.create()
        api.moment += 1000
        url = (await api.query(task_id))[1]["data"]["task_result"]["videos"][0]["url"]
        expires = int(url.rpartition("ksTime=")[2], 16)

        assert url.startswith(api.sandbox.cdn_url + "/bs2/")
        assert api.sandbox.cdn_url != api.sandbox.base_url
        assert url.partition("?")[0].endswith(".mp4")
        assert expires == api.moment + 30 * 86_400


async def test_query_by_external_id_finds_task() -> None:
    """And counted as a look-up, not as a query."""
    async with hands() as api:
        task_id = await api.create(external_task_id="mine-1")
        status, answer = await api.query("mine-1")

        assert (status, answer["data"]["task_id"]) == (200, task_id)
        assert (api.sandbox.stats.lookups, api.sandbox.stats.queries) == (1, 0)


async def test_list_pages_newest_first() -> None:
    """Each account its own."""
    async with hands() as api:
        ids = [await api.create() for _ in range(5)]
        await api.post(key="another")
        pages = [
            (await api.ask("GET", f"{PATH}?pageNum={page}&pageSize=2"))[1]["data"]
            for page in (1, 2, 3, 4)
        ]
        status, _ = await api.ask("GET", f"{PATH}?pageSize=501")

    assert [task["task_id"] for page in pages for task in page] == ids[::-1]
    assert status == 400


async def test_missing_model_name_means_oldest_model() -> None:
    """`model` is accepted and ignored, as the real one does."""
    async with hands() as api:
        await api.create(model_name=None, model="kling-v3")

        assert api.sandbox.tasks[0].model == "kling-v1"


async def test_generation_time_follows_options_and_speed() -> None:
    """Half of the standard clips are done after the median; speed divides."""
    async with hands(median_s=60.0, speed=10.0) as api:
        for _ in range(40):
            await api.create()
        await api.create(mode="pro", duration="10")
        tasks = api.sandbox.tasks

    times = sorted((task.finished_at or 0) - task.created_at for task in tasks[:40])
    assert 4.5 < times[20] < 8
    assert times[0] < times[20] < times[-1]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"prompt": None}, 400, 1201),
        ({"prompt": "  "}, 400, 1201),
        ({"prompt": 5}, 400, 1201),
        ({"prompt": "x" * 2501}, 400, 1201),
        ({"negative_prompt": "x" * 2501}, 400, 1201),
        ({"duration": 5}, 400, 1201),
        ({"duration": "7"}, 400, 1201),
        ({"mode": "standard"}, 400, 1201),
        ({"aspect_ratio": "21:9"}, 400, 1201),
        ({"sound": True}, 400, 1201),
        ({"sound": "on"}, 400, 1201),
        ({"cfg_scale": 1.5}, 400, 1201),
        ({"cfg_scale": "0.5"}, 400, 1201),
        ({"callback_url": "ftp://x"}, 400, 1201),
        ({"camera_control": {"type": "simple"}}, 400, 1201),
        ({"camera_control": {"type": "simple", "config": {"pan": 1, "zoom": 1}}}, 400, 1201),
        ({"camera_control": {"type": "simple", "config": {"pan": 11}}}, 400, 1201),
        ({"camera_control": {"type": "down_back", "config": {"pan": 1}}}, 400, 1201),
        ({"camera_control": {"type": "sideways"}}, 400, 1201),
        ({"camera_control": "zoom"}, 400, 1201),
        ({"model_name": "kling-v2-1"}, 400, 1201),
        ({"model_name": "kling-v2.6"}, 503, "model_not_found"),
        ({"prompt": "sandbox:policy"}, 400, 1300),
        ({"prompt": "sandbox:unsafe"}, 400, 1301),
    ],
)
async def test_undocumented_value_is_refused(
    changes: dict[str, Any], status: int, code: int | str
) -> None:
    """With the documented status and code; nothing is created."""
    async with hands() as api:
        got, answer = await api.post(**changes)

        assert got == status
        assert answer.get("error", answer)["code"] == code
        assert (api.sandbox.stats.created, api.sandbox.stats.refused) == (0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"sound": "on", "mode": "pro"},
        {"model_name": "kling-v3", "duration": "15", "mode": "4k", "sound": "on"},
        {"camera_control": {"type": "simple", "config": {"horizontal": 0, "zoom": -10}}},
        {"camera_control": {"type": "forward_up"}},
        {"cfg_scale": 1, "aspect_ratio": "2:3", "negative_prompt": "text"},
        {"model_name": "kling-v2-master", "mode": None},
        {"multi_shot": True, "prompt": None, "model_name": "kling-v3"},
        {"something_new": {"a": 1}},
    ],
)
async def test_documented_value_is_accepted(changes: dict[str, Any]) -> None:
    """Unknown fields are ignored."""
    async with hands() as api:
        await api.create(**changes)


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, 1001), ("Bearer ", 1001), ("Basic abc", 1000), ("Bearer wrong", 1002)],
)
async def test_wrong_key_is_refused(header: str | None, code: int) -> None:
    """The code says why."""
    async with hands(api_key="right") as api:
        headers = {} if header is None else {"Authorization": header}
        url = api.sandbox.base_url + PATH
        async with api.session.post(url, headers=headers, json=BODY) as answer:
            assert answer.status == 401
            assert (await answer.json())["code"] == code
        assert (await api.post(key="right"))[0] == 200
        assert "right" not in repr(api.sandbox.config)


async def test_external_id_serves_once_per_account() -> None:
    """The second use is refused with 1201, and says why."""
    async with hands() as api:
        await api.create(external_task_id="mine")
        status, answer = await api.post(external_task_id="mine")
        other_status, _ = await api.post(key="another", external_task_id="mine")

    assert (status, answer["code"]) == (400, 1201)
    assert "external_task_id" in answer["message"]
    assert "exist" in answer["message"]
    assert other_status == 200


async def test_account_sees_no_task_of_another() -> None:
    """Neither by task id nor by external id."""
    async with hands() as api:
        task_id = await api.create(external_task_id="mine")

        assert (await api.query(task_id, key="another"))[0] == 404
        assert (await api.query("mine", key="another"))[0] == 404


async def test_full_account_is_refused_until_task_ends() -> None:
    """1303 under 429; a slot is held from submission to the end."""
    async with hands(max_parallel=2) as api:
        statuses = [(await api.post())[0] for _ in range(3)]
        _, refused = await api.post()
        api.moment += 1000
        later, _ = await api.post()

        assert statuses == [200, 200, 429]
        assert refused["code"] == 1303
        assert later == 200
        assert api.sandbox.stats.most_in_flight == 2


@pytest.mark.parametrize(
    ("style", "status", "code"), [("kling", 404, 1203), ("new-api", 400, "task_not_exist")]
)
async def test_unknown_task_gets_configured_answer(
    style: str, status: int, code: int | str
) -> None:
    """Which of them CometAPI gives is not known."""
    async with hands(not_found=style) as api:
        got, answer = await api.query("822953089408827433")

    assert (got, answer["code"]) == (status, code)


async def test_fresh_task_stays_invisible_as_configured() -> None:
    """It exists all the same: its external id is taken."""
    async with hands(invisible_s=10.0) as api:
        task_id = await api.create(external_task_id="mine")
        before = [(await api.query(name))[0] for name in (task_id, "mine")]
        again, _ = await api.post(external_task_id="mine")
        api.moment += 11
        after = [(await api.query(name))[0] for name in (task_id, "mine")]

    assert (before, again, after) == ([404, 404], 400, [200, 200])


async def test_lookup_and_list_can_be_missing() -> None:
    """As they may be at CometAPI."""
    async with hands(lookup=False, list_tasks=False) as api:
        task_id = await api.create(external_task_id="mine")

        assert (await api.query("mine"))[0] == 404
        assert (await api.query(task_id))[0] == 200
        assert (await api.ask("GET", PATH))[0] == 404


async def test_wrong_method_path_or_body_is_refused() -> None:
    """1202 for a method, HTML for a path as at CometAPI, 1200 for a body."""
    async with hands() as api:
        method = await api.ask("DELETE", PATH + "/1")
        path = await api.ask("GET", "/v1/videos/1")
        body = await api.ask("POST", PATH, data=b"{")
        array = await api.ask("POST", PATH, json=[1])

    assert (method[0], method[1]["code"]) == (404, 1202)
    assert path[0] == 404
    assert path[1].startswith("<html>")
    assert (body[0], body[1]["code"]) == (400, 1200)
    assert (array[0], array[1]["code"]) == (400, 1200)


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("moderation", "Failure to pass the risk control system"),
        ("generation", "generation error"),
        ("empty-failure", ""),
    ],
)
@pytest.mark.parametrize("by_word", [True, False])
async def test_task_fails_behind_code_zero(kind: str, message: str, by_word: bool) -> None:
    """By a rule or by a word in the prompt; the reason is only in `task_status_msg`."""
    rules = () if by_word else (f"outcome:{kind}",)
    async with hands(*rules) as api:
        task_id = await api.create(prompt=f"sandbox:{kind}" if by_word else "A fox")
        api.moment += 1000
        status, answer = await api.query(task_id)

    assert (status, answer["code"], answer["message"]) == (200, 0, "SUCCEED")
    assert answer["data"]["task_status"] == "failed"
    assert answer["data"]["task_status_msg"] == message
    assert answer["data"]["task_result"] == {}


async def test_stuck_task_never_ends() -> None:
    """And keeps its slot."""
    async with hands("outcome:stuck:first=1", max_parallel=1) as api:
        task_id = await api.create()
        api.moment += 86_400
        _, answer = await api.query(task_id)
        status, _ = await api.post()

    assert (answer["data"]["task_status"], status) == ("processing", 429)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("429", 429, 1302),
        ("1303", 429, 1303),
        ("1102", 429, 1102),
        ("1304", 429, 1304),
        ("1103", 403, 1103),
        ("401", 401, 1002),
        ("quota", 403, "insufficient_user_quota"),
        ("500", 500, ""),
        ("500-invalid", 500, "invalid_request"),
        ("5002", 504, 5002),
        ("new-api-1303", 429, "fail_to_fetch_task"),
    ],
)
async def test_submission_is_refused_on_request(kind: str, status: int, code: int | str) -> None:
    """In the envelope of Kling, CometAPI or the relay; nothing is created."""
    async with hands(f"submit:{kind}:first=1") as api:
        got, answer = await api.post()

        assert (got, answer.get("error", answer)["code"]) == (status, code)
        assert api.sandbox.stats.created == 0
        assert (await api.post())[0] == 200


@pytest.mark.parametrize(
    ("kind", "status", "created"),
    [
        ("502-html", 502, 0),
        ("524", 524, 0),
        ("waf", 403, 0),
        ("301", 301, 0),
        ("500-after", 500, 1),
        ("504-after", 504, 1),
        ("empty-2xx", 200, 1),
        ("garbled-2xx", 200, 1),
        ("html-2xx", 200, 1),
    ],
)
async def test_answer_leaves_creation_open(kind: str, status: int, created: int) -> None:
    """Whether a task was made cannot be told from it."""
    async with hands(f"submit:{kind}") as api:
        url = api.sandbox.base_url + PATH
        headers = {"Authorization": "Bearer k"}
        async with api.session.post(url, json=BODY, headers=headers, allow_redirects=False) as got:
            text = await got.text()

        assert got.status == status
        assert api.sandbox.stats.created == created
        if kind != "500-after":
            with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
                json.loads(text)


@pytest.mark.parametrize(
    ("kind", "created"),
    [("drop-before", 0), ("drop-after", 1), ("truncated", 1), ("hang", 0), ("hang-after", 1)],
)
async def test_answer_does_not_come(kind: str, created: int) -> None:
    """Dropped, cut in half, or never sent; the sandbox still closes at once."""
    async with hands(f"submit:{kind}") as api:
        timeout = aiohttp.ClientTimeout(total=0.05)
        with pytest.raises((aiohttp.ClientError, TimeoutError, ConnectionError)):
            await api.ask("POST", PATH, json=BODY, timeout=timeout)

        assert api.sandbox.stats.created == created


async def test_retry_after_is_sent_on_request() -> None:
    """It is not documented, so by default it is not there."""
    async with hands("submit:429:first=1,retry-after=2", "submit:1303") as api:
        seen = []
        for _ in range(2):
            url = api.sandbox.base_url + PATH
            headers = {"Authorization": "Bearer k"}
            async with api.session.post(url, json=BODY, headers=headers) as got:
                seen.append(got.headers.get("Retry-After"))

    assert seen == ["2", None]


@pytest.mark.parametrize("shape", [1, 2, 3, 4, 5])
async def test_success_comes_in_five_shapes(shape: int) -> None:
    """All that were seen at CometAPI, for creation and for queries."""
    async with hands(f"submit:shape:{shape}", f"query:shape:{shape}") as api:
        _, created = await api.post()
        task_id = api.sandbox.tasks[0].task_id
        api.moment += 1000
        _, answer = await api.query(task_id)

    for value in (created, answer):
        assert ("data" in value) is (shape != 3)
        assert ("code" in value) is (shape not in (3, 4))
        assert ("request_id" in value) is (shape == 1)
        assert (value["data"] if shape != 3 else value)["task_id"] == task_id
    if shape == 5:
        assert answer["code"] == "success"
        assert answer["data"]["status"] == "SUCCESS"
        assert answer["data"]["data"]["data"]["task_status"] == "succeed"
        assert answer["data"]["result_url"].startswith("http")


async def test_task_ids_come_as_numbers() -> None:
    """Which a client must not take for floats."""
    async with hands("submit:numeric-ids") as api:
        _, answer = await api.post()

        assert answer["data"]["task_id"] == int(api.sandbox.tasks[0].task_id)


@pytest.mark.parametrize(
    ("kind", "status", "has_url"),
    [
        ("unknown-status", "paused_for_review", False),
        ("backwards", "submitted", False),
        ("no-url", "succeed", False),
        ("failed", "failed", False),
    ],
)
async def test_query_lies_once_on_request(kind: str, status: str, has_url: bool) -> None:
    """Once; the next one tells the truth."""
    async with hands(f"query:{kind}:first=1") as api:
        task_id = await api.create()
        api.moment += 1000
        lie, truth = [(await api.query(task_id))[1]["data"] for _ in range(2)]

    assert lie["task_status"] == status
    assert bool(lie["task_result"]) is has_url
    assert truth["task_status"] == "succeed"


async def test_query_misses_task_once_on_request() -> None:
    """As behind a replica that lags."""
    async with hands("query:404:per_task=1", "lookup:task_not_exist:per_task=1") as api:
        task_id = await api.create(external_task_id="mine")

        assert [(await api.query(task_id))[0] for _ in range(2)] == [404, 200]
        assert [(await api.query("mine"))[0] for _ in range(2)] == [400, 200]


# -- memory and its own pages ----------------------------------------------------------------------


async def test_tasks_survive_death_of_server(tmp_path: Path) -> None:
    """With their ids, their times and their owner; a line torn by the kill is passed over."""
    journal = tmp_path / "deep" / "journal.jsonl"
    async with hands(journal=journal) as api:
        first = await api.create(external_task_id="mine", prompt="Ein Füchslein")
        finished_at = api.sandbox.tasks[0].finished_at
    with journal.open("a") as file:
        file.write('{"number": 2, "task_')
    async with hands(journal=journal) as api:
        duplicate, _ = await api.post(external_task_id="mine")
        second = await api.create()
        _, answer = await api.query("mine")
        assert api.sandbox.tasks[0].finished_at == finished_at
    async with hands(journal=journal) as api:
        ids = [task.task_id for task in api.sandbox.tasks]

    assert (duplicate, answer["data"]["task_id"]) == (400, first)
    assert ids == [first, second]
    assert first != second


async def test_journal_holds_no_key(tmp_path: Path) -> None:
    """An account is known by a hash of it."""
    journal = tmp_path / "journal.jsonl"
    async with hands(journal=journal) as api:
        await api.post(key="sk-secret")

    assert "sk-secret" not in journal.read_text()


async def test_statistics_are_served_without_key() -> None:
    """Another process can read which tasks were paid for."""
    async with hands() as api:
        task_id = await api.create(external_task_id="mine")
        await api.query(task_id)
        api.moment += 5
        await api.query(task_id)
        await api.post(duration="9")
        status, stats = await api.ask("GET", "/sandbox/stats", key=None)

        assert api.sandbox.stats.closest_queries_s() == 5
        assert api.sandbox.stats.queries_per_task == {task_id: 2}
    assert status == 200
    assert (stats["posts"], stats["created"], stats["refused"], stats["queries"]) == (2, 1, 1, 2)
    assert stats["post_times"] == [1_800_000_000.0, 1_800_000_005.0]
    assert stats["tasks"][0]["task_id"] == task_id
    assert stats["tasks"][0]["body"]["external_task_id"] == "mine"
    assert stats["tasks"][0]["queries"] == 2


async def test_fault_plan_is_replaced_over_http() -> None:
    """And a plan that makes no sense is refused, the old one stays."""
    async with hands() as api:
        good = await api.ask("POST", "/sandbox/faults", json={"rules": ["submit:500"]})
        bad = await api.ask("POST", "/sandbox/faults", json=["submit:nonsense"])
        hit, _ = await api.post()
        await api.ask("POST", "/sandbox/faults", json=[])
        missed, _ = await api.post()

    assert (good[0], bad[0]) == (200, 400)
    assert "nonsense" in bad[1]["error"]
    assert (hit, missed) == (500, 200)
