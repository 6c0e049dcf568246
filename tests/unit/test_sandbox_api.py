from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox_desk import BODY, desk

from batch.sandbox.api import PATH, Request

# -- the plain road --------------------------------------------------------------------------------


def test_task_goes_from_submitted_to_succeed() -> None:
    """In the documented envelope, with an id that is a text and times in milliseconds."""
    api = desk()
    status, answer = api.post(external_task_id="mine-1")
    created = answer["data"]
    task_id = created["task_id"]
    seen = []
    for seconds in (0, 30, 300):
        api.moment = 1_800_000_000.0 + seconds
        seen.append(api.query(task_id)[1]["data"])

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


def test_link_looks_like_real_one() -> None:
    """Another origin, a path that ends in .mp4, and a signature that ends after thirty days."""
    api = desk()
    task_id = api.create()
    api.moment += 1000
    url = api.query(task_id)[1]["data"]["task_result"]["videos"][0]["url"]
    expires = int(url.rpartition("ksTime=")[2], 16)

    assert url.startswith("https://cdn.example/bs2/")
    assert url.partition("?")[0].endswith(".mp4")
    assert expires == api.moment + 30 * 86_400


def test_query_by_external_id_finds_task() -> None:
    """And counted as a look-up, not as a query."""
    api = desk()
    task_id = api.create(external_task_id="mine-1")
    status, answer = api.query("mine-1")

    assert (status, answer["data"]["task_id"]) == (200, task_id)
    assert (api.stats.lookups, api.stats.queries) == (1, 0)


def test_list_pages_newest_first() -> None:
    """Each account its own."""
    api = desk()
    ids = [api.create() for _ in range(5)]
    api.post(key="another")
    pages = [
        api.ask("GET", f"{PATH}?pageNum={page}&pageSize=2")[1]["data"] for page in (1, 2, 3, 4)
    ]
    status, _ = api.ask("GET", f"{PATH}?pageSize=501")

    assert [task["task_id"] for page in pages for task in page] == ids[::-1]
    assert status == 400


def test_missing_model_name_means_oldest_model() -> None:
    """`model` is accepted and ignored, as the real one does."""
    api = desk()
    api.create(model_name=None, model="kling-v3")

    assert api.tasks[0].model == "kling-v1"


def test_generation_time_follows_options_and_speed() -> None:
    """Half of the standard clips are done after the median; speed divides."""
    api = desk(median_s=60.0, speed=10.0)
    for _ in range(40):
        api.create()
    api.create(mode="pro", duration="10")
    tasks = api.tasks

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
def test_undocumented_value_is_refused(
    changes: dict[str, Any], status: int, code: int | str
) -> None:
    """With the documented status and code; nothing is created."""
    api = desk()
    got, answer = api.post(**changes)

    assert got == status
    assert answer.get("error", answer)["code"] == code
    assert (api.stats.created, api.stats.refused) == (0, 1)


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
def test_documented_value_is_accepted(changes: dict[str, Any]) -> None:
    """Unknown fields are ignored."""
    api = desk()
    api.create(**changes)


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, 1001), ("Bearer ", 1001), ("Basic abc", 1000), ("Bearer wrong", 1002)],
)
def test_wrong_key_is_refused(header: str | None, code: int) -> None:
    """The code says why."""
    api = desk(api_key="right")
    headers = {} if header is None else {"Authorization": header}

    answer, _ = api.api.answer(Request("POST", PATH, headers, json.dumps(BODY).encode()))

    assert (answer.status, json.loads(answer.body)["code"]) == (401, code)
    assert api.post(key="right")[0] == 200
    assert "right" not in repr(api.world.config)


def test_external_id_serves_once_per_account() -> None:
    """The second use is refused with 1201, and says why."""
    api = desk()
    api.create(external_task_id="mine")
    status, answer = api.post(external_task_id="mine")
    other_status, _ = api.post(key="another", external_task_id="mine")

    assert (status, answer["code"]) == (400, 1201)
    assert "external_task_id" in answer["message"]
    assert "exist" in answer["message"]
    assert other_status == 200


def test_account_sees_no_task_of_another() -> None:
    """Neither by task id nor by external id."""
    api = desk()
    task_id = api.create(external_task_id="mine")

    assert api.query(task_id, key="another")[0] == 404
    assert api.query("mine", key="another")[0] == 404


def test_full_account_is_refused_until_task_ends() -> None:
    """1303 under 429; a slot is held from submission to the end."""
    api = desk(max_parallel=2)
    statuses = [api.post()[0] for _ in range(3)]
    _, refused = api.post()
    api.moment += 1000
    later, _ = api.post()

    assert statuses == [200, 200, 429]
    assert refused["code"] == 1303
    assert later == 200
    assert api.stats.most_in_flight == 2


@pytest.mark.parametrize(
    ("style", "status", "code"), [("kling", 404, 1203), ("new-api", 400, "task_not_exist")]
)
def test_unknown_task_gets_configured_answer(style: str, status: int, code: int | str) -> None:
    """Which of them CometAPI gives is not known."""
    api = desk(not_found=style)
    got, answer = api.query("822953089408827433")

    assert (got, answer["code"]) == (status, code)


def test_fresh_task_stays_invisible_as_configured() -> None:
    """It exists all the same: its external id is taken."""
    api = desk(invisible_s=10.0)
    task_id = api.create(external_task_id="mine")
    before = [api.query(name)[0] for name in (task_id, "mine")]
    again, _ = api.post(external_task_id="mine")
    api.moment += 11
    after = [api.query(name)[0] for name in (task_id, "mine")]

    assert (before, again, after) == ([404, 404], 400, [200, 200])


def test_lookup_and_list_can_be_missing() -> None:
    """As they may be at CometAPI."""
    api = desk(lookup=False, list_tasks=False)
    task_id = api.create(external_task_id="mine")

    assert api.query("mine")[0] == 404
    assert api.query(task_id)[0] == 200
    assert api.ask("GET", PATH)[0] == 404


def test_wrong_method_path_or_body_is_refused() -> None:
    """1202 for a method, HTML for a path as at CometAPI, 1200 for a body."""
    api = desk()
    method = api.ask("DELETE", PATH + "/1")
    path = api.ask("GET", "/v1/videos/1")
    body = api.ask("POST", PATH, raw=b"{")
    array = api.ask("POST", PATH, body=[1])

    assert (method[0], method[1]["code"]) == (404, 1202)
    assert path[0] == 404
    assert path[1].startswith("<html>")
    assert (body[0], body[1]["code"]) == (400, 1200)
    assert (array[0], array[1]["code"]) == (400, 1200)
