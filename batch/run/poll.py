"""Poll: watch an open task until the provider says how it ended.

A poll costs nothing but time, so nothing that happens to one is a verdict: a 5xx, a garbled body, a
time-out only move the next poll. Our own deadline is no verdict either: the task stays open.
"""

from __future__ import annotations

from dataclasses import replace

from batch import events
from batch.attempt import ELSEWHERE, Attempt, TimedOut
from batch.callbacks.hints import Hint, Hints
from batch.frozen import frozen
from batch.job import Failure, FailureKind
from batch.output.state import Put, State
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
from batch.run.advice import account_advice
from batch.run.context import RunContext
from batch.run.lessons import Lessons
from batch.run.lookup import GONE_AFTER, LookUp
from batch.run.stop import StopReason
from batch.run.turns import Turns
from batch.waker import sleep

LAST_POLLS_S = 60.0  # how long a task of an earlier run is watched at least
OVERTIME_POLLS = 5
FORBIDDEN = 403
ACCOUNT_REFUSALS = 3  # in a row; one may be a hiccup of a gateway


class Poller:
    """Watches tasks, each on its own schedule."""

    def __init__(
        self,
        context: RunContext,
        *,
        api: VideoApi,
        state: State,
        lookup: LookUp,
        lessons: Lessons,
        hints: Hints,
    ) -> None:
        self._context = context
        self._api = api
        self._state = state
        self._lookup = lookup
        self._lessons = lessons
        self._hints = hints
        self._turns = Turns()

    async def poll(
        self, attempt: Attempt, hint: Hint, *, is_fresh: bool
    ) -> tuple[Attempt | None, str | None]:
        """Watch an open (or timed out) task to its end.

        Args:
            attempt: the attempt, committed.
            hint: brings the next poll forward.
            is_fresh: whether this run has submitted it. A task of an earlier run is polled at once,
                and for at least a while.

        Returns:
            The attempt *Generated* (committed) with the link if there was one, *Failed* or
            *TimedOut* (to be committed with its row), or None: the run is being left, the task is
            open.
        """
        with self._lessons.watch():
            return await self._watch(
                attempt, hint, _Watch(self._context, attempt, is_fresh=is_fresh)
            )

    async def _watch(
        self, attempt: Attempt, hint: Hint, watch: _Watch
    ) -> tuple[Attempt | None, str | None]:
        interval_s = self._context.limits.poll_interval_s
        pause = _Pause(0.0, watch.patience_s if watch.is_fresh else 0.0)
        while True:
            is_left = await self._wait(attempt, watch.age_s, pause, hint)
            answer = None if is_left else await self._in_turn(attempt, hint)
            if answer is None:
                return None, None
            attempt = attempt.polled()
            watch.note(answer)
            left_s = watch.left_s
            pause = _Pause(interval_s, max(left_s, interval_s))
            match answer:
                case Found(task):
                    self._note(attempt, task, hint)
                    if task.status is TaskStatus.SUCCEEDED:
                        return await self._generated(attempt, task, watch)
                    if task.status is TaskStatus.FAILED:
                        return attempt.failed(self._context.clock.now(), task_failure(task)), None
                    self._lessons.saw_open(attempt, watch.age_s)
                case NotFound(failure) if self._lookup.is_gone(attempt, watch.not_found):
                    return self._expired(attempt, failure), None
                case Unavailable(failure, retry_after_s=asked_s):
                    failed = events.PollFailed(attempt.job_id, attempt.paid_task.task_id, failure)
                    self._context.notify(failed)
                    # As long as it wants, but no longer than the task is waited for.
                    least_s = max(interval_s, min(asked_s or 0.0, pause.most_s))
                    pause = _Pause(least_s, pause.most_s, stretches=False)
                case AccountRefused(failure) if watch.refusals >= ACCOUNT_REFUSALS:
                    self._context.stop.ask(
                        StopReason.ACCOUNT,
                        f"the provider refuses the account: {failure.message};"
                        f" open tasks are left to the next run: {account_advice(failure)}",
                    )
                    return None, None
                case _:
                    pass  # not found yet, or refused once: another poll will tell
            if watch.is_over(answer):
                now = self._context.clock.now()
                return attempt.to(TimedOut(attempt.paid_task, now, watch.said)), None

    def _note(self, attempt: Attempt, task: Task, hint: Hint) -> None:
        self._context.notify(events.Polled(attempt.job_id, task.task_id, task.status))
        if task.status in {TaskStatus.SUCCEEDED, TaskStatus.FAILED}:
            self._hints.ended(hint)
        else:
            hint.correct(task.updated_at)

    async def _wait(self, attempt: Attempt, age_s: float, pause: _Pause, hint: Hint) -> bool:
        """Wait for the next poll of a task of this age; True if the run is being left.

        As long as the schedule says; longer while callbacks are trusted; or until one says that the
        task has ended. A sender that repeats it again and again causes one poll per poll_interval.
        """
        stop, clock = self._context.stop, self._context.clock
        if pause.most_s <= 0:
            return False
        begun = clock.monotonic()
        while not hint.ended.is_set() and not stop.leaving.is_set():
            stretch = self._hints.stretch if pause.stretches else 1.0
            usual_s = self._lessons.next_poll(attempt, age_s, stretch)
            due = begun + min(max(usual_s, pause.least_s), pause.most_s)
            left_s = due - clock.monotonic()
            changes = (self._hints.doubted, self._lessons.changed)
            if left_s > 0:
                await sleep(left_s, stop.leaving, hint.ended, *changes, by_ticks=True)
            if clock.monotonic() >= due:
                break
        else:
            again_s = hint.woke_at + self._context.limits.poll_interval_s - clock.monotonic()
            if again_s > 0:
                await sleep(again_s, stop.leaving)
            hint.woke_at = clock.monotonic()
        return stop.leaving.is_set()

    async def _in_turn(self, attempt: Attempt, hint: Hint) -> QueryAnswer | None:
        """Query once few enough polls are under way, or at once if it is urgent; None: the run is left."""
        leaving = self._context.stop.leaving
        async with self._turns.turn(hint.ended, leaving):
            if leaving.is_set():
                return None
            hint.ended.clear()  # this poll answers what was announced before it
            return await self._query(attempt)

    async def _query(self, attempt: Attempt) -> QueryAnswer:
        task_id = attempt.paid_task.task_id
        if self._lookup.proof.is_wanted:
            # The proof of look-up at no cost: this poll goes by the external id.
            answer = await self._lookup.proof.make(attempt)
            if isinstance(answer, Found) and answer.task.task_id == task_id:
                return answer
            return Unavailable(Failure(FailureKind.PROVIDER, "not found by its external id"))
        answer = await self._api.query(task_id)
        if isinstance(answer, Found) and not await self._lookup.claims.answers(
            answer.task, attempt
        ):
            return Unavailable(Failure(FailureKind.PROVIDER, "the answer is about another task"))
        return answer

    async def _generated(
        self, attempt: Attempt, task: Task, watch: _Watch
    ) -> tuple[Attempt, str | None]:
        attempt = attempt.generated(self._context.clock.now())
        took_s = _duration(task)
        if took_s is None and watch.is_fresh:
            took_s = watch.age_s
        lesson = None if took_s is None else self._lessons.learn(attempt, took_s)
        await self._state.commit(Put(attempt), *([] if lesson is None else [lesson]))
        ready = events.VideoReady(attempt.job_id, task.task_id, took_s or watch.age_s)
        self._context.notify(ready)
        return attempt, task.url

    def _expired(self, attempt: Attempt, failure: Failure) -> Attempt:
        message = "the provider no longer keeps this task (it clears them after 30 days)"
        gone = replace(failure, kind=FailureKind.DOWNLOAD, message=message)
        return attempt.failed(self._context.clock.now(), gone)


