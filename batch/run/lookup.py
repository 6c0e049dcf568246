"""Look-up: find a task by our own external id when the answer to its submission was lost.

"Not found" proves absence only where look-up is known to work (`batch.run.proof`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from batch import events
from batch.attempt import (
    RETENTION_S,
    Attempt,
    Doubt,
    Intended,
    Open,
    PaidTask,
    Unconfirmed,
)
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind
from batch.output.rescue import Rescue
from batch.output.state import Put, State
from batch.provider.answers import AccountRefused, Found, NotFound, QueryAnswer, Task, Unavailable
from batch.provider.protocol import VideoApi
from batch.run.address import Address
from batch.run.claims import Claims
from batch.run.context import RunContext
from batch.run.proof import LookUpProof, Past
from batch.waker import sleep

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
REMEMBER_WAITS_S = (1.0, 5.0)  # between queries for an attempt that may be forgotten
RARE_WAIT_S = 60.0  # between queries that only a callback can make succeed
GONE_AFTER = 3  # "not found" in a row: one may be a lag, and clocks may jump
SENT_BEFORE = Failure(
    FailureKind.NETWORK, "the answer to an earlier submission of it was lost, and no task was found"
)


class LookUp:
    """Finds tasks by external id, and knows what "not found" is worth.

    *rescue* keeps the tasks that the state does not take.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        api: VideoApi,
        state: State,
        past: Past,
        rescue: Rescue | None = None,
    ) -> None:
        self._context = context
        self._api = api
        self._state = state
        self.claims = Claims(context, state, rescue or Rescue())
        self.proof = LookUpProof(context, get=self._get, state=state, past=past)
        self._forgot_at = past.forgot_at
        self.taken_over: set[str] = set()  # external ids whose tasks an earlier run has paid for
        self.address = Address(is_known=past.is_known)

    @property
    def is_proved(self) -> bool:
        """Whether "not found" is to be believed of what was sent to this run's account."""
        return self.proof.is_made

    def is_gone(self, attempt: Attempt, not_found: int) -> bool:
        """Return whether the provider no longer keeps a task that it did not find *not_found* times.

        Only the account that it was sent to can tell, and only after the time for which the provider
        keeps tasks.
        """
        age_s = self._context.clock.now() - attempt.paid_task.submitted_at
        return not_found >= GONE_AFTER and age_s > RETENTION_S and self._is_ours_to_tell(attempt)

    # -- an attempt that the state may have forgotten

    @property
    def state_forgets(self) -> bool:
        """Whether a new attempt may have been made before, and the state no longer knows it.

        A state that was once older than its results is suspected for as long as the provider keeps
        tasks: what it has forgotten can be found so long, and costs one query for each new attempt.
        """
        if self._forgot_at is None:
            return False
        return self._context.clock.now() - self._forgot_at < RETENTION_S

    async def remember(self, attempt: Attempt) -> Attempt | None:
        """Return a new attempt *Open* (committed) if its task exists already.

        One query is enough once the settle time is over: nothing that was forgotten is fresh. If it
        is not answered, the request goes out all the same: its id is that of the forgotten one, so
        that the provider refuses it as a duplicate. Holding it back would only leave it to a person
        who can know no more.
        """
        if not self.state_forgets or attempt.doubt is not None:
            return None
        settled_at = (self._forgot_at or 0.0) + self._context.limits.settle_time_s
        wait_s = min(settled_at - self._context.clock.now(), self._context.limits.settle_time_s)
        for pause_s in (wait_s, *REMEMBER_WAITS_S):
            if await sleep(pause_s, self._context.stop.feeding):
                return None
            answer, existing = await self.existing(attempt, None)
            if existing is not None or self._is_an_answer(answer):
                return existing
        return None

    async def existing(
        self, attempt: Attempt, sent_at: float | None
    ) -> tuple[QueryAnswer, Attempt | None]:
        """Query once; return the answer, and the attempt *Open* (committed) if its task exists."""
        answer, adopted = await self._get(attempt.external_task_id), None
        if isinstance(answer, Found) and await self.claims.take(answer.task, attempt):
            adopted = await self._adopt(attempt, answer.task, sent_at=sent_at, was_named=False)
        return answer, adopted

    # -- a lost attempt

    async def lose(
        self, attempt: Attempt, failure: Failure, *, exists: bool = False, is_quiet: bool = False
    ) -> Attempt:
        """Record that it is not known whether an attempt's request created a task.

        With *is_quiet* the observers are not told.
        """
        attempt = attempt.doubted(self._context.clock.now(), failure, exists=exists)
        await self._state.commit(Put(attempt))
        lost = events.AnswerLost(attempt.job_id, attempt.external_task_id, failure)
        if not is_quiet:
            self._context.notify(lost)
        return attempt

    async def find(
        self,
        attempt: Attempt,
        hint: Hint,
        *,
        was_page: bool = False,
        at_least_s: float = 0.0,
        sent_at: float | None = None,
    ) -> Attempt:
        """Look for the task of a *Lost* attempt, several times over the settle time.

        Args:
            attempt: the attempt, committed as lost.
            hint: may name its task.
            was_page: whether a page answered it, and it was the only request under this id.
            at_least_s: for so long "not found" is not believed, however short the settle time is.
            sent_at: from when on a task may be this run's, which has sent the request; None: it has not.

        Returns:
            The attempt *Open* (found, committed), *Intended* (absent: the same request may go out
            again; not committed; without a doubt if the address is wrong), *Unconfirmed* (it cannot
            be known; not committed), or *Lost* as before when the run is being left.
        """
        limits, clock = self._context.limits, self._context.clock
        settle_s = max(limits.settle_time_s, at_least_s)
        begun = clock.monotonic()
        wait_s = min(FIRST_WAIT_S, limits.settle_time_s / 8)
        while True:
            # An answer tells of the moment when it was asked for. This process may sleep until it is
            # read, and the request may arrive meanwhile.
            elapsed_s = clock.monotonic() - begun
            answer = await self._query(attempt, hint)
            if isinstance(answer, Found) and await self.claims.take(answer.task, attempt):
                named = hint.task_id is not None
                return await self._adopt(attempt, answer.task, sent_at=sent_at, was_named=named)
            if self.address.is_wrong and was_page and elapsed_s >= settle_s:
                return attempt.to(Intended(clock.now()))
            # Whether the task exists is asked until the settle time is over; whether anything
            # answers at all, for as long as a task would be waited for.
            patience_s = limits.task_timeout_s
            limit_s = settle_s if self._is_an_answer(answer) else patience_s
            longest_wait_s = LONGEST_WAIT_S
            if limit_s < patience_s and self._may_be_named(attempt):
                limit_s = patience_s
                longest_wait_s = LONGEST_WAIT_S if elapsed_s < settle_s else RARE_WAIT_S
            if elapsed_s >= limit_s:
                await self.proof.make_by_older()
                return self._give_up(attempt, answer)
            left_s = limit_s - (clock.monotonic() - begun)
            wait_s = min(wait_s, max(left_s, 0.01))
            await sleep(wait_s, self._context.stop.leaving, hint.named)
            if self._context.stop.leaving.is_set():
                return attempt
            wait_s = min(wait_s * 2, longest_wait_s)

    async def _query(self, attempt: Attempt, hint: Hint) -> QueryAnswer:
        """Query by our id; or by the one that a callback has named, and believe only the answer."""
        if hint.task_id is not None:
            hint.named.clear()
            named, names_us = hint.task_id, hint.names_us
            answer = await self._get(named)
            if isinstance(answer, Found):
                says = answer.task.external_task_id
                is_it = says is None and names_us and answer.task.task_id == named
                is_named = is_it or says == attempt.external_task_id
                if is_named and await self.claims.is_free(answer.task, attempt):
                    return answer
                if hint.task_id == named:
                    hint.task_id = None  # another attempt's; one that is not found yet is kept
        return await self._get(attempt.external_task_id)

    async def _get(self, identifier: str) -> QueryAnswer:
        answer = await self._api.query(identifier)
        self.address.note(answer)
        return answer

    def _is_an_answer(self, answer: QueryAnswer) -> bool:
        """Return whether waiting changes nothing: not found, or look-up may not be served."""
        match answer:
            case NotFound():
                return True
            case Unavailable(failure=failure) | AccountRefused(failure=failure):
                is_final = failure.http_status is not None and failure.http_status < 500
                return is_final and failure.http_status != 429 and not self.is_proved
            case _:
                return False

    def _may_be_named(self, attempt: Attempt) -> bool:
        """Return whether a callback may still name a task that look-up cannot find.

        It comes when the task ends, long after the settle time.
        """
        return attempt.token_hash is not None and not self._can_be_absent(attempt)

    async def _adopt(
        self, attempt: Attempt, task: Task, *, sent_at: float | None, was_named: bool
    ) -> Attempt:
        submitted_at = task.created_at or self._context.clock.now()
        attempt = attempt.to(Open(PaidTask(task.task_id, submitted_at, task.request_id)))
        await self.claims.record(attempt)
        if task.external_task_id == attempt.external_task_id and not was_named:
            # It was found, and names its external id itself. What a callback has named may have been
            # found by its task id, which proves nothing about look-up by ours.
            await self.proof.record()
        created_at = math.inf if task.created_at is None else task.created_at
        is_new = sent_at is not None and created_at >= sent_at
        if not is_new:
            self.taken_over.add(attempt.external_task_id)
        adopted = events.Adopted(attempt.job_id, task.task_id, attempt.external_task_id, is_new)
        self._context.notify(adopted)
        return attempt

    def _give_up(self, attempt: Attempt, answer: QueryAnswer) -> Attempt:
        now, doubt = self._context.clock.now(), attempt.doubt
        assert doubt is not None
        if isinstance(answer, NotFound) and self._can_be_absent(attempt):
            return attempt.to(Intended(now, replace(doubt, failure=SENT_BEFORE)))
        why = self._why_unknown(attempt, doubt, answer)
        message = f"{why} (cause: {doubt.failure.message})"
        failure = replace(doubt.failure, kind=FailureKind.UNCONFIRMED, message=message)
        return attempt.to(Unconfirmed(now, replace(doubt, failure=failure)))

    def _why_unknown(self, attempt: Attempt, doubt: Doubt, answer: QueryAnswer) -> str:
        account = self._context.account
        if attempt.account.base_url != account.base_url:
            address = attempt.account.base_url
            return f"it was submitted to another base URL ({address}), which alone can tell"
        if attempt.account != account:
            return "it was submitted with another key, and only that one's account can tell"
        if doubt.exists:
            return "the provider says that the task exists, but does not find it by its external id"
        if not isinstance(answer, NotFound):
            return "the answer to its submission was lost, and look-up is not answered"
        if doubt.on_request and self.is_proved:
            return "it was submitted again on request, and what became of that was lost"
        return (
            "the answer to its submission was lost, the task was not found, and look-up by"
            " external id has not been seen to work at this address"
        )

    # -- what an answer is worth

    def _can_be_absent(self, attempt: Attempt) -> bool:
        """Return whether "not found" proves that there is no task."""
        doubt = attempt.doubt
        assert doubt is not None
        if doubt.exists or (doubt.on_request and not self._context.policy.resubmit_unconfirmed):
            return False
        return self.is_proved and self._is_ours_to_tell(attempt)

    def _is_ours_to_tell(self, attempt: Attempt) -> bool:
        """Return whether it was sent to the address, and with the key, that are used now."""
        return attempt.account == self._context.account
