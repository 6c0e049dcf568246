"""The shapes of a task, as the API's documentation and other people's fixtures show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch.job import FailureKind
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Found,
    NotFound,
    Refused,
    Saturated,
    Task,
    TaskStatus,
    Unavailable,
)
from batch.provider.wire import (
    SUBMIT_PATH,
    read_callback,
    read_query,
    read_submit,
    task_failure,
    task_path,
)

DATA = Path(__file__).parents[1] / "data" / "wire"


def payload(name: str) -> bytes:
    return (DATA / name).read_bytes()


def found(body: bytes | dict[str, Any]) -> Task:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = read_query(200, {}, raw, now=0.0)
    assert isinstance(answer, Found), answer
    return answer.task


@pytest.mark.parametrize(
    ("name", "task_id", "status"),
    [
        ("created.json", "822953089408827433", TaskStatus.SUBMITTED),
        ("created-success-word.json", "2032273942220931072", TaskStatus.SUBMITTED),
        ("bare.json", "822953089408827433", TaskStatus.SUBMITTED),
        ("data-only.json", "822953089408827433", TaskStatus.SUBMITTED),
        ("processing.json", "878106242831892487", TaskStatus.PROCESSING),
        ("succeed.json", "822953089408827433", TaskStatus.SUCCEEDED),
        ("failed.json", "833446756000000001", TaskStatus.FAILED),
        ("new-api.json", "842250903629086785", TaskStatus.SUCCEEDED),
    ],
)
def test_documented_shapes_are_the_same_task(name: str, task_id: str, status: TaskStatus) -> None:
    """As an answer to a POST and to a GET alike."""
    task = found(payload(name))
    assert (task.task_id, task.status) == (task_id, status)
    assert read_submit(200, {}, payload(name), resent=False, now=0.0) == Created(task)


def test_finished_task_tells_all_a_job_needs() -> None:
    """All that a job needs of it, with times in seconds."""
    task = found(payload("succeed.json"))
    assert task.url is not None
    assert task.url.endswith("&ksTime=694fa816")
    assert task.created_at == pytest.approx(1764235825.029)
    assert task.updated_at == pytest.approx(1764236054.436)
    assert task.request_id == "2bbcea36-0000-4000-8000-000000000000"
    assert task.message == ""


def test_failure_under_code_0_keeps_its_reason() -> None:
    """The envelope says SUCCEED; the reason is in task_status_msg."""
    task = found(payload("failed.json"))
    assert task.message == "Image pixel is invalid"
    assert task_failure(task).kind is FailureKind.INVALID_REQUEST


def test_failure_of_risk_control_is_moderation() -> None:
    """It is told only by its text; trying again would be charged again."""
    task = found(
        {
            "task_id": "8",
            "task_status": "failed",
            "task_status_msg": "Failure to pass the risk control system",
        }
    )
    assert task_failure(task).kind is FailureKind.MODERATION


def test_failure_without_a_reason_has_a_sentence() -> None:
    """No error is ever blank."""
    task = found({"code": 0, "message": "SUCCEED", "data": {"task_id": "8", "status": "FAILURE"}})
    assert task_failure(task).message


def test_innermost_link_of_a_wrapper_wins() -> None:
    """The wrapper's `result_url` is the second choice."""
    assert (
        found(payload("new-api.json")).url == "https://v16-kling-fdl.klingai.com/inner.mp4?sig=abc"
    )
    body = {
        "data": {"task_id": "8", "status": "SUCCESS", "result_url": "https://cdn.example/a.mp4"}
    }
    assert found(body).url == "https://cdn.example/a.mp4"


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("IN_PROGRESS", "processing", TaskStatus.PROCESSING),
        ("IN_PROGRESS", "failed", TaskStatus.PROCESSING),
        ("FAILURE", "failed", TaskStatus.FAILED),
        ("FAILURE", "new_word", TaskStatus.FAILED),
        ("FAILURE", "processing", TaskStatus.UNKNOWN),
        ("FAILURE", "submitted", TaskStatus.UNKNOWN),
        ("FAILURE", "succeed", TaskStatus.UNKNOWN),
        ("SUCCESS", "failed", TaskStatus.FAILED),
        ("success", "processing", TaskStatus.PROCESSING),
        ("SUCCESS", "succeed", TaskStatus.SUCCEEDED),
        ("UNHEARD_OF", "succeed", TaskStatus.SUCCEEDED),
        ("UNHEARD_OF", "new_word", TaskStatus.UNKNOWN),
    ],
)
def test_outer_status_yields_to_a_better_one(outer: str, inner: str, expected: TaskStatus) -> None:
    """A failure below a success is the truth; one above a living task is no verdict."""
    body = {"task_id": "8", "status": outer, "data": {"data": {"task_status": inner}}}
    assert found({"code": "success", "data": body}).status is expected


