"""Poll: watch an open task until the provider says how it ended.

A look costs nothing but time, so nothing that happens to one is a verdict: a 5xx, a garbled body, a
time-out only move the next look. The deadline of ours is none either: the task stays open.
"""

from __future__ import annotations

from collections.abc import Callable

from batch import events
from batch.callbacks.hints import Hint, Hints
from batch.clock import Clock
from batch.events import Event
from batch.job import (
    Attempt,
    Failed,
    Failure,
    FailureKind,
    Generated,
    Open,
    TimedOut,
)
from batch.output.changes import GenerationTime, Put
from batch.output.writer import Journal
from batch.provider.answers import (
    AccountRefused,
    Found,
    NotFound,
    QueryAnswer,
    Task,
    TaskStatus,
    Unavailable,
)
from batch.provider.protocol import VideoApi
from batch.provider.wire import task_failure
from batch.run.lookup import LookUp
from batch.run.stop import Stop, StopReason
from batch.waker import sleep

LAST_LOOKS_S = 60.0  # how long a task of an earlier run is watched at least
OVERTIME_LOOKS = 5
ACCOUNT_REFUSALS = 3  # in a row; one may be a hiccup of a gateway

NextLook = Callable[[Attempt, float], float]
"""Seconds from now to the next look at a task of this age (seconds)."""


