from __future__ import annotations

import pytest
from sandbox_desk import desk

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
def test_task_fails_behind_code_zero(kind: str, message: str, by_word: bool) -> None:
    """By a rule or by a word in the prompt; the reason is only in `task_status_msg`."""
    rules = () if by_word else (f"outcome:{kind}",)
    api = desk(*rules)
    task_id = api.create(prompt=f"sandbox:{kind}" if by_word else "A fox")
    api.moment += 1000
    status, answer = api.query(task_id)

    assert (status, answer["code"], answer["message"]) == (200, 0, "SUCCEED")
    assert answer["data"]["task_status"] == "failed"
    assert answer["data"]["task_status_msg"] == message
    assert answer["data"]["task_result"] == {}


def test_stuck_task_never_ends() -> None:
    """And keeps its slot."""
    api = desk("outcome:stuck:first=1", max_parallel=1)
    task_id = api.create()
    api.moment += 86_400
    _, answer = api.query(task_id)
    status, _ = api.post()

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
def test_submission_is_refused_on_request(kind: str, status: int, code: int | str) -> None:
    """In the envelope of Kling, CometAPI or the relay; nothing is created."""
    api = desk(f"submit:{kind}:first=1")
    got, answer = api.post()

    assert (got, answer.get("error", answer)["code"]) == (status, code)
    assert api.stats.created == 0
    assert api.post()[0] == 200


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
def test_answer_leaves_creation_open(kind: str, status: int, created: int) -> None:
    """It does not say whether there is a task."""
    api = desk(f"submit:{kind}")

    got, body = api.post()

    assert (got, api.stats.created) == (status, created)
    assert kind == "500-after" or isinstance(body, str)


@pytest.mark.parametrize("shape", [1, 2, 3, 4, 5])
def test_success_comes_in_five_shapes(shape: int) -> None:
    """All that were seen at CometAPI, for creation and for queries."""
    api = desk(f"submit:shape:{shape}", f"query:shape:{shape}")
    _, created = api.post()
    task_id = api.tasks[0].task_id
    api.moment += 1000
    _, answer = api.query(task_id)

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


def test_task_ids_come_as_numbers() -> None:
    """Which a client must not take for floats."""
    api = desk("submit:numeric-ids")
    _, answer = api.post()

    assert answer["data"]["task_id"] == int(api.tasks[0].task_id)


@pytest.mark.parametrize(
    ("kind", "status", "has_url"),
    [
        ("unknown-status", "paused_for_review", False),
        ("backwards", "submitted", False),
        ("no-url", "succeed", False),
        ("failed", "failed", False),
    ],
)
def test_query_lies_once_on_request(kind: str, status: str, has_url: bool) -> None:
    """Once; the next one tells the truth."""
    api = desk(f"query:{kind}:first=1")
    task_id = api.create()
    api.moment += 1000
    lie, truth = [api.query(task_id)[1]["data"] for _ in range(2)]

    assert lie["task_status"] == status
    assert bool(lie["task_result"]) is has_url
    assert truth["task_status"] == "succeed"


def test_query_misses_task_once_on_request() -> None:
    """As behind a replica that lags."""
    api = desk("query:404:per_task=1", "lookup:task_not_exist:per_task=1")
    task_id = api.create(external_task_id="mine")

    assert [api.query(task_id)[0] for _ in range(2)] == [404, 200]
    assert [api.query("mine")[0] for _ in range(2)] == [400, 200]
