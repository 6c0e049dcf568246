"""What an answer to a POST or a GET means: the table of the job's life, row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batch.job import FailureKind
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    NotFound,
    Refused,
    Saturated,
    Throttled,
    Unavailable,
)
from batch.provider.wire import read_query, read_submit

HTML = b"<html><body>502 Bad Gateway</body></html>"
NOW = 1_800_000_000.0


def kling(code: int | str, message: str = "no") -> bytes:
    return json.dumps({"code": code, "message": message, "request_id": "r-1"}).encode()


def comet(code: str, message: str = "no") -> bytes:
    error = {"message": f"{message} (request id: r-2)", "type": "comet_api_error", "code": code}
    return json.dumps({"error": error}).encode()


def new_api(inner: bytes | str) -> bytes:
    text = inner if isinstance(inner, str) else inner.decode()
    return json.dumps({"code": "fail_to_fetch_task", "message": text, "data": None}).encode()


def submit(status: int, body: bytes, *, resent: bool = False, **headers: str) -> Any:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return read_submit(status, named, body, resent=resent, now=NOW)


def query(status: int, body: bytes, **headers: str) -> Any:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return read_query(status, named, body, now=NOW)


TASK = b'{"data":{"task_id":"822953089408827433","task_status":"submitted"}}'

SUBMITS = [
    (200, TASK, Created),
    (201, TASK, Created),
    (500, TASK, Created),
    (429, TASK, Created),
    (200, b'{"code":5000,"data":{"task_id":"8","task_status":"failed"}}', Created),
    (200, b'{"status":"error","message":"busy","data":{"task_id":"8"}}', Created),
    (200, b'{"task_id":"8","status":"failed"}', Created),
    (200, b'{"id":"8","status":"submitted"}', Created),
    (200, b'{"id":"8","status":"new_word"}', Created),
    (200, b'{"id":"req_1","status":"error"}', Ambiguous),
    (200, b'{"id":"req_1","status":"failed"}', Ambiguous),
    (200, b'{"id":"req_1","status":"failed","data":{}}', Ambiguous),
    (429, kling(1302), Throttled),
    (200, kling(1302), Throttled),
    (429, kling("1302"), Throttled),
    (429, b"", Throttled),
    (429, HTML, Throttled),
    (429, comet(""), Throttled),
    (429, comet("rate_limit_exceeded", "slow down"), Throttled),
    (429, kling(1303), Saturated),
    (200, kling(1303), Saturated),
    (429, new_api(kling(1303)), Saturated),
    (400, new_api(kling(1303)), Saturated),
    (500, new_api(kling(1303)), Saturated),
    (429, comet("", kling(1303).decode()), Saturated),
    (429, comet("", "parallel task over resource pack limit"), Saturated),
    (400, kling(1201, "external_task_id already exists"), Exists),
    (400, kling(1201, "duplicate external_task_id"), Exists),
    (200, kling(1201, "external_task_id already exists"), Exists),
    (400, comet("invalid_request", "external_task_id already exists"), Exists),
    (409, comet("", "Duplicate external_task_id"), Exists),
    (400, kling(1201, "model is not supported"), Refused),
    (400, kling(1201, "voice does not exist"), Refused),
    (400, kling(1201, "model not exists"), Refused),
    (400, kling(1200), Refused),
    (400, comet("invalid_request"), Refused),
    (400, comet("", "what is this"), Refused),
    (400, b'{"detail":"duration must be 5 or 10"}', Refused),
    (400, comet("model_price_error"), Refused),
    (404, kling(1203), Refused),
    (404, kling(1202), Refused),
    (500, comet("invalid_request"), Refused),
    (503, comet("model_not_found"), Refused),
    (413, HTML, Refused),
    (422, b'{"detail":[{"msg":"x"}]}', Refused),
    (200, kling(1200), Refused),
    (400, kling(1300), Refused),
    (400, kling(1301), Refused),
    (401, b"", AccountRefused),
    (401, HTML, AccountRefused),
    (401, kling(1000), AccountRefused),
    (401, comet("invalid_request", "invalid token"), AccountRefused),
    (200, kling(1004), AccountRefused),
    (429, kling(1100), AccountRefused),
    (429, kling(1101), AccountRefused),
    (429, kling(1102, "Account balance not enough"), AccountRefused),
    (403, kling(1103), AccountRefused),
    (429, kling(1304), AccountRefused),
    (403, HTML, AccountRefused),
    (403, comet("insufficient_user_quota"), AccountRefused),
    (403, comet("invalid_request", "model not allowed"), AccountRefused),
    (402, b"", AccountRefused),
    (400, comet("", "insufficient user balance"), AccountRefused),
    (429, comet("", "Account balance not enough"), AccountRefused),
    (404, comet("", "Invalid URL (POST /v1/kling)"), AccountRefused),
    (301, HTML, AccountRefused),
    (302, b"", AccountRefused),
    (500, b"", Ambiguous),
    (500, kling(5000), Ambiguous),
    (503, kling(5001), Ambiguous),
    (504, kling(5002), Ambiguous),
    (500, kling(1200), Ambiguous),
    (500, kling(1201, "external_task_id exists"), Ambiguous),
    (502, comet("invalid_request"), Ambiguous),
    (500, comet("model_not_found"), Ambiguous),
    (503, comet("invalid_request"), Ambiguous),
    (500, new_api("connection reset"), Ambiguous),
    (502, HTML, Ambiguous),
    (524, HTML, Ambiguous),
    (200, HTML, Ambiguous),
    (404, HTML, Ambiguous),
    (400, HTML, Ambiguous),
    (400, b"", Ambiguous),
    (400, b"{}", Ambiguous),
    (404, b"not found", Ambiguous),
    (200, b"", Ambiguous),
    (200, b"{", Ambiguous),
    (200, b"[]", Ambiguous),
    (200, b"null", Ambiguous),
    (200, b'{"code":0,"message":"SUCCEED","data":{}}', Ambiguous),
    (200, b'{"code":0,"data":{"task_id":""}}', Ambiguous),
    (200, b'{"code":0,"data":{"task_id":null}}', Ambiguous),
    (200, b'{"code":0,"data":{"task_id":8.22953089408827e17}}', Ambiguous),
    (200, b'{"code":0,"data":{"task_id":"a b"}}', Ambiguous),
    (200, b'{"code":0,"data":{"task_id":"../x"}}', Ambiguous),
    (200, kling(4711, "who knows"), Ambiguous),
    (200, comet("", "who knows"), Ambiguous),
    (408, comet("", "timeout"), Ambiguous),
    (425, comet("", "too early"), Ambiguous),
    (400, comet("do_request_failed"), Ambiguous),
    (409, comet("", "Conflict: request is already being processed"), Ambiguous),
    (409, comet("conflict", "conflict"), Ambiguous),
    (444, comet("", "no response"), Ambiguous),
    (460, comet("", "client closed"), Ambiguous),
    (499, b'{"message":"client closed request"}', Ambiguous),
    (499, comet("", "upstream request timeout"), Ambiguous),
    (400, comet("", "upstream request timeout"), Ambiguous),
    (400, comet("", "context deadline exceeded"), Ambiguous),
    (400, comet("", "the request timed out"), Ambiguous),
    (404, comet("", "the request is being processed"), Ambiguous),
    (422, comet("", "Gateway Time-out"), Ambiguous),
    (400, comet("upstream_error", "no"), Ambiguous),
    (400, new_api("read: connection reset by peer"), Ambiguous),
    (400, comet("", "timed out while checking the content policy"), Ambiguous),
    (400, comet("", "upstream: insufficient balance"), AccountRefused),
    (400, comet("invalid_request", "timeout must be a number"), Refused),
    (400, kling(1200, "upstream"), Refused),
    (499, kling(1200, "bad"), Refused),
    (429, comet("", "upstream is overloaded"), Throttled),
]


@pytest.mark.parametrize(("status", "body", "expected"), SUBMITS)
def test_answer_to_a_post_follows_the_table(status: int, body: bytes, expected: type) -> None:
    """Each row is a row of job-life's table, in one of the shapes in which it may come."""
    assert type(submit(status, body)) is expected


