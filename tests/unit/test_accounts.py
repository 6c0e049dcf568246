"""Every number of a library comes from its attempts; a run's numbers are the difference of two states."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from scripted import attempt, generated, landed, opened

from batch.attempt import (
    Attempt,
    AttemptState,
    Doubt,
    Failed,
    Intended,
    Lost,
    PaidTask,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, FailureKind
from batch.library.accounts import Books, Figures, figures

LOST = Failure(FailureKind.NETWORK, "no answer in time")
DOUBTS: list[AttemptState] = [
    Intended(1.0),
    Lost(1.0, Doubt(LOST)),
    Unconfirmed(1.0, Doubt(LOST)),
]


def booked(name: str, state: AttemptState, cost_usd: float | None = 0.42) -> Attempt:
    """Return an attempt with a price."""
    return replace(attempt(state, name=name), cost_usd=cost_usd)


def test_each_state_counts_once() -> None:
    attempts = [
        booked("landed", landed("1", "videos/a.mp4", 9)),
        booked("open", opened("2")),
        booked("generated", generated("3")),
        booked("timed-out", TimedOut(PaidTask("4", 1.0), 2.0)),
        booked("failed", Failed(LOST, 2.0, PaidTask("5", 1.0))),
        booked("refused", Failed(LOST, 2.0)),
        *(booked(f"doubt-{number}", state) for number, state in enumerate(DOUBTS)),
    ]
    assert figures(attempts)._asdict() == {
        **dict.fromkeys(("succeeded", "failed", "timed_out", "open", "to_download"), 1),
        "tasks": 5,
        "cost_usd": 2.1,
        "refused": 1,
        "perhaps_paid": 3,
        "perhaps_usd": 1.26,
    }
    assert figures(attempts).to_collect == 3


def test_cents_add_up_exactly() -> None:
    """Forty times 0.42 in binary is not 16.80."""
    attempts = [booked(str(n), opened(str(n))) for n in range(38)]
    assert figures(attempts).cost_usd == 15.96
    assert figures([booked("a", opened(), cost_usd=None)]).cost_usd == 0.0


def test_run_has_created_what_was_not_there_before() -> None:
    before = [booked("old", opened("1"))]
    books = Books.open(before)
    after = [*before, booked("new", opened("2")), booked("lost", DOUBTS[2])]
    spent, library = books.close(after, set())
    assert library == figures(after)
    assert (spent.tasks, spent.cost_usd, spent.adopted) == (1, 0.42, 0)


def test_found_task_is_the_run_before_its_own() -> None:
    """Unless this run has sent its request again."""
    books = Books.open([booked("doubt", DOUBTS[2])])
    after = [booked("doubt", opened("1"))]
    (found, _), (sent, _) = books.close(after, set()), books.close(after, {"doubt"})
    assert (found.tasks, found.cost_usd, found.adopted) == (0, 0.0, 1)
    assert (sent.tasks, sent.cost_usd, sent.adopted) == (1, 0.42, 0)


STATES = st.sampled_from(
    [*DOUBTS, opened("1"), generated("1"), landed("1", "f", 9), Failed(LOST, 2.0)]
)


@given(st.lists(st.tuples(STATES, st.integers(0, 500)), max_size=30))
def test_tasks_are_the_sum_of_their_endings(drawn: list[tuple[AttemptState, int]]) -> None:
    """And every attempt is a task, refused, or perhaps paid."""
    attempts = [booked(str(n), state, cents / 100) for n, (state, cents) in enumerate(drawn)]
    found = figures(attempts)
    endings = found.succeeded + found.failed + found.to_collect
    assert found.tasks == endings
    assert endings + found.refused + found.perhaps_paid == len(attempts)
    assert figures([]) == Figures()
