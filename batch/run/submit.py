"""Submit: the one stage that costs money.

    until the run stops submitting:
        wait for the turn, and put the intent on disk      → `Ticket.intend`
        POST
        created                    → Open, on disk
        perhaps created            → Lost, on disk; look it up; absent: again
        refused for good           → Failed
        the account is refused     → the intent taken back; the run stops
        surely not created         → the intent taken back; wait; again, under the same id

An attempt that may have been sent before carries that doubt through every one of these steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batch import events
from batch.attempt import Attempt, Doubt, Intended, Lost, Open, PaidTask, Unconfirmed
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind
from batch.output.state import Put, State, Withdraw
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
from batch.run.advice import account_advice
from batch.run.context import RunContext
from batch.run.gate import Ticket
from batch.run.lookup import LookUp
from batch.run.stop import StopReason

WALLS = 3
BAD_OR_TAKEN = "1201"  # a bad value, or an external id that exists: told apart by words
ANOTHERS = Failure(FailureKind.PROVIDER, "the answer to its submission was about another task")

CallbackUrl = Callable[[str], tuple[str, str] | None]
"""The callback URL for an external id, and the hash of its token; None without callbacks."""


class Submitter:
    """Turns an intended attempt into an open task, or into a failure."""

    def __init__(
        self,
        context: RunContext,
        *,
        api: VideoApi,
        state: State,
        lookup: LookUp,
        callback_url: CallbackUrl,
    ) -> None:
        self._context = context
        self._api = api
        self._state = state
        self._lookup = lookup
        self._callback_url = callback_url
        self._walls = 0
        self._dead_since: float | None = None  # (monotonic) since when nothing has answered

    async def submit(self, attempt: Attempt, ticket: Ticket, hint: Hint) -> Attempt | None:
        """Send an attempt's request. The caller holds the ticket, and still does afterwards.

        Returns the attempt *Open* (committed), *Failed* or *Unconfirmed* (to be committed with its
        row), *Lost* when the run is left in between, or None: nothing was created, and the job is as
        if it had never been begun.
        """
        known = await self._lookup.remember(attempt)
        return known or await self._submit(attempt, ticket, hint)

    async def _submit(  # noqa: C901 - what each answer leads to, in one place
        self, attempt: Attempt, ticket: Ticket, hint: Hint
    ) -> Attempt | None:
        clock = self._context.clock
        give_up_at, accepted = math.inf, 0
        while True:
            attempt, body = self._request(attempt)
            intended = await ticket.intend(attempt)
            if intended is None:
                return None
            patience_s = self._context.limits.task_timeout_s  # from the first intent on
            give_up_at = min(give_up_at, clock.monotonic() + patience_s)
            attempt = intended
            if self._context.stop.feeding.is_set():
                await self._take_back(attempt)
                return None
            answer = await self._ask(attempt, body, ticket)
            match answer:
                case Created(task):
                    return await self._open(attempt, task, ticket)
                case Refused(failure):
                    return await self._refused(attempt, failure)
                case AccountRefused(failure):
                    return await self._account_refused(attempt, failure)
                case Exists() | Ambiguous() | Stale():
                    accepted += _may_be_accepted(answer)
                    is_enough = accepted >= self._context.limits.max_attempts
                    attempt = await self._find(attempt, answer, hint, is_enough=is_enough)
                    if not isinstance(attempt.state, Intended):
                        return attempt
                    if self._lookup.address.is_wrong:
                        await self._wrong_address(attempt)
                        return None
                case Throttled() | Saturated() | Unsent():
                    attempt = await self._take_back(attempt)
            if clock.monotonic() >= give_up_at or self._stop_if_dead(answer):
                return await self._give_up(attempt, answer.failure)
            if isinstance(answer, Throttled | Saturated | Unsent):
                await ticket.refused(attempt.job_id, answer)

    def _stop_if_dead(self, answer: SubmitAnswer | Unsent | Stale) -> bool:
        """Stop the run when the provider has not been reached for as long as a task may take.

        Otherwise every job would wait as long again. Returns whether it has stopped the run.
        """
        now, patience_s = self._context.clock.monotonic(), self._context.limits.task_timeout_s
        if not isinstance(answer, Unsent):
            return False
        self._dead_since = now if self._dead_since is None else self._dead_since
        if now - self._dead_since < patience_s:
            return False
        self._context.stop.ask(
            StopReason.UNREACHABLE,
            f"the provider could not be reached for {patience_s:.0f} s ({answer.failure.message});"
            " nothing more is submitted",
        )
        return True

    def _request(self, attempt: Attempt) -> tuple[Attempt, dict[str, Any]]:
        """Complete the body with what is the runner's own."""
        body = attempt.body()
        body["external_task_id"] = attempt.external_task_id
        callback = self._callback_url(attempt.external_task_id)
        if callback is not None:
            body["callback_url"], token_hash = callback
            attempt = replace(attempt, token_hash=token_hash)
        return attempt, body

    async def _ask(
        self, attempt: Attempt, body: dict[str, Any], ticket: Ticket
    ) -> SubmitAnswer | Unsent | Stale:
        """Send the request; a task that is another attempt's says nothing about this one."""
        resent = attempt.doubt is not None or self._lookup.state_forgets
        answer = await self._api.submit(body, not_after=ticket.not_after, resent=resent)
        if not isinstance(answer, Unsent | Stale):
            self._dead_since = None
            self._lookup.address.note(answer)
        if isinstance(answer, Created) and not await self._lookup.claims.take(
            answer.task, attempt, is_answer=True
        ):
            return Ambiguous(ANOTHERS)
        return answer

    async def _find(
        self, attempt: Attempt, answer: Exists | Ambiguous | Stale, hint: Hint, *, is_enough: bool
    ) -> Attempt:
        """Look for what a request may have created.

        *is_enough*: it was answered as a success so often that "not found" is not believed any more:
        what accepts it may keep no external ids, although another channel of the gateway does.
        """
        exists = isinstance(answer, Exists) or is_enough
        # A first request that is called a duplicate: the state has forgotten the one before, or a
        # gateway has repeated this one. Which of the two it is, the time of the task tells.
        is_called_taken = isinstance(answer, Exists)
        sent_at = _sent_at(attempt) if is_called_taken and attempt.doubt is None else 0.0
        was_page = isinstance(answer, Ambiguous) and answer.is_page and attempt.doubt is None
        # Where nothing was ever accepted, a page says more about the address than about this job.
        is_quiet = was_page and not self._lookup.address.is_known
        if isinstance(answer, Ambiguous) and answer.likely_id is not None and hint.task_id is None:
            hint.guess(answer.likely_id)
        attempt = await self._lookup.lose(attempt, answer.failure, exists=exists, is_quiet=is_quiet)
        return await self._lookup.find(attempt, hint, was_page=was_page, sent_at=sent_at)

    async def _open(self, attempt: Attempt, task: Task, ticket: Ticket) -> Attempt:
        now = self._context.clock.now()
        attempt = attempt.to(Open(PaidTask(task.task_id, now, task.request_id)))
        await self._lookup.claims.record(attempt)
        self._walls = 0
        await ticket.accepted()
        self._context.notify(
            events.Submitted(attempt.job_id, task.task_id, attempt.external_task_id, attempt.number)
        )
        if self._lookup.proof.is_wanted:
            await self._lookup.proof.make(attempt)
        return attempt

    # -- what was surely not created

    async def _take_back(self, attempt: Attempt) -> Attempt:
        """Undo the intent on disk; what was in doubt before this request still is."""
        if attempt.doubt is None:
            await self._state.commit(Withdraw(attempt.external_task_id))
            return attempt
        attempt = attempt.to(Lost(self._context.clock.now(), attempt.doubt))
        await self._state.commit(Put(attempt))
        return attempt

    async def _give_up(
        self, attempt: Attempt, failure: Failure, doubt: Doubt | None = None
    ) -> Attempt:
        """Return the attempt failed, or as unconfirmed as it was before (by *doubt*, if given)."""
        doubt = doubt or attempt.doubt
        if doubt is None:
            return attempt.failed(self._context.clock.now(), failure)
        if isinstance(attempt.state, Intended):
            attempt = await self._take_back(attempt)
        return attempt.to(Unconfirmed(self._context.clock.now(), doubt))

    async def _refused(self, attempt: Attempt, failure: Failure) -> Attempt:
        """End an attempt whose request is refused for good.

        A request repeated for a person proves nothing about the one before it, which may have been
        accepted under the rules of that time.
        """
        doubt = attempt.doubt
        if doubt is None and failure.code == BAD_OR_TAKEN:
            # The words named no duplicate; asked once, since a forgotten task would be lost for good.
            _, existing = await self._lookup.existing(attempt, _sent_at(attempt))
            if existing is not None:
                return existing
        if doubt is None or not doubt.on_request:
            return attempt.failed(self._context.clock.now(), failure)
        message = f"sent again, it was refused ({failure.message}); {doubt.failure.message}"
        told = replace(doubt, failure=replace(doubt.failure, message=message))
        return await self._give_up(attempt, failure, told)

    async def _account_refused(self, attempt: Attempt, failure: Failure) -> Attempt | None:
        """Stop the run, since the whole account is refused; or it is a wall before this one job."""
        if not self._is_one_wall(failure):
            await self._take_back(attempt)
            self._context.stop.ask(
                StopReason.ACCOUNT,
                f"the provider refuses the account: {failure.message}; nothing more is submitted:"
                f" {account_advice(failure)}",
            )
            return None
        return await self._give_up(attempt, replace(failure, kind=FailureKind.PROVIDER))

    async def _wrong_address(self, attempt: Attempt) -> None:
        """Stop the run: what answers at the base URL is not the API."""
        await self._take_back(attempt)
        self._context.stop.ask(
            StopReason.ACCOUNT,
            f"{self._context.account.base_url} answers with web pages instead of the API's answers;"
            " check the base URL (--base-url). Nothing was created, and nothing more is submitted",
        )

    def _is_one_wall(self, failure: Failure) -> bool:
        """A firewall's page (403 without a code) may be about this prompt; a few in a row are not."""
        if failure.http_status != 403 or failure.code is not None:
            return False
        self._walls += 1
        return self._walls < WALLS


def _may_be_accepted(answer: Exists | Ambiguous | Stale) -> bool:
    """Return whether an answer reads as a success, but for the id of the task."""
    if not isinstance(answer, Ambiguous) or answer.is_page:
        return False
    status = answer.failure.http_status
    return answer.failure == ANOTHERS or (status is not None and 200 <= status < 300)


def _sent_at(attempt: Attempt) -> float:
    assert isinstance(attempt.state, Intended)
    return attempt.state.since
