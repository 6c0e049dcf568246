"""Whatever a server sends: no crash, no task from nothing, and no second payment."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    Refused,
    Throttled,
)
from batch.provider.wire import read_callback, read_query, read_submit, task_path

LARGE = 256 * 1024
PATIENCE_S = 5.0  # of CPU: none needs half a second, and what grows with the square half a minute

KEYS = st.sampled_from(
    (
        *("code", "message", "error", "data", "task_id", "id", "task_status", "status"),
        *("request_id", "task_result", "videos", "url", "duration", "result_url", "created_at"),
        *("task_info", "external_task_id", "task_status_msg", "fail_reason", "detail", "outputs"),
    )
)
WORDS = st.sampled_from(
    (
        *("succeed", "SUCCESS", "failed", "submitted", "1303", "1302", "1201", "invalid_request"),
        *("model_not_found", "task_not_exist", "822953089408827433", "", "external_task_id exists"),
        *("https://h/x.mp4?s=1", '{"code":1303,"message":"x"}', '{"task_id":"8"}', "no quota"),
    )
)
NUMBERS = st.sampled_from([0, 1000, 1102, 1200, 1201, 1203, 1301, 1302, 1303, 5000, 8, 10**18])
LEAVES = st.none() | st.booleans() | NUMBERS | st.floats() | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
BODIES = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(KEYS, VALUES, max_size=6).map(lambda value: json.dumps(value).encode())
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "X-Request-Id", "Content-Type"]),
    st.text(max_size=20),
    max_size=3,
)
STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 408, 413, 422, 429]) | (
    st.sampled_from([500, 502, 503, 504, 524]) | st.integers(0, 999)
)


def names_a_task(value: Any) -> bool:
    """Tell whether an id of a task could be read anywhere in *value*."""
    if isinstance(value, str):
        start = value.find("{")
        try:
            return start >= 0 and names_a_task(json.JSONDecoder().raw_decode(value, start)[0])
        except (ValueError, RecursionError):
            return False
    if isinstance(value, list):
        return any(map(names_a_task, value))
    if isinstance(value, dict):
        return any(value.get(key) for key in ("task_id", "id")) or any(
            map(names_a_task, value.values())
        )
    return False


@given(STATUSES, HEADERS, BODIES, st.booleans())
def test_no_answer_raises_or_invents_a_task(
    status: int, headers: dict[str, str], body: bytes, resent: bool
) -> None:
    """A task always has an id that can stand in a path, and that was in the answer."""
    submitted = read_submit(status, headers, body, resent=resent, now=0.0)
    queried = read_query(status, headers, body, now=0.0, asked="8")
    tasks = [answer.task for answer in (submitted, queried) if isinstance(answer, Created | Found)]
    called = read_callback(body)
    for task in [*tasks, *([called] if called else [])]:
        assert 0 < len(task.task_id) <= 128
        assert task.task_id.isprintable()
        assert not set(task.task_id) & set(" /\\")
        assert task.task_id not in {".", ".."}
        assert task_path(task.task_id).count("/") == 5
        assert task.url is None or task.url.startswith(("http://", "https://"))
        assert len(task.message) <= 300
        assert names_a_task(json.loads(body.decode("utf-8-sig", errors="replace"), strict=False))


@given(st.sampled_from([500, 501, 502, 503, 504, 520, 524]), HEADERS, BODIES, st.booleans())
def test_5xx_never_proves_that_nothing_was_created(
    status: int, headers: dict[str, str], body: bytes, resent: bool
) -> None:
    """Except for the two documented refusals; the account's and 1303 are known by their code."""
    answer = read_submit(status, headers, body, resent=resent, now=0.0)
    assert not isinstance(answer, Throttled | Exists)
    if isinstance(answer, Refused):
        assert (status, answer.failure.code) in {(500, "invalid_request"), (503, "model_not_found")}
    if isinstance(answer, AccountRefused):
        assert answer.failure.code is not None


@given(st.integers(200, 299), HEADERS, st.binary(max_size=80).filter(lambda body: b"{" not in body))
def test_success_without_json_is_ambiguous(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """Empty, HTML, half an answer: the task may exist."""
    assert isinstance(read_submit(status, headers, body, resent=False, now=0.0), Ambiguous)


@given(st.integers(1, 10**40), st.sampled_from(["text", "number"]))
def test_id_keeps_every_digit(number: int, form: str) -> None:
    """Whether it was text or a number on the wire."""
    body = json.dumps({"data": {"task_id": str(number) if form == "text" else number}}).encode()
    answer = read_submit(200, {}, body, resent=False, now=0.0)
    assert isinstance(answer, Created)
    assert answer.task.task_id == str(number)


@given(st.binary(max_size=300), st.integers(0, 260))
def test_cut_answer_is_never_another_task(tail: bytes, length: int) -> None:
    """Half an id would be somebody else's."""
    body = b'{"code":0,"data":{"task_id":"822953089408827433","task_status":"submitted"}}'
    answer = read_submit(
        200, {}, body[:length] if length < len(body) else body, resent=False, now=0.0
    )
    assert isinstance(answer, Created) == (length >= len(body))
    assert not tail or read_callback(tail) is None or names_a_task(json.loads(tail))


@pytest.mark.parametrize(
    "unit",
    [
        *(" ", "\n", "\t ", "\u00a0", "(request id:", "(request id: ", "(request id: x ", "("),
        *("%26", "&a", "?a", "&", "%3f", "%3d", "?%", "http://", "http://a", "https://@", "://"),
        *("eyj-", "eyJ", "eyJa.", "a.eyj-", "sk-", "sk-a", "bearer ", "Bearer", "a.b", "[", "{"),
        *(
            "insufficient a ",
            "no more ",
            "api key a ",
            "请求",
            "负载 ",
            "try again ",
            "generation ",
        ),
        *("insufficient ", "quota ", "resource pack ", "external_task", "violat", "limit exceed"),
        *('{"message":', "\\", '"', "\u202e", "\u200d", "9", "a", "é"),
    ],
)
def test_large_answer_is_read_quickly(unit: str) -> None:
    """A message that is read for minutes stops the whole run, its deadline and Ctrl-C too."""
    text = "x" + unit * (LARGE // len(unit.encode())) + "y"
    task = {"task_id": "8", "task_status": "failed"}
    for answer in (
        {"code": 5000, "message": text},
        {"error": {"code": text, "message": text[: LARGE // 2]}},
        {"error": text, "detail": text[:1_000], "msg": text[:1_000]},
        {"code": 0, "data": {**task, "task_status_msg": text}, "request_id": text[:9_000]},
        {"data": {**task, "fail_reason": text, "result_url": "https://h/" + text[:9_000]}},
        {"task_id": text, "status": text[: LARGE // 2], "created_at": text[:9_000]},
    ):
        raw = json.dumps(answer, ensure_ascii=False).encode()
        begun = time.process_time()
        read_submit(400, {}, raw, resent=False, now=0.0)
        read_query(200, {}, raw, now=0.0, asked="8")
        read_callback(raw)
        assert time.process_time() - begun < PATIENCE_S
