"""The life of an attempt: what may follow what, said a second time, by hand."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from batch.attempt import (
    TRANSITIONS,
    Attempt,
    AttemptState,
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
    TimedOut,
    Unconfirmed,
    external_id,
)
from batch.errors import TransitionError
from batch.job import Failure, FailureKind, Video

DESIGN = Path(__file__).parents[2] / "batch/cli/pages/design.md"
FAILURE = Failure(FailureKind.PROVIDER, "no")
TASK = PaidTask("8", 1.0)
EXAMPLES: dict[str, AttemptState] = {
    "intended": Intended(1.0),
    "lost": Lost(1.0, Doubt(FAILURE)),
    "open": Open(TASK),
    "timed out": TimedOut(TASK, 2.0),
    "generated": Generated(TASK, 2.0),
    "landed": Landed(TASK, 2.0, 3.0, "videos/a.mp4", 9, "00", Video(5.0, 16, 9)),
    "discarded": Discarded(TASK, 2.0, 3.0, 4.0, 9, "00"),
    "failed": Failed(FAILURE, 2.0),
    "unconfirmed": Unconfirmed(1.0, Doubt(FAILURE)),
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
    ("landed", "landed"),  # its file has moved, was fetched again, or is missed
    ("landed", "discarded"),  # deleted on request
    ("discarded", "generated"),  # wanted again, while the provider keeps it
    ("unconfirmed", "lost"),  # the next run looks it up again
    ("unconfirmed", "intended"),  # --resubmit-unconfirmed
    ("unconfirmed", "open"),
    ("unconfirmed", "unconfirmed"),
}


def attempt(state: AttemptState) -> Attempt:
    return Attempt("kb-1", "beach", "v1:00", 1, '{"prompt":"x"}', state)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(EXAMPLES, EXAMPLES)))
def test_an_attempt_goes_only_where_its_table_says(before: str, after: str) -> None:
    """All 81 pairs: the allowed ones work, every other one is a bug of ours."""
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
    states = {type(state) for state in EXAMPLES.values()}
    assert set(TRANSITIONS) == states
    assert set(Phase) == {state.__name__ for state in states}


def test_a_paid_task_is_never_sent_again() -> None:
    """From a state with a task, no way leads to one that would be sent."""
    reached, todo = set[type[AttemptState]](), [Open]
    while todo:
        for after in TRANSITIONS[todo.pop()] - reached:
            reached.add(after)
            todo.append(after)  # type: ignore[arg-type]
    assert not reached & {Intended, Lost, Unconfirmed}


def test_every_paid_attempt_has_a_task_id() -> None:
    """A refusal has none; a task that failed keeps its own."""
    paid = {name for name, state in EXAMPLES.items() if attempt(state).task_id is not None}
    assert paid == {"open", "timed out", "generated", "landed", "discarded"}
    assert attempt(Failed(FAILURE, 2.0, TASK)).task_id == "8"


@pytest.mark.parametrize("before", [EXAMPLES["lost"], EXAMPLES["unconfirmed"]])
def test_a_doubt_outlives_the_next_intent(before: AttemptState) -> None:
    """A run that dies before the request goes out must not forget the one before it."""
    doubtful = attempt(before)
    assert doubtful.intended(2.0).doubt == doubtful.doubt == Doubt(FAILURE)


@pytest.mark.parametrize("doubt", [Doubt(FAILURE, exists=True), Doubt(FAILURE, on_request=True)])
def test_another_lost_answer_keeps_the_doubt(doubt: Doubt) -> None:
    """Only the cause is the latest one."""
    again = Failure(FailureKind.NETWORK, "the line was cut")
    lost = attempt(Intended(1.0, doubt)).doubted(2.0, again)
    assert lost.state == Lost(2.0, Doubt(again, doubt.exists, doubt.on_request))


def test_an_existing_task_outlives_a_lost_answer() -> None:
    lost = attempt(Intended(1.0)).doubted(2.0, FAILURE, exists=True)
    assert lost.intended(3.0).doubted(4.0, FAILURE).doubt == Doubt(FAILURE, exists=True)


def test_external_id_is_the_same_every_time() -> None:
    """Another one would let a restored backup pay again: it must outlive every release."""
    of = ("library", "v2:0a", 1)
    assert external_id(*of) == "kb-d90fee849506f831f9200af75c4da6cf"
    others = [("x", *of[1:]), (of[0], "x", of[2]), (*of[:2], 2)]
    assert len({external_id(*of), *(external_id(*other) for other in others)}) == 4


def drawn() -> str:
    """Return the table of transitions as a diagram."""
    arrows = [
        f"    {before.__name__} --> {after.__name__}"
        for before in TRANSITIONS
        for after in TRANSITIONS
        if after in TRANSITIONS[before]
    ]
    ends = [f"    {state.__name__} --> [*]" for state in (Landed, Discarded, Failed)]
    return "\n".join(
        ["```mermaid", "stateDiagram-v2", "    [*] --> Intended", *arrows, *ends, "```"]
    )


def test_design_page_draws_the_table_of_transitions() -> None:
    section = DESIGN.read_text(encoding="utf-8").split("## The life of an attempt\n", 1)[1]
    assert re.findall("```mermaid.*?```", section.split("\n## ", 1)[0], re.DOTALL) == [drawn()]


def test_doubt_keeps_when_its_request_was_sent() -> None:
    """However often it is looked for; a request sent again is another."""
    lost = attempt(Intended(1.0)).doubted(2.0, FAILURE)
    assert lost.sent_at == 1.0
    later = lost.to(Unconfirmed(3.0, lost.state.doubt)).doubted(9.0, FAILURE)  # type: ignore[union-attr]
    assert (later.state.since, later.sent_at) == (9.0, 1.0)  # type: ignore[union-attr]
    again = later.intended(10.0)
    assert again.sent_at == again.doubted(11.0, FAILURE).sent_at == 10.0
    assert attempt(Lost(5.0, Doubt(FAILURE))).sent_at == 5.0, "an older release kept no more"