def test_video_below_a_failure_is_collected() -> None:
    """It is there, and paid for."""
    inner = {"task_status": "succeed", "task_result": {"videos": [{"url": "https://h/x.mp4"}]}}
    task = found({"data": {"task_id": "8", "status": "FAILURE", "data": {"data": inner}}})
    assert task.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("word", ["error", "fail", "failed", "FAILURE", "success", "in_progress"])
@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("processing", TaskStatus.PROCESSING),
        ("failed", TaskStatus.FAILED),
        ("new_word", TaskStatus.UNKNOWN),
    ],
)
@pytest.mark.parametrize("around", [{}, {"id": "req-1"}, {"message": "busy", "request_id": "r"}])
def test_bare_status_above_a_task_is_ignored(
    word: str, inner: str, expected: TaskStatus, around: dict[str, str]
) -> None:
    """A busy gateway's "failed", believed, would pay for a second task while the first one lives."""
    body = {**around, "status": word, "data": {"task_id": "8", "task_status": inner}}
    assert found(body).status is expected


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "gateway is busy", "data": {"task_id": "8"}},
        {"status": "failed", "message": "gateway is busy", "data": {"task_id": "8"}},
        {"status": "failed", "error": {"message": "busy"}, "data": {"task_id": "8"}},
        {"id": "req-1", "status": "failed", "message": "busy", "data": {"task_id": "8"}},
        {"status": "error", "message": "gateway timeout", "task_id": "8"},
        {"code": 500, "status": "failed", "message": "upstream busy", "task_id": "8"},
        {"code": 500, "message": "upstream busy", "data": {"task_id": "8", "status": "failed"}},
        {"id": "req-1", "status": "error", "message": "busy"},
    ],
)
def test_error_that_echoes_a_task_is_unavailable(body: dict[str, Any]) -> None:
    """Asking again costs nothing."""
    assert isinstance(read_query(200, {}, json.dumps(body).encode(), now=0.0), Unavailable)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "success", "data": {"task_id": "8", "status": "FAILURE", "fail_reason": "bad"}},
        {"id": "8", "status": "failed", "message": "bad"},
        {"id": "8", "status": "failed", "error": {"code": "bad", "message": "bad"}},
        {"code": 0, "data": {"id": "8", "status": "failed"}},
        {"task_id": "8", "status": "cancelled"},
        {
            "code": "success",
            "data": {"task_id": "8", "status": "SUCCESS", "data": {"id": "up", "status": "failed"}},
        },
    ],
)
def test_failure_beside_the_task_id_is_believed(body: dict[str, Any]) -> None:
    """new-api's and the newer API's way to say it."""
    assert found(body).status is TaskStatus.FAILED


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Succeed", TaskStatus.SUCCEEDED),
        ("SUCCEEDED", TaskStatus.SUCCEEDED),
        ("completed", TaskStatus.SUCCEEDED),
        ("done", TaskStatus.SUCCEEDED),
        ("Canceled", TaskStatus.FAILED),
        ("cancelled", TaskStatus.FAILED),
        ("error", TaskStatus.FAILED),
        ("In Progress", TaskStatus.PROCESSING),
        ("NOT_START", TaskStatus.SUBMITTED),
        ("rendering", TaskStatus.UNKNOWN),
    ],
)
def test_status_is_read_in_any_spelling(word: str, status: TaskStatus) -> None:
    """What is not known is asked for again, never taken for an end."""
    assert found({"task_id": "8", "task_status": word}).status is status


@pytest.mark.parametrize(
    "number", [822953089408827433, 2032273942220931073, 99999999999999999999999]
)
def test_numeric_id_keeps_every_digit(number: int) -> None:
    """They are beyond 2**53; ids are text everywhere else."""
    assert found({"task_id": number, "task_status": "submitted"}).task_id == str(number)