@pytest.mark.parametrize("status", [200, 400])
def test_1201_of_a_resent_id_exists(status: int) -> None:
    """The text of a 1201 is not needed where this very id went out before."""
    assert isinstance(submit(status, kling(1201, "bad value"), resent=True), Exists)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (kling(1301, "risk"), FailureKind.MODERATION),
        (kling(1300), FailureKind.MODERATION),
        (comet("", "the prompt violates our content policy"), FailureKind.MODERATION),
        (kling(1200), FailureKind.INVALID_REQUEST),
    ],
)
def test_moderation_is_told_from_a_bad_request(body: bytes, kind: FailureKind) -> None:
    """Moderation is never tried again, and the person must change the prompt."""
    answer = submit(400, body)
    assert isinstance(answer, Refused)
    assert answer.failure.kind is kind


def test_failure_carries_code_status_and_request_id() -> None:
    """They are what the provider's support asks for."""
    failure = submit(400, comet("invalid_request", "model name is required")).failure
    assert failure.code == "invalid_request"
    assert failure.http_status == 400
    assert failure.request_id == "r-2"
    assert failure.message == "model name is required"


def test_inner_code_of_a_wrapped_error_counts() -> None:
    """new-api puts the upstream's answer, as text, into its own message."""
    failure = submit(429, new_api(kling(1303, "parallel task"))).failure
    assert (failure.code, failure.message, failure.request_id) == ("1303", "parallel task", "r-1")