@frozen
class _Pause:
    """The bounds of a wait between two polls; *stretches*: longer than usual with callbacks."""

    least_s: float
    most_s: float
    stretches: bool = True


class _Watch:
    """How long one task has been watched, and what has been answered in a row."""

    def __init__(self, context: RunContext, attempt: Attempt, *, is_fresh: bool) -> None:
        self._clock = context.clock
        self._begun = context.clock.monotonic()
        self.is_fresh = is_fresh
        age_s = 0.0 if is_fresh else context.clock.now() - attempt.paid_task.submitted_at
        self._age_at_start_s = max(0.0, age_s)
        timeout_s = context.limits.task_timeout_s
        self.patience_s = max(timeout_s - self._age_at_start_s, min(LAST_POLLS_S, timeout_s))
        self._is_foreign = attempt.account != context.account
        self.refusals = self.not_found = self._overtime = 0
        self._is_elsewhere = False
        self.said: str | None = None  # the last words of a task whose status is no ending

    @property
    def age_s(self) -> float:
        """How old the task is."""
        return self._clock.monotonic() - self._begun + self._age_at_start_s

    @property
    def left_s(self) -> float:
        """How much longer it is watched."""
        return self.patience_s - (self._clock.monotonic() - self._begun)

    def note(self, answer: QueryAnswer) -> None:
        """Take an answer in."""
        if isinstance(answer, Found):
            self.said = answer.task.message or None
        is_refusal = isinstance(answer, AccountRefused)
        # "Not yours", of one task. A key that is refused altogether is told with 401.
        status = answer.failure.http_status if isinstance(answer, AccountRefused) else None
        is_others = self._is_foreign and status == FORBIDDEN
        self.refusals = self.refusals + 1 if is_refusal and not is_others else 0
        is_absent = (isinstance(answer, NotFound) and not self.is_fresh) or is_others
        self.not_found = self.not_found + 1 if is_absent else 0
        self._overtime += self.left_s <= 0
        # The account that it was submitted with has it: it stays open, and only the waiting ends.
        self._is_elsewhere = self._is_foreign and self.not_found >= GONE_AFTER
        self.said = ELSEWHERE if self._is_elsewhere else self.said

    def is_over(self, answer: QueryAnswer) -> bool:
        """Return whether the task is left as timed out.

        A machine that slept past the deadline has no network in its first seconds: only an answer,
        or a few polls without one, end the watch.
        """
        was_answered = isinstance(answer, Found | NotFound)
        is_late = self.left_s <= 0 and (was_answered or self._overtime >= OVERTIME_POLLS)
        return self._is_elsewhere or is_late


def _duration(task: Task) -> float | None:
    """Return how long the provider says that it took, seconds."""
    if task.created_at is None or task.updated_at is None:
        return None
    took_s = task.updated_at - task.created_at
    return took_s if took_s > 0 else None