@pytest.mark.parametrize(
    "value",
    [
        8.2e17,
        True,
        0,
        -5,
        "",
        " ",
        "a b",
        "a/b",
        "a\\b",
        "..",
        "null",
        "x" * 129,
        "a\u202eb",
        "\ud800",
    ],
)
def test_impossible_id_is_no_task(value: object) -> None:
    """A path is made of it, and a lost digit would be somebody else's task."""
    body = json.dumps({"data": {"task_id": value, "task_status": "submitted"}}).encode()
    assert not isinstance(read_query(200, {}, body, now=0.0), Found)
    assert not isinstance(read_submit(200, {}, body, resent=False, now=0.0), Created)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x.mp4",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "//h/x.mp4",
        "https://h x/a",
        "https://h/a\nb",
        "https://[::1",
        "https://h:port/x",
        "https://h/" + "x" * 9000,
        17,
        None,
        ["h/x.mp4"],
    ],
)
def test_impossible_link_is_no_link(url: object) -> None:
    """The task is there all the same."""
    body = {"task_id": "8", "task_status": "succeed", "task_result": {"videos": [{"url": url}]}}
    assert found(body).url is None


@pytest.mark.parametrize(
    "result",
    [
        {},
        None,
        [],
        "x",
        3,
        {"videos": None},
        {"videos": []},
        {"videos": ["x", 1, None]},
        {"videos": {}},
    ],
)
def test_result_of_any_type_is_read(result: object) -> None:
    """Lists where objects belong, and the reverse."""
    task = found({"task_id": "8", "task_status": "succeed", "task_result": result})
    assert task.url is None
    assert task.status is TaskStatus.SUCCEEDED


def test_link_is_not_in_the_repr() -> None:
    """A repr ends up in logs and tracebacks."""
    assert "topsecret" not in repr(found(payload("succeed.json")))
    assert "http" not in repr(found(payload("succeed.json")))


def test_seconds_and_milliseconds_are_the_same() -> None:
    """new-api counts seconds; zero means not yet."""
    body = {"task_id": "8", "status": "SUCCESS", "submit_time": 1764235825, "finish_time": 0}
    task = found(body)
    assert (task.created_at, task.updated_at) == (1764235825.0, None)
    bads: list[object] = ["x", True, float("nan"), -1, 10**30, [], "9" * 5000]
    for bad in bads:
        assert found({"task_id": "8", "status": "done", "created_at": bad}).created_at is None


def test_nested_or_quoted_task_is_read() -> None:
    """Wrappers are stacked by gateways in front of gateways."""
    task: Any = {"task_id": "8", "task_status": "processing"}
    assert found({"data": {"data": {"data": task}}}).task_id == "8"
    assert found({"code": 0, "data": json.dumps(task)}).task_id == "8"
    assert found({"code": 0, "data": [task]}).task_id == "8"
    assert found(json.dumps(json.dumps(task)).encode()).task_id == "8"


def test_bad_encoding_does_not_hide_a_task() -> None:
    """The id is worth money, the message is not."""
    body = b'\xef\xbb\xbf{"message":"\xff\xfe","task_id":"8","task_status":"failed"}'
    assert found(body).task_id == "8"


def test_raw_line_end_does_not_hide_a_task() -> None:
    """Not allowed in JSON, and written by hand-made gateways all the same."""
    assert found(b'{"message":"a\nb","task_id":"8","task_status":"submitted"}').task_id == "8"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"data":' * 50_000,
        b'{"message":"' + b"{" * 100_000 + b'"}',
        b'{"code":' + b"9" * 10_000 + b"}",
        b'{"code":NaN,"data":Infinity}',
        b'{"code":1e999}',
        "{}".encode("utf-16"),
        b"\x00" * 100,
    ],
)
def test_json_bomb_is_no_task(body: bytes) -> None:
    """Nothing that a server sends raises."""
    assert not isinstance(read_submit(200, {}, body, resent=False, now=0.0), Created)
    assert not isinstance(read_query(200, {}, body, now=0.0), Found)
    assert read_callback(body) is None


def test_documented_errors_are_told_apart() -> None:
    """The payload files are a witness besides our own tables."""

    def submit(status: int, name: str) -> object:
        return read_submit(status, {}, payload(name), resent=False, now=0.0)

    assert isinstance(submit(429, "error-kling-1303.json"), Saturated)
    assert isinstance(submit(429, "error-new-api-1303.json"), Saturated)
    assert isinstance(submit(429, "error-kling-1102.json"), AccountRefused)
    assert isinstance(submit(500, "error-cometapi.json"), Refused)
    assert isinstance(submit(503, "error-cometapi-no-channel.json"), Refused)
    assert isinstance(submit(403, "error-waf.html"), AccountRefused)
    missing = read_query(400, {}, payload("error-new-api-not-exist.json"), now=0.0)
    assert isinstance(missing, NotFound)