def test_braces_in_a_message_are_text() -> None:
    """A provider that quotes the prompt must not lose its message."""
    failure = submit(400, comet("invalid_request", "bad value {} in camera_control")).failure
    assert failure.message == "bad value {} in camera_control"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (502, HTML, "HTML"),
        (200, b"", "empty"),
        (200, b"{}", "task id"),
        (200, b"hello", "JSON"),
        (301, b"", "base URL"),
    ],
)
def test_failure_without_words_gets_some(status: int, body: bytes, words: str) -> None:
    """No error is ever blank."""
    assert words in submit(status, body).failure.message


@pytest.mark.parametrize("body", [kling(1302), kling(1303)])
def test_retry_after_is_read_in_any_case(body: bytes) -> None:
    """Header names have no case; a plain dict has."""
    assert submit(429, body, RETRY_AFTER="7").retry_after_s == 7
    assert submit(429, body).retry_after_s is None


def test_request_id_may_come_in_a_header() -> None:
    """Where the body has none."""
    assert submit(502, HTML, X_Request_Id="h-1").failure.request_id == "h-1"


@pytest.mark.parametrize("status", [400, 500])
def test_error_with_its_own_id_is_no_task(status: int) -> None:
    """`id` beside a status is a task in the newer API, but only in an answer that claims success."""
    body = b'{"id":"err-1","status":"error","error":{"message":"no"}}'
    assert not isinstance(submit(status, body), Created)


def test_task_inside_an_error_is_not_ours() -> None:
    """Its id is the upstream's, and means nothing to the gateway that we ask."""
    assert not isinstance(submit(500, new_api(TASK)), Created)


QUERIES = [
    (200, TASK, Found),
    (200, b'{"code":0,"data":{"task_id":"8"}}', Found),
    (404, kling(1203), NotFound),
    (404, comet("", "no such task"), NotFound),
    (400, b'{"code":"task_not_exist","message":"task_not_exist","data":null}', NotFound),
    (200, kling(1203), NotFound),
    (200, b'{"code":1203,"message":"no","data":{"task_id":"8"}}', NotFound),
    (401, b"", AccountRefused),
    (401, kling(1002), AccountRefused),
    (200, kling(1004), AccountRefused),
    (403, kling(1103), AccountRefused),
    (403, comet("", "forbidden"), AccountRefused),
    (403, HTML, Unavailable),
    (403, comet("insufficient_user_quota"), Unavailable),
    (403, comet("", "insufficient balance"), Unavailable),
    (429, kling(1102), Unavailable),
    (429, kling(1302), Unavailable),
    (429, kling(1303), Unavailable),
    (429, kling(1002), Unavailable),
    (404, HTML, Unavailable),
    (404, b"", Unavailable),
    (404, b"{}", Unavailable),
    (404, comet("", "Invalid URL (GET /v1/kling)"), Unavailable),
    (500, TASK, Unavailable),
    (500, kling(1203), Unavailable),
    (503, b"", Unavailable),
    (524, HTML, Unavailable),
    (200, HTML, Unavailable),
    (200, b"", Unavailable),
    (200, b'{"code":0,"message":"SUCCEED","data":[]}', Unavailable),
    (200, b'{"code":0,"data":{"task_status":"succeed"}}', Unavailable),
    (301, b"", Unavailable),
    (400, comet("", "what is this"), Unavailable),
]


@pytest.mark.parametrize(("status", "body", "expected"), QUERIES)
def test_answer_to_a_get_follows_the_table(status: int, body: bytes, expected: type) -> None:
    """Absence is believed only when the API itself says it; all else costs only time."""
    assert type(query(status, body)) is expected


def test_unavailable_answer_tells_kind_and_wait() -> None:
    """Too fast is told apart from broken, for the statistics and the pause."""
    answer = query(429, b"", Retry_After="3")
    assert (answer.failure.kind, answer.retry_after_s) == (FailureKind.RATE_LIMITED, 3)
    assert query(502, HTML).failure.kind is FailureKind.PROVIDER
