"""The life of an attempt: what may follow what, said a second time, by hand."""

from __future__ import annotations

import itertools

import pytest

from batch.errors import TransitionError
from batch.job import (
    STATES,
    TRANSITIONS,
    Attempt,
    Failed,
    Failure,
    FailureKind,
    Generated,
    Intended,
    Job,
    Landed,
    Lost,
    Open,
    State,
    TimedOut,
    Unconfirmed,
    Video,
    canonical_request,
    fingerprint,
)

FAILURE = Failure(FailureKind.PROVIDER, "no")
EXAMPLES: dict[str, State] = {
    "intended": Intended(since=1.0),
    "lost": Lost(since=1.0, failure=FAILURE),
    "open": Open("8", 1.0),
    "timed out": TimedOut("8", 1.0, 2.0),
    "generated": Generated("8", 1.0, 2.0),
    "landed": Landed("8", 1.0, 2.0, 3.0, "videos/a.mp4", 9, "00", Video(5.0, 16, 9)),
    "failed": Failed(FAILURE, 2.0),
    "unconfirmed": Unconfirmed(since=1.0, failure=FAILURE),
}
# The table of job-life, in words. What is not here must be impossible.
ALLOWED = {
    ("intended", "intended"),  # the same request again, since nothing was created
    ("intended", "lost"),
    ("intended", "open"),
    ("intended", "failed"),
    ("lost", "intended"),  # look-up has proved that there is nothing
    ("lost", "open"),  # adopted
    ("lost", "unconfirmed"),
    ("open", "generated"),
    ("open", "failed"),
    ("open", "timed out"),
    ("timed out", "generated"),
    ("timed out", "failed"),
    ("timed out", "timed out"),
    ("generated", "generated"),  # another trouble with the download
    ("generated", "landed"),
    ("generated", "failed"),  # the provider keeps it for 30 days
    ("landed", "generated"),  # the file is gone
    ("landed", "landed"),
    ("unconfirmed", "lost"),  # the next run looks again
    ("unconfirmed", "intended"),  # --resubmit-unconfirmed
    ("unconfirmed", "open"),
    ("unconfirmed", "unconfirmed"),
}


def attempt(state: State) -> Attempt:
    return Attempt("kb-1", "beach", "v1:00", 1, '{"prompt":"x"}', state)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(EXAMPLES, EXAMPLES)))
def test_an_attempt_goes_only_where_its_table_says(before: str, after: str) -> None:
    """All 64 pairs: the allowed ones work, every other one is a bug of ours."""
    old = attempt(EXAMPLES[before])
    if (before, after) in ALLOWED:
        new = old.to(EXAMPLES[after])
        assert new.state is EXAMPLES[after]
        assert (new.external_task_id, new.request) == (old.external_task_id, old.request)
        return
    with pytest.raises(TransitionError, match="kb-1") as caught:
        old.to(EXAMPLES[after])
    assert "→" in str(caught.value)


def test_the_table_knows_every_state() -> None:
    """A new state must be given its place."""
    assert set(STATES) == set(TRANSITIONS) == {type(state) for state in EXAMPLES.values()}


def test_paid_work_never_leads_back_to_a_new_request() -> None:
    """From whatever has a task, no way leads to a state that would be sent."""
    reached, todo = set[type[State]](), [Open]
    while todo:
        for after in TRANSITIONS[todo.pop()] - reached:
            reached.add(after)
            todo.append(after)  # type: ignore[arg-type]
    assert not reached & {Intended, Lost, Unconfirmed}


def test_an_attempt_has_a_task_id_exactly_where_somebody_has_paid() -> None:
    """A refusal has none; whatever was created keeps its own."""
    paid = {name for name, state in EXAMPLES.items() if attempt(state).task_id is not None}
    assert paid == {"open", "timed out", "generated", "landed"}
    assert attempt(Failed(FAILURE, 2.0, task_id="8")).task_id == "8"


def test_the_fingerprint_is_of_what_is_sent_and_of_the_variant() -> None:
    """The order of keys is nothing; a variant is another video."""
    one = canonical_request({"prompt": "雨", "duration": "5"})
    assert one == canonical_request({"duration": "5", "prompt": "雨"})
    assert one == '{"duration":"5","prompt":"雨"}'
    prints = {fingerprint(one, None), fingerprint(one, 1), fingerprint(one, 2)}
    assert len(prints) == 3
    assert all(text.startswith("v1:") for text in prints)


def test_a_job_gives_out_a_new_body_each_time() -> None:
    """Who adds an external id to it changes nobody else's."""
    job = Job("a/b", '{"prompt":"x"}', "v1:00")
    job.body()["external_task_id"] = "kb-1"
    assert job.body() == {"prompt": "x"}
    assert job.video_path == "videos/a/b.mp4"