def test_callback_is_read_in_every_form() -> None:
    """Many receivers wrongly look into `data` only."""
    bare = read_callback(payload("callback.json"))
    assert bare is not None
    assert (bare.task_id, bare.external_task_id) == ("822953089408827433", "kb-0001")
    assert bare.url == "https://cdn.example/video.mp4?sig=abc"
    enveloped = read_callback(payload("succeed.json"))
    assert enveloped is not None
    newer = read_callback(payload("callback-3x.json"))
    assert newer is not None
    assert (newer.task_id, newer.status) == ("1234567890", TaskStatus.SUCCEEDED)
    assert newer.updated_at == pytest.approx(1781080794.151)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"{}", b'{"task_id":"8"}', b'{"id":"8"}', b'{"status":"succeed"}']
)
def test_callback_without_task_or_status_is_none(body: bytes) -> None:
    """Without an id or a status there is nothing to be asked for."""
    assert read_callback(body) is None


def test_path_of_a_task_is_quoted() -> None:
    """An id can never lead to another path."""
    assert task_path("822953089408827433") == f"{SUBMIT_PATH}/822953089408827433"
    assert task_path("a/../b?c#d e") == f"{SUBMIT_PATH}/a%2F..%2Fb%3Fc%23d%20e"


@pytest.mark.parametrize("code", ["success", 0])
def test_failure_in_a_good_envelope_is_believed(code: object) -> None:
    """The relays' shape where the layer with the status does not repeat the task's id."""
    body = {
        "code": code,
        "data": {"status": "FAILURE", "fail_reason": "no", "data": {"task_id": "8"}},
    }
    answer = read_query(200, {}, json.dumps(body).encode(), now=0.0)
    assert isinstance(answer, Found)
    assert (answer.task.status, answer.task.message) == (TaskStatus.FAILED, "no")


OURS = {
    "task_id": "8",
    "task_status": "succeed",
    "task_info": {"external_task_id": "kb-8"},
    "task_result": {"videos": [{"id": "1", "url": "https://cdn.example/8.mp4"}]},
}
OTHER = {
    "task_id": "7",
    "task_status": "failed",
    "task_info": {"external_task_id": "kb-7"},
    "task_result": {"videos": []},
}
AS_RELAY = {
    "id": "8",
    "status": "SUCCESS",
    "external_task_id": "kb-8",
    "result_url": "https://x.y/8",
}