class Poller:
    """Watches tasks, each on its own schedule."""

    def __init__(
        self,
        *,
        api: VideoApi,
        journal: Journal,
        lookup: LookUp,
        stop: Stop,
        clock: Clock,
        notify: Callable[[Event], None],
        next_look: NextLook,
        learn: Callable[[Attempt, float], GenerationTime | None],
        poll_interval_s: float,
        task_timeout_s: float,
        hints: Hints | None = None,
    ) -> None:
        self._api = api
        self._journal = journal
        self._lookup = lookup
        self._stop = stop
        self._clock = clock
        self._notify = notify
        self._next_look = next_look
        self._learn = learn
        self._poll_interval_s = poll_interval_s
        self._hints = hints or Hints()
        self._task_timeout_s = task_timeout_s

    async def poll(
        self, attempt: Attempt, *, is_fresh: bool, hint: Hint
    ) -> tuple[Attempt | None, str | None]:
        """Watch an open (or timed out) task to its end.

        Returns the attempt *Generated* (committed) with the link if there was one, *Failed* or
        *TimedOut* (to be committed with its row), or None: the run is being left, the task is open. A
        *hint* brings the next look forward. A task that is not fresh, one of an earlier run, is
        looked at at once, and for at least a while.
        """
        state = attempt.state
        assert isinstance(state, Open | TimedOut)
        begun = self._clock.monotonic()
        age_at_start = 0.0 if is_fresh else max(0.0, self._clock.now() - state.submitted_at)
        patience_s = max(
            self._task_timeout_s - age_at_start, min(LAST_LOOKS_S, self._task_timeout_s)
        )
        wait_s = min(self._next_look(attempt, 0.0), patience_s) if is_fresh else 0.0
        most_s = patience_s
        refusals = overtime = not_found = 0
        while True:
            if await self._wait(wait_s, most_s, hint):
                return None, None
            answer = await self._look(attempt)
            attempt = attempt.polled()
            age_s = self._clock.monotonic() - begun + age_at_start
            left_s = patience_s - (self._clock.monotonic() - begun)
            wait_s = max(min(self._next_look(attempt, age_s), left_s), self._poll_interval_s)
            most_s = max(wait_s, left_s)
            refusals = refusals + 1 if isinstance(answer, AccountRefused) else 0
            not_found = not_found + 1 if isinstance(answer, NotFound) and not is_fresh else 0
            match answer:
                case Found(task):
                    self._note(attempt, task, hint)
                    if task.status is TaskStatus.SUCCEEDED:
                        return await self._generated(attempt, task, age_s, is_fresh=is_fresh)
                    if task.status is TaskStatus.FAILED:
                        return self._failed(attempt, task), None
                case NotFound(failure) if self._lookup.is_gone(
                    attempt, state.submitted_at, not_found
                ):
                    return self._expired(attempt, failure), None
                case Unavailable(_, retry_after_s):
                    # As long as it wants, but no longer than the task is waited for.
                    longest_s = max(left_s, self._poll_interval_s)
                    wait_s = most_s = max(wait_s, min(retry_after_s or 0.0, longest_s))
                case AccountRefused(failure) if refusals >= ACCOUNT_REFUSALS:
                    self._stop_for_account(failure)
                    return None, None
                case _:
                    pass  # not found yet, or refused once: another look will tell
            # A machine that slept past the deadline has no network in its first seconds: only an
            # answer, or a few looks without one, end the watch.
            overtime += left_s <= 0
            if left_s <= 0 and (isinstance(answer, Found | NotFound) or overtime >= OVERTIME_LOOKS):
                timed_out = TimedOut(
                    state.task_id, state.submitted_at, self._clock.now(), state.request_id
                )
                return attempt.to(timed_out), None

    def _note(self, attempt: Attempt, task: Task, hint: Hint) -> None:
        self._notify(events.Polled(attempt.job_id, task.task_id, task.status))
        if task.status in {TaskStatus.SUCCEEDED, TaskStatus.FAILED}:
            self._hints.ended(hint)
        else:
            hint.know(task.updated_at)

    async def _wait(self, usual_s: float, most_s: float, hint: Hint) -> bool:
        """Wait for the next look; True if the run is being left.

        As long as usual; or longer, up to *most_s*, while callbacks are trusted; or until one says
        that the task has ended. Whoever posts those again and again wakes once per poll_interval.
        """
        if usual_s <= 0:
            hint.ended.clear()  # the look at once answers what was announced before it
            return False
        begun = self._clock.monotonic()
        while not hint.ended.is_set() and not self._stop.leaving.is_set():
            planned_s = min(usual_s * self._hints.stretch, most_s)
            left_s = begun + planned_s - self._clock.monotonic()
            if left_s <= 0:
                break
            await sleep(left_s, self._stop.leaving, hint.ended, self._hints.doubted, by_ticks=True)
        else:
            again_s = hint.woke_at + self._poll_interval_s - self._clock.monotonic()
            if again_s > 0:
                await sleep(again_s, self._stop.leaving)
            hint.woke_at = self._clock.monotonic()
        hint.ended.clear()
        return self._stop.leaving.is_set()

    async def _look(self, attempt: Attempt) -> QueryAnswer:
        if self._lookup.wants_proof:
            # The proof of look-up at no cost: this look goes by the external id.
            answer = await self._lookup.prove(attempt)
            if isinstance(answer, Found) and answer.task.task_id == attempt.task_id:
                return answer
            return Unavailable(Failure(FailureKind.PROVIDER, "not found by its external id"))
        assert attempt.task_id is not None
        answer = await self._api.query(attempt.task_id)
        if isinstance(answer, Found) and not attempt.owns(
            answer.task.task_id, answer.task.external_task_id
        ):
            return Unavailable(Failure(FailureKind.PROVIDER, "the answer is about another task"))
        return answer

    async def _generated(
        self, attempt: Attempt, task: Task, age_s: float, *, is_fresh: bool
    ) -> tuple[Attempt, str | None]:
        state = attempt.state
        assert isinstance(state, Open | TimedOut)
        attempt = attempt.to(
            Generated(state.task_id, state.submitted_at, self._clock.now(), state.request_id)
        )
        took_s = _duration(task)
        if took_s is None and is_fresh:
            took_s = age_s
        lesson = None if took_s is None else self._learn(attempt, took_s)
        await self._journal.commit(Put(attempt), *([] if lesson is None else [lesson]))
        self._notify(events.Generated(attempt.job_id, state.task_id, took_s or age_s))
        return attempt, task.url

    def _failed(self, attempt: Attempt, task: Task) -> Attempt:
        state = attempt.state
        assert isinstance(state, Open | TimedOut)
        return attempt.to(
            Failed(task_failure(task), self._clock.now(), state.task_id, state.submitted_at)
        )

    def _expired(self, attempt: Attempt, failure: Failure) -> Attempt:
        state = attempt.state
        assert isinstance(state, Open | TimedOut)
        gone = Failure(
            FailureKind.DOWNLOAD,
            "the provider no longer keeps this task (it clears them after 30 days)",
            code=failure.code,
            http_status=failure.http_status,
            request_id=failure.request_id,
        )
        return attempt.to(Failed(gone, self._clock.now(), state.task_id, state.submitted_at))

    def _stop_for_account(self, failure: Failure) -> None:
        sentence = f"the provider refuses the account: {failure.message}; open tasks are left to the next run"
        if self._stop.ask(StopReason.ACCOUNT, sentence):
            self._notify(events.Stopping(sentence))


def _duration(task: Task) -> float | None:
    """How long the provider says that it took, seconds."""
    if task.created_at is None or task.updated_at is None:
        return None
    took_s = task.updated_at - task.created_at
    return took_s if took_s > 0 else None
