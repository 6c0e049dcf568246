"""Look-up: find a task by our own external id when the answer to its submission was lost.

"Not found" proves absence only where look-up is known to work (money rule 3): on this base URL and
with this key, a task whose id we knew was found by its external id. The first task that a run sees
accepted pays for that proof with one GET; it is recorded, and renewed when it is old.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from batch import events
from batch.attempt import Attempt, Doubt, Intended, Open, PaidTask, Unconfirmed
from batch.callbacks.hints import Hint
from batch.errors import RefusedError, StateError
from batch.job import Failure, FailureKind
from batch.output.rescue import Rescue
from batch.output.state import Proof, Put, State
from batch.provider.answers import AccountRefused, Found, NotFound, QueryAnswer, Task, Unavailable
from batch.provider.protocol import VideoApi
from batch.provider.wire import RETENTION_S
from batch.run.address import Address
from batch.run.context import RunContext
from batch.waker import sleep

PROOF_LASTS_S = 7 * 24 * 3600.0
PROOF_TRIES = 3  # per run; a fresh task may be invisible for some seconds
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
RARE_WAIT_S = 60.0  # between queries that only a callback can make succeed
GONE_AFTER = 3  # "not found" in a row: one may be a lag, and clocks may jump
SENT_BEFORE = Failure(
    FailureKind.NETWORK, "the answer to an earlier submission of it was lost, and no task was found"
)


class LookUp:
    """Finds tasks by external id, and knows what "not found" is worth.

    *proved_at* is when look-up was last seen to work for this run's account, *older* an attempt of
    it whose task may still prove that. *is_known*: a task was seen at this base URL, with any key.
    *rescue* keeps the tasks that the state does not take.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        api: VideoApi,
        state: State,
        proved_at: float | None,
        older: Attempt | None = None,
        is_known: bool = False,
        rescue: Rescue | None = None,
    ) -> None:
        self._context = context
        self._api = api
        self._state = state
        self._claimed: dict[str, str] = {}  # tasks about to be committed, and for which attempt
        age_s = None if proved_at is None else context.clock.now() - proved_at
        self._is_proved = age_s is not None and 0 <= age_s < PROOF_LASTS_S  # clocks may be set back
        self._tries_left = PROOF_TRIES
        self._older = older
        self._rescue = rescue or Rescue()
        self.taken_over: set[str] = set()  # external ids whose tasks an earlier run has paid for
        self.address = Address(is_known=is_known)

    @property
    def is_proved(self) -> bool:
        """Whether "not found" is to be believed of what was sent to this run's account."""
        return self._is_proved

    def is_gone(self, attempt: Attempt, not_found: int) -> bool:
        """Return whether the provider no longer keeps a task that it did not find *not_found* times.

        Only the account that it was sent to can tell, and only after the time for which the provider
        keeps tasks.
        """
        age_s = self._context.clock.now() - attempt.paid_task.submitted_at
        return not_found >= GONE_AFTER and age_s > RETENTION_S and self._is_ours_to_tell(attempt)

    # -- the proof

    @property
    def wants_proof(self) -> bool:
        """Whether an open task should be queried by its external id, to see if that works."""
        return not self._is_proved and self._tries_left > 0

    async def prove(self, attempt: Attempt) -> QueryAnswer:
        """Query an open task by its external id; finding the right one is the proof."""
        self._tries_left -= 1
        answer = await self._get(attempt.external_task_id)
        if isinstance(answer, Found) and answer.task.task_id == attempt.task_id:
            await self._record_proof()
        return answer

    async def _prove_by_older(self) -> None:
        """Query an older task by its external id, once in a run: found, it is the proof as well.

        So what was lost is settled also on a night on which nothing new is accepted.
        """
        older, self._older = self._older, None
        if older is not None and not self._is_proved:
            await self.prove(older)

    async def _record_proof(self) -> None:
        if not self._is_proved:
            self._is_proved = True
            await self._state.commit(Proof(self._context.account, self._context.clock.now()))

    # -- a lost attempt

    async def lose(self, attempt: Attempt, failure: Failure, *, exists: bool = False) -> Attempt:
        """Record that it is not known whether an attempt's request created a task."""
        attempt = attempt.doubted(self._context.clock.now(), failure, exists=exists)
        await self._state.commit(Put(attempt))
        lost = events.AnswerLost(attempt.job_id, attempt.external_task_id, failure)
        self._context.notify(lost)
        return attempt

    async def find(
        self,
        attempt: Attempt,
        hint: Hint,
        *,
        is_new: bool = False,
        was_page: bool = False,
        at_least_s: float = 0.0,
    ) -> Attempt:
        """Look for the task of a *Lost* attempt, several times over the settle time.

        Args:
            attempt: the attempt, committed as lost.
            hint: may name its task.
            is_new: whether this run has sent the request.
            was_page: whether a page answered it, and it was the only request under this id.
            at_least_s: for so long "not found" is not believed, however short the settle time is.

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
            answer = await self._query(attempt, hint)
            if isinstance(answer, Found) and await self.claim(answer.task, attempt):
                named = hint.task_id is not None
                return await self._adopt(attempt, answer.task, is_new=is_new, was_named=named)
            elapsed_s = clock.monotonic() - begun
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
                await self._prove_by_older()
                return self._give_up(attempt, answer)
            wait_s = min(wait_s, max(limit_s - elapsed_s, 0.01))
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
                is_named = says == attempt.external_task_id or (says is None and names_us)
                if is_named and await self._is_free(answer.task, attempt):
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
                return is_final and failure.http_status != 429 and not self._is_proved
            case _:
                return False

    def _may_be_named(self, attempt: Attempt) -> bool:
        """Return whether a callback may still name a task that look-up cannot find.

        It comes when the task ends, long after the settle time.
        """
        return attempt.token_hash is not None and not self._can_be_absent(attempt)

    async def _adopt(
        self, attempt: Attempt, task: Task, *, is_new: bool, was_named: bool
    ) -> Attempt:
        submitted_at = task.created_at or self._context.clock.now()
        attempt = attempt.to(Open(PaidTask(task.task_id, submitted_at, task.request_id)))
        await self.record(attempt)
        if task.external_task_id == attempt.external_task_id and not was_named:
            # It was found, and names its external id itself. What a callback has named may have been
            # found by its task id, which proves nothing about look-up by ours.
            await self._record_proof()
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
        message = f"{why}; the next run looks for it again (cause: {doubt.failure.message})"
        failure = replace(doubt.failure, kind=FailureKind.UNCONFIRMED, message=message)
        return attempt.to(Unconfirmed(now, replace(doubt, failure=failure)))

    def _why_unknown(self, attempt: Attempt, doubt: Doubt, answer: QueryAnswer) -> str:
        account = self._context.account
        if attempt.account.base_url != account.base_url:
            address = attempt.account.base_url
            return f"it was submitted to another address ({address}), which alone can tell"
        if attempt.account != account:
            return "it was submitted with another key, and only that one's account can tell"
        if doubt.exists:
            return "the provider says that the task exists, but does not find it by its external id"
        if not isinstance(answer, NotFound):
            return "the answer to its submission was lost, and look-up is not answered"
        if doubt.on_request and self._is_proved:
            return "it was submitted again on request, and what became of that was lost"
        return (
            "the answer to its submission was lost, the task was not found, and look-up by"
            " external id has not been seen to work at this address"
        )

    # -- whose a task is

    async def claim(self, task: Task, attempt: Attempt, *, is_answer: bool = False) -> bool:
        """Take a task for an attempt, if it is the attempt's as far as can be told.

        A relay that ignores what it was asked and answers with any task must not be believed: the
        task names our external id, or none. Only the answer to the POST itself (*is_answer*) may
        name one that the relay made, as long as it is no other attempt's. Nor may two attempts take
        one task in the moment before the first of them is on disk: a caller that has claimed calls
        `record` next.
        """
        is_other = task.external_task_id not in {None, attempt.external_task_id}
        if is_other and (not is_answer or attempt.is_anothers(task.external_task_id)):
            return False
        holder = self._claimed.setdefault(task.task_id, attempt.external_task_id)
        if await self._is_free(task, attempt):
            return True
        if holder == attempt.external_task_id:
            self.unclaim(task.task_id)
        return False

    def unclaim(self, task_id: str) -> None:
        """From now on the state says whose the task is."""
        self._claimed.pop(task_id, None)

    async def record(self, attempt: Attempt) -> None:
        """Commit an *Open* attempt whose task was claimed.

        Raises:
            StateError: it cannot be written. The task is told, and kept in a rescue file.
        """
        task_id = attempt.paid_task.task_id
        try:
            await self._state.commit(Put(attempt))
        except RefusedError:
            raise
        except StateError:
            file = self._rescue.keep(attempt)
            self._context.notify(
                events.TaskRescued(attempt.job_id, task_id, attempt.external_task_id, file)
            )
            raise
        except asyncio.CancelledError:  # the commit goes on, and nobody learns how it ends
            self._rescue.keep(attempt)
            raise
        self.unclaim(task_id)

    async def _is_free(self, task: Task, attempt: Attempt) -> bool:
        """Return whether no other attempt has claimed or recorded a task."""
        if self._claimed.get(task.task_id) not in {None, attempt.external_task_id}:
            return False
        try:
            owner = await self._state.owner_of(task.task_id)
        except StateError:
            return True  # nothing is lost by it: the state refuses a second owner
        return owner in {None, attempt.external_task_id}

    def _can_be_absent(self, attempt: Attempt) -> bool:
        """Return whether "not found" proves that there is no task."""
        doubt = attempt.doubt
        assert doubt is not None
        if doubt.exists or (doubt.on_request and not self._context.policy.resubmit_unconfirmed):
            return False
        return self._is_proved and self._is_ours_to_tell(attempt)

    def _is_ours_to_tell(self, attempt: Attempt) -> bool:
        """Return whether it was sent to the address, and with the key, that are used now."""
        return attempt.account == self._context.account