@pytest.mark.parametrize("asked", ["8", "kb-8"])
@pytest.mark.parametrize("ours", [OURS, AS_RELAY], ids=["kling", "relay"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tasks: tasks,
        lambda tasks: {"code": 0, "message": "SUCCEED", "data": tasks},
        lambda tasks: {"code": 0, "data": {"list": tasks, "total": 2}},
        lambda tasks: {"tasks": tasks},
        lambda tasks: {"code": "success", "data": {"data": {"Items": tasks}}},
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_ours_of_several_tasks_is_read(wrap: Any, ours: Any, place: int, asked: str) -> None:
    tasks = [OTHER, {"id": "8", "task_id": ["8"], "task_info": [8]}]
    tasks.insert(place, ours)
    body = json.dumps(wrap(tasks)).encode()
    answer = read_query(200, {}, body, now=0.0, asked=asked)
    assert isinstance(answer, Found), answer
    task = answer.task
    assert (task.task_id, task.external_task_id) == ("8", "kb-8")
    assert (task.status, task.url is None) == (TaskStatus.SUCCEEDED, False)


@pytest.mark.parametrize("tasks", [[OTHER, OTHER], [OURS, OURS], [OURS, {**OURS, "task_id": "9"}]])
def test_list_that_does_not_say_which_is_ours_is_not_read(tasks: list[Any]) -> None:
    body = json.dumps({"code": 0, "data": tasks}).encode()
    assert isinstance(read_query(200, {}, body, now=0.0, asked="kb-8"), Unavailable)


def test_failure_around_a_living_task_is_unknown() -> None:
    inner = {"task_id": "8", "task_status": "processing"}
    body = {"code": "success", "data": {"status": "FAILURE", "data": inner}}
    answer = read_query(200, {}, json.dumps(body).encode(), now=0.0)
    assert isinstance(answer, Found)
    assert answer.task.status is TaskStatus.UNKNOWN


# -- links in other places -------------------------------------------------------------------

LINK = "https://cdn.example/v.mp4?s=1"
PLACES: list[dict[str, Any]] = [
    {"fail_reason": LINK},
    {"url": LINK},
    {"video_url": LINK},
    {"videoUrl": LINK},
    {"metadata": {"url": LINK}},
    {"task_result": {"url": LINK}},
    {"task_result": {"video_url": LINK}},
    {"task_result": {"videos": [LINK]}},
    {"task_result": {"videos": [{"url": "", "watermark_url": LINK}]}},
    {"output": LINK},
    {"output": [LINK]},
    {"output": {"works": [{"video": {"resource": LINK}}]}},
    {"video": {"url": LINK}},
    {"resultJson": json.dumps({"resultUrls": [LINK]})},
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: json.dumps(place)[:40])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_link_of_a_success_is_found_anywhere(place: dict[str, Any], depth: int) -> None:
    body: dict[str, Any] = {"task_id": "8", "status": "SUCCESS", **place}
    for _ in range(depth):
        body = {"code": "success", "data": body}
    task = found(body)
    assert (task.status, task.url) == (TaskStatus.SUCCEEDED, LINK)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: json.dumps(place)[:40])
@pytest.mark.parametrize("status", ["failed", "processing", "unheard_of"])
def test_link_of_anything_else_is_ignored(place: dict[str, Any], status: str) -> None:
    task = found({"data": {"task_id": "8", "task_status": status, **place}})
    assert task.url is None
    inner = {"task_id": "8", "task_status": "failed", **place}
    task = found({"code": "success", "data": {"status": "SUCCESS", "data": inner}})
    assert (task.status, task.url) == (TaskStatus.FAILED, None)


def test_own_place_of_a_link_comes_first() -> None:
    other = "https://other.example/v.mp4"
    videos = [{"url": LINK, "watermark_url": other}]
    body = {"task_id": "8", "task_status": "succeed", "url": other, "fail_reason": other}
    assert found({**body, "task_result": {"videos": videos}}).url == LINK
    assert found({**body, "result_url": LINK}).url == LINK


@pytest.mark.parametrize(
    "place",
    [
        {"task_result": {"videos": [{"src": LINK, "cover_url": "https://h/a.mp4"}]}},
        {"task_result": {"videos": [{"poster": "https://h/a.jpg", "url": [LINK]}]}},
        {"task_result": {"videos": {"0": {"url": {"default": LINK}}}}},
        {"creations": [{"thumb": "https://h/a.mp4", "uri": LINK}]},
        {"video_urls": ["https://h/a.jpg", LINK]},
        {"files": [{"url": "https://h/a.png"}, {"link": LINK}]},
        {"assets": {"video": LINK}},
        {"works": [{"resource": {"resource": LINK, "height": 720}}]},
        {"url_without_watermark": LINK},
        {"resultJson": json.dumps({"download_links": [LINK]})},
        {"parent_video": {"url": "https://h/a.mp4"}, "mp4": LINK},
    ],
)
def test_link_of_a_success_is_found_under_any_name(place: dict[str, Any]) -> None:
    assert found({"data": {"task_id": "8", "task_status": "succeed", **place}}).url == LINK


TASK = {"task_id": "8", "task_status": "succeed", "task_result": {"videos": [{"url": LINK}]}}


@pytest.mark.parametrize(
    "body",
    [
        {"code": 0, "result": TASK},
        {"request_id": "r", "output": TASK},
        {"code": 0, "response": {"data": TASK}},
        {"code": 0, "data": {"task": TASK}},
        {"code": 0, "data": {"total": 1, "list": [TASK]}},
        {"task": {"id": "8", "status": "finished", "video": {"url": LINK}}},
        {"code": 0, "data": {"id": "8", "task_status": "TASK_STATUS_SUCCEED", "video_url": LINK}},
        {"code": 200, "data": {"taskId": "8", "state": "success", "video_url": LINK}},
        {"job_id": "8", "status": "Complete", "output": {"url": LINK}},
        {"job_id": "relay-1", "data": TASK},
        {
            "Code": 0,
            "Data": {
                "TaskId": "8",
                "TaskStatus": "Succeed",
                "TaskResult": {"Videos": [{"Url": LINK}]},
            },
        },
    ],
    ids=lambda body: json.dumps(body)[:40],
)
@pytest.mark.parametrize(
    "around", ["%s", ")]}',\n%s", "data: %s\n\n", "%s\n<!-- a relay -->", "cb(%s);"]
)
def test_task_is_found_in_any_envelope(body: dict[str, Any], around: str) -> None:
    task = found((around % json.dumps(body)).encode())
    assert (task.task_id, task.status, task.url) == ("8", TaskStatus.SUCCEEDED, LINK)


def submitted(body: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the id of the task that was created, and the one that may have been."""
    answer = read_submit(200, {}, json.dumps(body).encode(), resent=False, now=0.0)
    task_id = answer.task.task_id if isinstance(answer, Created) else None
    return task_id, answer.likely_id if isinstance(answer, Ambiguous) else None


@pytest.mark.parametrize(
    "body",
    [
        {"result": {"task_id": "8a"}},
        {"TaskId": "8a"},
        {"jobId": "8a", "status": "queued"},
        {"code": 0, "data": {"tasks": [{"task_id": "8a"}]}},
    ],
)
def test_id_of_a_new_task_is_found(body: dict[str, Any]) -> None:
    assert submitted(body) == ("8a", None)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "success", "message": "", "data": "8a"},
        {"code": 0, "description": "queued", "result": "8a"},
        {"code": 0, "message": "SUCCEED", "data": {"id": "8a", "created_at": 1}},
        {"id": "8a"},
        {"data": {"prediction_id": "8a"}},
        {"code": 0, "data": {"task_ids": ["8a"]}},
    ],
)
def test_id_that_is_not_named_is_a_guess(body: dict[str, Any]) -> None:
    """It may be a relay's own; a query tells."""
    assert submitted(body) == (None, "8a")


@pytest.mark.parametrize(
    "body",
    [
        {"code": "success", "data": "ok"},
        {"code": 4711, "data": "8a"},
        {"code": 0, "error": "busy", "data": {"id": "8a"}},
        {"error": "x", "response": json.dumps({"task_id": "8a"})},
    ],
)
def test_what_is_surely_another_id_is_no_guess(body: dict[str, Any]) -> None:
    assert submitted(body) == (None, None)


@pytest.mark.parametrize(
    "place",
    [
        {"fail_reason": f"see {LINK}"},
        {"task_result": {"videos": [{"cover_url": LINK}]}},
        {"links": ["https://h/a.jpg?x=.mp4"], "output": {"status_url": LINK}},
        {"task_info": {"parent_video": {"url": LINK}}},
        {"task_result": {"images": [{"url": LINK}]}},
        {"callback_url": LINK},
        {"metadata": {"note": LINK}},
        {"output": {"output": {"output": {"output": {"output": {"url": LINK}}}}}},
    ],
)
def test_other_links_of_a_success_are_no_result(place: dict[str, Any]) -> None:
    assert found({"task_id": "8", "task_status": "succeed", **place}).url is None


@pytest.mark.parametrize(
    "place", [{"videos": [{"url": "/v1/8/content?k=1"}]}, {"url": "/v1/8/content?k=1"}]
)
def test_path_is_a_link_at_the_base_url(place: dict[str, Any]) -> None:
    body = {"task_id": "8", "task_status": "succeed", "task_result": place}
    assert found(body).url == "/v1/8/content?k=1"
    assert found({**body, "task_status": "failed"}).url is None


def test_link_may_hold_blanks_and_raw_letters() -> None:
    link = "https://cdn.example/夜 1.mp4?s=%2F"
    videos = [{"url": link}]
    assert (
        found({"task_id": "8", "task_status": "succeed", "task_result": {"videos": videos}}).url
        == link
    )


# -- what is told of a status that is not believed -------------------------------------------


def test_unknown_status_is_told_with_its_reason() -> None:
    body = {"task_id": "8", "task_status": "paused", "task_status_msg": "quota review"}
    assert found(body).message == "the status 'paused' is not known: quota review"


def test_stale_failure_of_a_gateway_is_told() -> None:
    inner = {"task_id": "8", "task_status": "processing"}
    body = {"task_id": "8", "status": "FAILURE", "fail_reason": "polling failed", "data": inner}
    task = found({"code": "success", "data": body})
    assert task.status is TaskStatus.UNKNOWN
    assert task.message == (
        "the gateway says failure: polling failed; the task inside says processing"
    )
