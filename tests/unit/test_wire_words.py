"""What is said in ten languages, under eight statuses: what a sensible operator would make of it.

A wrong "no credit" stops a night, a wrong "too fast" repeats for long, a wrong "passes" pays again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batch.job import FailureKind
from batch.provider.answers import Refused, Task, TaskStatus
from batch.provider.wire import read_query, read_submit, task_failure

SAID = Path(__file__).parents[1] / "data" / "wire" / "said.txt"
NOW = 1_800_000_000.0

STATUSES = (200, 400, 402, 403, 422, 429, 500, 503)
# Account, throttled, saturated, moderation, invalid, unknown: what is right under each status.
RIGHT = {
    "credit": ("a", "a", "a", "a", "a", "a", "u", "u"),
    "key": ("a", "a", "a", "a", "a", "at", "u", "u"),
    "fast": ("t", "t", "a", "t", "t", "t", "u", "u"),
    "slots": ("s", "s", "a", "s", "s", "s", "u", "u"),
    "busy": ("tu", "t", "a", "t", "t", "t", "u", "u"),
    "moderation": ("m", "mi", "a", "m", "mi", "mt", "u", "u"),
    "invalid": ("imu", "im", "a", "aim", "im", "t", "u", "u"),
}
LETTERS = {"AccountRefused": "a", "Throttled": "t", "Saturated": "s", "Ambiguous": "u"}


def said(*kinds: str) -> list[tuple[str, str]]:
    found, kind = [], ""
    for line in SAID.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        elif line and kind in kinds:
            found.append((kind, line))
    return found


def verdict(status: int, message: str) -> str:
    refusal = {"success": False} if status == 200 else {"code": "task_failed", "data": None}
    body = json.dumps({**refusal, "message": message}).encode()
    answer = read_submit(status, {}, body, resent=False, now=NOW)
    if isinstance(answer, Refused):
        return answer.failure.kind.value[0]
    return LETTERS[type(answer).__name__]


@pytest.mark.parametrize(("kind", "message"), said(*RIGHT))
def test_what_is_said_has_the_verdict_of_its_kind(kind: str, message: str) -> None:
    found = [verdict(status, message) for status in STATUSES]
    wrong = [
        (status, letter)
        for status, letter, right in zip(STATUSES, found, RIGHT[kind], strict=True)
        if letter not in right
    ]
    assert not wrong


@pytest.mark.parametrize("kind", RIGHT)
def test_success_with_any_words_is_a_task(kind: str) -> None:
    for _, message in said(kind):
        body = json.dumps({"code": 0, "message": message, "data": {"task_id": "8"}}).encode()
        answer = read_submit(200, {}, body, resent=False, now=NOW)
        assert type(answer).__name__ == "Created"
        status = {"task_id": "8", "task_status": "processing", "task_status_msg": message}
        found = read_query(200, {}, json.dumps({"code": 0, "data": status}).encode(), now=NOW)
        assert type(found).__name__ == "Found"


@pytest.mark.parametrize(
    ("kind", "message"), said("moderation", "invalid", "credit", "failed: rests")
)
def test_failed_task_is_not_paid_for_again_at_once(kind: str, message: str) -> None:
    failure = task_failure(Task("8", TaskStatus.FAILED, message=message))
    assert failure.is_unexplained or failure.kind is not FailureKind.GENERATION, kind


@pytest.mark.parametrize(("kind", "message"), said("failed: passes"))
def test_failed_task_whose_reason_passes_is_tried_again(kind: str, message: str) -> None:
    failure = task_failure(Task("8", TaskStatus.FAILED, message=message))
    assert (failure.is_unexplained, failure.kind) == (False, FailureKind.GENERATION), kind
