"""The codec: every attempt comes back from its record as it was, also from those of old releases."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import SAID, attempt

from batch.attempt import (
    Account,
    Attempt,
    AttemptState,
    Checked,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    PaidTask,
    Phase,
    Pin,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, FailureKind, Video
from batch.output.codec import COLUMNS, from_record, to_record

text = st.text(st.characters(exclude_categories=["Cs"]))
name = text.filter(bool)
time = st.floats(0, 4e9)
failure = st.builds(
    Failure,
    st.sampled_from(FailureKind),
    text,
    code=st.none() | text,
    http_status=st.none() | st.integers(100, 599),
    request_id=st.none() | text,
    is_unexplained=st.booleans(),
)
task = st.builds(PaidTask, name, time, st.none() | text)
doubt = st.builds(Doubt, failure, exists=st.booleans(), on_request=st.booleans())
video = st.builds(Video, time, st.integers(1, 9999), st.integers(1, 9999))
STATES: dict[type[AttemptState], st.SearchStrategy[AttemptState]] = {
    Intended: st.builds(Intended, time, st.none() | doubt),
    Lost: st.builds(Lost, time, doubt),
    Open: st.builds(Open, task),
    TimedOut: st.builds(TimedOut, task, time, st.none() | text),
    Generated: st.builds(Generated, task, time, st.none() | failure),
    Landed: st.builds(
        Landed,
        task,
        time,
        time,
        name,
        st.integers(0, 2**63 - 1),
        text,
        video,
        st.lists(text).map(tuple),
        st.none() | failure,
        st.none() | st.builds(Checked, st.integers(0, 2**63 - 1), time, text),
        st.none() | st.builds(Pin, text, time),
        st.none() | time,
        st.none() | text,
    ),
    Discarded: st.builds(Discarded, task, time, time, time, st.integers(0, 2**63 - 1), text),
    Failed: st.builds(Failed, failure, time, st.none() | task),
    Unconfirmed: st.builds(Unconfirmed, time, doubt),
}
attempts = st.builds(
    Attempt,
    name,
    name,
    text,
    st.integers(1, 99),
    text,
    st.one_of(*STATES.values()),
    polls=st.integers(0, 9999),
    cost_usd=st.none() | time,
    account=st.builds(Account, text, text),
    token_hash=st.none() | text,
)


def test_every_state_has_a_strategy() -> None:
    assert STATES.keys() == set(get_args(AttemptState))


@given(attempts)
def test_any_attempt_survives_its_record(made: Attempt) -> None:
    record = to_record(made)
    assert from_record(record) == made
    assert len(record) == len(COLUMNS.split(","))


def record_of(phase: Phase, detail: dict[str, object]) -> tuple[object, ...]:
    """Return a record with the detail of another release."""
    record = list(to_record(attempt()))
    record[5:7] = [phase.value, json.dumps(detail)]
    return tuple(record)


SAID_THEN = {"kind": "provider", "message": "said so", "code": None}
OLD: list[tuple[Phase, dict[str, object], AttemptState]] = [
    (Phase.INTENDED, {"since": 1.0}, Intended(1.0)),
    (Phase.LOST, {"since": 1.0, "failure": SAID_THEN}, Lost(1.0, Doubt(SAID))),
    (
        Phase.UNCONFIRMED,
        {"since": 1.0, "failure": SAID_THEN, "exists": True},
        Unconfirmed(1.0, Doubt(SAID, exists=True)),
    ),
    (Phase.OPEN, {"task_id": "8", "submitted_at": 1.0}, Open(PaidTask("8", 1.0))),
    (
        Phase.FAILED,
        {"failure": SAID_THEN, "failed_at": 2.0, "task_id": None, "submitted_at": None},
        Failed(SAID, 2.0),
    ),
    (
        Phase.GENERATED,
        {"task_id": "8", "submitted_at": 1.0, "generated_at": 2.0, "trouble": None},
        Generated(PaidTask("8", 1.0), 2.0),
    ),
]


@pytest.mark.parametrize(("phase", "detail", "state"), OLD, ids=[case[0].name for case in OLD])
def test_detail_of_older_release_is_read(
    phase: Phase, detail: dict[str, object], state: AttemptState
) -> None:
    """A refused request must not come back as a task that was paid for."""
    assert from_record(record_of(phase, detail)).state == state
