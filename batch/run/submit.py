"""Submit: the one stage that costs money.

For each request, in this order: a turn at the door → the intent on disk → the POST → what became of
it on disk. What surely created nothing takes its intent back and waits, with the same external id.
What nobody knows is looked up before anything else happens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batch import events
from batch.callbacks.hints import Hint
from batch.clock import Clock
from batch.events import Event
from batch.job import Attempt, Failed, Failure, FailureKind, Intended, Lost, Open, Unconfirmed
from batch.output.changes import Put, Withdraw
from batch.output.writer import Journal
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Refused,
    Saturated,
    Stale,
    SubmitAnswer,
    Task,
    Throttled,
    Unsent,
)
from batch.provider.protocol import VideoApi
from batch.run.backoff import delay
from batch.run.gate import Pacer, Slots
from batch.run.lookup import LookUp
from batch.run.stop import Stop, StopReason

SEND_WITHIN_S = 10.0  # money rule 7: an intent older than this is looked up, not sent
WALLS = 3
REFUSAL_BASE_S = 1.0
REFUSAL_CAP_S = 60.0
SENT_BEFORE = Failure(
    FailureKind.NETWORK, "the answer to an earlier submission of it was lost, and no task was found"
)
ANOTHERS = Failure(FailureKind.PROVIDER, "the answer to its submission was about another task")


def still_on_its_way(since: float, now: float) -> float:
    """Return for how many more seconds a request of that intent may go out (money rule 7).

    Whoever meant to send it may be asleep, not dead. Both are wall-clock times, which may jump:
    the answer is never more than a request may take to be sent.
    """
    return min(max(since + SEND_WITHIN_S - now, 0.0), SEND_WITHIN_S)


class Submitter:
    """Turns an intended attempt into an open task, or into a failure that is somebody's."""

    def __init__(
        self,
        *,
        api: VideoApi,
        journal: Journal,
        pacer: Pacer,
        slots: Slots,
        lookup: LookUp,
        stop: Stop,
        clock: Clock,
        rng: random.Random,
        notify: Callable[[Event], None],
        patience_s: float,
        callback_url: Callable[[str], tuple[str, str] | None],
    ) -> None:
        self._api = api
        self._journal = journal
        self._pacer = pacer
        self._slots = slots
        self._lookup = lookup
        self._stop = stop
        self._clock = clock
        self._rng = rng
        self._notify = notify
        self._patience_s = patience_s
        self._callback_url = callback_url
        self._walls = 0
        self._refusals = 0  # in a row, of the whole run: they say how the account is

    async def submit(
        self,
        attempt: Attempt,
        *,
        order: int,
        has_turn: bool = False,
        resent: bool = False,
        unsure: Unconfirmed | None = None,
        hint: Hint | None = None,
    ) -> Attempt | None:
        """Send an attempt's request. The caller holds a slot, and still does afterwards.

        *has_turn*: the caller has waited at the door already. *resent*: the external id may have
        been sent before. *unsure*: it was, and nobody knows what became of it; the person wants it
        sent all the same, and what this request did not create may exist from then: the attempt
        falls back to that, and is never taken back.

        Returns the attempt *Open* (committed), *Failed* or *Unconfirmed* (to be committed with its
        row), *Lost* when the run is left in between, or None: nothing was created and the run is
        stopping, the job is as if it had never been begun.
        """
        give_up_at = self._clock.monotonic() + self._patience_s
        doubt = self._doubt(unsure, resent=resent)
        while has_turn or await self._pacer.turn(self._stop.feeding):
            has_turn = False
            not_after = self._clock.monotonic() + SEND_WITHIN_S
            attempt, body = self._request(attempt.to(Intended(since=self._clock.now())))
            await self._journal.commit(Put(attempt))
            answer = self._as_believed(
                await self._api.submit(body, not_after=not_after, resent=resent), attempt
            )
            match answer:
                case Created(task):
                    return await self._open(attempt, task)
                case Exists(failure) | Ambiguous(failure) | Stale(failure):
                    exists = isinstance(answer, Exists)
                    attempt = await self.find(attempt, failure, exists=exists, hint=hint)
                    if not isinstance(attempt.state, Intended):
                        return attempt
                    resent = True
                    doubt = self._doubt(unsure, resent=True)
                    if self._clock.monotonic() >= give_up_at:
                        attempt = await self._take_back(attempt, doubt)
                        return self._give_up(attempt, failure, doubt)
                case Refused(failure):
                    return await self._refused(attempt, failure, unsure)
                case AccountRefused(failure):
                    return await self._account_refused(attempt, failure, doubt)
                case Throttled() | Saturated() | Unsent():
                    attempt = await self._take_back(attempt, doubt)
                    if self._clock.monotonic() >= give_up_at:
                        return self._give_up(attempt, answer.failure, doubt)
                    await self._wait(attempt, answer, order)
        return None

    def _as_believed(
        self, answer: SubmitAnswer | Unsent | Stale, attempt: Attempt
    ) -> SubmitAnswer | Unsent | Stale:
        """A task that is another attempt's says nothing about what became of this one."""
        if isinstance(answer, Created) and not self._lookup.claim(answer.task, attempt):
            return Ambiguous(ANOTHERS)
        return answer

    def _doubt(self, unsure: Unconfirmed | None, *, resent: bool) -> Unconfirmed | None:
        """What may have been sent before is not forgotten, even where look-up calls it absent."""
        if unsure is None and resent:
            return Unconfirmed(self._clock.now(), SENT_BEFORE)
        return unsure

    def _give_up(self, attempt: Attempt, failure: Failure, doubt: Unconfirmed | None) -> Attempt:
        """Nothing went through for too long: a failure, or as unknown as it was before."""
        now = self._clock.now()
        if doubt is None:
            return attempt.to(Failed(failure, now))
        return attempt.to(Unconfirmed(now, doubt.failure, doubt.exists))

    async def _refused(
        self, attempt: Attempt, failure: Failure, unsure: Unconfirmed | None
    ) -> Attempt:
        """This request is refused for ever, by the rules of today; see *unsure* in `submit`."""
        if unsure is None:  # what is wrong with it was wrong with it before, too
            return attempt.to(Failed(failure, self._clock.now()))
        message = f"sent again, it was refused ({failure.message}); {unsure.failure.message}"
        attempt = await self._take_back(attempt, unsure)
        told = replace(unsure, failure=replace(unsure.failure, message=message))
        return self._give_up(attempt, failure, told)

    async def _account_refused(
        self, attempt: Attempt, failure: Failure, doubt: Unconfirmed | None
    ) -> Attempt | None:
        """The whole account is refused, and the run stops; or it is a wall before this one job."""
        if not self._is_one_wall(failure):
            await self._take_back(attempt, doubt)
            self._stop_for_account(failure)
            return None
        if doubt is not None:
            attempt = await self._take_back(attempt, doubt)
        return self._give_up(attempt, replace(failure, kind=FailureKind.PROVIDER), doubt)

    def _is_one_wall(self, failure: Failure) -> bool:
        """A firewall's page (403 without a code) may be about this prompt; a few in a row are not."""
        if failure.http_status != 403 or failure.code is not None:
            return False
        self._walls += 1
        return self._walls < WALLS

    async def _take_back(self, attempt: Attempt, doubt: Unconfirmed | None) -> Attempt:
        """Undo the intent on disk: this request surely created nothing."""
        if doubt is None:
            await self._journal.commit(Withdraw(attempt.external_task_id))
            return attempt
        attempt = attempt.to(Lost(self._clock.now(), doubt.failure, exists=doubt.exists))
        await self._journal.commit(Put(attempt))
        return attempt

    async def find(
        self,
        attempt: Attempt,
        failure: Failure,
        *,
        exists: bool = False,
        hint: Hint | None = None,
        at_least_s: float = 0.0,
    ) -> Attempt:
        """Treat the attempt as lost, and look for its task; see `LookUp.find`."""
        attempt = attempt.to(Lost(self._clock.now(), failure, exists=exists))
        await self._journal.commit(Put(attempt))
        self._notify(events.AnswerLost(attempt.job_id, attempt.external_task_id, failure))
        return await self.look_up(attempt, hint, at_least_s=at_least_s)

    async def look_up(
        self, attempt: Attempt, hint: Hint | None = None, *, at_least_s: float = 0.0
    ) -> Attempt:
        """Look for the task of a *Lost* attempt, and tell if it was found; see `LookUp.find`."""
        attempt = await self._lookup.find(attempt, hint, at_least_s=at_least_s)
        if isinstance(attempt.state, Open):
            self._notify(
                events.Adopted(attempt.job_id, attempt.state.task_id, attempt.external_task_id)
            )
        return attempt

    def _request(self, attempt: Attempt) -> tuple[Attempt, dict[str, Any]]:
        """Complete the body with what is the runner's own."""
        body = attempt.body()
        body["external_task_id"] = attempt.external_task_id
        callback = self._callback_url(attempt.external_task_id)
        if callback is not None:
            body["callback_url"], token_hash = callback
            attempt = replace(attempt, token_hash=token_hash)
        return attempt, body

    async def _open(self, attempt: Attempt, task: Task) -> Attempt:
        attempt = attempt.to(Open(task.task_id, self._clock.now(), task.request_id))
        await self._journal.commit(Put(attempt))
        self._lookup.unclaim(task)
        self._refusals = self._walls = 0
        self._notify(
            events.Submitted(attempt.job_id, task.task_id, attempt.external_task_id, attempt.number)
        )
        if self._lookup.wants_proof:
            await self._lookup.prove(attempt)
        return attempt

    def _stop_for_account(self, failure: Failure) -> None:
        sentence = f"the provider refuses the account: {failure.message}; nothing more is submitted"
        if self._stop.ask(StopReason.ACCOUNT, sentence):
            self._notify(events.Stopping(sentence))

    async def _wait(
        self, attempt: Attempt, answer: Throttled | Saturated | Unsent, order: int
    ) -> None:
        """Wait until the request may be worth another try."""
        asked_s = None if isinstance(answer, Unsent) else answer.retry_after_s
        wait_s = delay(
            self._refusals + 1,
            asked_s,
            base_s=REFUSAL_BASE_S,
            cap_s=REFUSAL_CAP_S,
            rng=self._rng,
        )
        self._notify(events.Refused(attempt.job_id, answer.failure, wait_s))
        if not isinstance(answer, Saturated):
            if not self._pacer.is_paused:  # those refused at the same time are one refusal
                self._refusals += 1
            self._pacer.pause(wait_s)
            return
        if not self._pacer.is_paused:
            self._refusals += 1
            # Refused again and nothing taken in between: others fill the account, and no end of a
            # task of ours will free a slot.
            if self._refusals > 1:
                self._pacer.pause(wait_s)
        if asked_s is not None:
            self._pacer.pause(asked_s)
        self._slots.saturated()
        self._slots.release()
        await self._slots.acquire(order)
