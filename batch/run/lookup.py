"""Asking for a task by our own external id: the way home for a submission whose answer was lost.

"Not found" proves absence only where look-up is known to work (money rule 3): on this base URL and
with this key, a task whose id we knew was found by its external id. The first task that a run sees
accepted pays for that proof with one GET; it is remembered, and renewed when it is old.
"""

from __future__ import annotations

from collections.abc import Callable

from batch.callbacks.hints import Hint
from batch.clock import Clock
from batch.job import Attempt, Failure, FailureKind, Intended, Lost, Open, Unconfirmed
from batch.output.changes import Proof, Put
from batch.output.writer import Journal
from batch.provider.answers import AccountRefused, Found, NotFound, QueryAnswer, Task, Unavailable
from batch.provider.protocol import VideoApi
from batch.provider.wire import RETENTION_S
from batch.run.stop import Stop
from batch.waker import sleep

PROOF_LASTS_S = 7 * 24 * 3600.0
PROOF_TRIES = 3  # per run; a fresh task may be invisible for some seconds
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
RARE_WAIT_S = 60.0  # between looks that only a callback can make succeed
GONE_LOOKS = 3  # in a row: one "not found" may be a lag, and clocks may jump


class LookUp:
    """Finds tasks by external id, and knows what "not found" is worth."""

    def __init__(
        self,
        *,
        api: VideoApi,
        journal: Journal,
        stop: Stop,
        clock: Clock,
        base_url: str,
        account: str,
        proved_at: float | None,
        owner_of: Callable[[str], str | None],
        settle_time_s: float,
        patience_s: float,
    ) -> None:
        self._api = api
        self._journal = journal
        self._stop = stop
        self._clock = clock
        self._base_url = base_url
        self._account = account
        self._owner_of = owner_of
        self._claimed: dict[str, str] = {}  # tasks about to be committed, and for which attempt
        self._settle_time_s = settle_time_s
        self._patience_s = patience_s
        age = None if proved_at is None else clock.now() - proved_at
        self._is_proved = age is not None and 0 <= age < PROOF_LASTS_S  # clocks may be set back
        self._tries_left = PROOF_TRIES

    @property
    def is_proved(self) -> bool:
        """Whether "not found" is to be believed on this base URL, of what this key has sent."""
        return self._is_proved

    def is_gone(self, attempt: Attempt, submitted_at: float, not_found: int) -> bool:
        """Whether the provider no longer keeps a task that it did not find *not_found* times in a row.

        Only whom it was sent to, with that key, can tell, and only after the time for which the
        provider keeps tasks.
        """
        is_old = self._clock.now() - submitted_at > RETENTION_S
        return not_found >= GONE_LOOKS and is_old and self._is_ours_to_tell(attempt)

    @property
    def wants_proof(self) -> bool:
        """Whether an open task should be asked for by its external id, to see if that works."""
        return not self._is_proved and self._tries_left > 0

    async def prove(self, attempt: Attempt) -> QueryAnswer:
        """Ask for an open task by its external id; finding the right one is the proof."""
        self._tries_left -= 1
        answer = await self._api.query(attempt.external_task_id)
        if isinstance(answer, Found) and answer.task.task_id == attempt.task_id:
            await self._remember()
        return answer

    async def find(
        self, attempt: Attempt, hint: Hint | None = None, *, at_least_s: float = 0.0
    ) -> Attempt:
        """Look for the task of a `Lost` attempt, several times over the settle time.

        *at_least_s*: for so long "not found" is not believed, however short the settle time is.
        The attempt comes back *Open* (found, committed), *Intended* (surely absent: the same
        request may go out again, nothing committed yet), *Unconfirmed* (nobody knows, not
        committed yet), or as it was when the run is being left. A *hint* may name its task.
        """
        state = attempt.state
        assert isinstance(state, Lost)
        settle_s = max(self._settle_time_s, at_least_s)
        begun = self._clock.monotonic()
        wait_s = min(FIRST_WAIT_S, self._settle_time_s / 8)
        while True:
            answer = await self._ask(attempt, hint)
            if isinstance(answer, Found) and self.claim(answer.task, attempt):
                named = None if hint is None else hint.task_id
                return await self._adopt(attempt, answer.task, was_named=named is not None)
            elapsed = self._clock.monotonic() - begun
            # Whether the task is there is asked until the settle time is over; whether anybody
            # answers at all, as long as we would wait for a task.
            limit = settle_s if self._is_an_answer(answer) else self._patience_s
            longest_wait_s = LONGEST_WAIT_S
            if limit < self._patience_s and self._may_be_named(attempt, state, hint):
                limit = self._patience_s
                longest_wait_s = LONGEST_WAIT_S if elapsed < settle_s else RARE_WAIT_S
            if elapsed >= limit:
                return self._give_up(attempt, state, answer)
            wait_s = min(wait_s, max(limit - elapsed, 0.01))
            wakers = [self._stop.leaving] if hint is None else [self._stop.leaving, hint.named]
            await sleep(wait_s, *wakers)
            if self._stop.leaving.is_set():
                return attempt
            wait_s = min(wait_s * 2, longest_wait_s)

    def _is_an_answer(self, answer: QueryAnswer) -> bool:
        """Whether there is nothing more to wait for: it was not found, or look-up may not be served."""
        match answer:
            case NotFound():
                return True
            case Unavailable(failure) | AccountRefused(failure):
                is_final = failure.http_status is not None and failure.http_status < 500
                return is_final and failure.http_status != 429 and not self._is_proved
            case _:
                return False

    def _may_be_named(self, attempt: Attempt, state: Lost, hint: Hint | None) -> bool:
        """Whether a callback may still bring home what looking up cannot tell.

        It comes when the task ends, long after the settle time.
        """
        can_come = hint is not None and attempt.token_hash is not None
        return can_come and not self._can_be_absent(attempt, state)

    async def _ask(self, attempt: Attempt, hint: Hint | None) -> QueryAnswer:
        """Ask by our id; or by the one that a callback has named, and believe only the answer."""
        if hint is not None and hint.task_id is not None:
            hint.named.clear()
            named, names_us = hint.task_id, hint.names_us
            answer = await self._api.query(named)
            if isinstance(answer, Found):
                says = answer.task.external_task_id
                if (says is not None or names_us) and self._is_of(answer.task, attempt):
                    return answer
                if hint.task_id == named:
                    hint.task_id = None  # somebody else's; one that is not found yet is kept
        return await self._api.query(attempt.external_task_id)

    def claim(self, task: Task, attempt: Attempt) -> bool:
        """Take a task for an attempt, if it is the attempt's as far as can be told.

        A relay that ignores what it was asked and answers with any task must not be believed. Nor
        may two attempts take one task in the moment before the first of them is on disk: whoever
        claims commits next, and then calls `unclaim`.
        """
        if not self._is_of(task, attempt):
            return False
        self._claimed[task.task_id] = attempt.external_task_id
        return True

    def unclaim(self, task: Task) -> None:
        """From now on the state says whose the task is."""
        self._claimed.pop(task.task_id, None)

    def _is_of(self, task: Task, attempt: Attempt) -> bool:
        if task.external_task_id not in {None, attempt.external_task_id}:
            return False
        owner = self._claimed.get(task.task_id) or self._owner_of(task.task_id)
        return owner in {None, attempt.external_task_id}

    def _can_be_absent(self, attempt: Attempt, state: Lost) -> bool:
        """Whether "not found" proves that there is no task: only to whom would have found it."""
        return self._is_proved and self._is_ours_to_tell(attempt) and not state.exists

    def _is_ours_to_tell(self, attempt: Attempt) -> bool:
        """Whether it was sent to the address, and with the key, that are used now."""
        return self._is_at_home(attempt) and attempt.account == self._account

    def _is_at_home(self, attempt: Attempt) -> bool:
        """Whether an attempt was sent to the address that is talked to now."""
        return attempt.base_url == self._base_url

    def _give_up(self, attempt: Attempt, state: Lost, answer: QueryAnswer) -> Attempt:
        if isinstance(answer, NotFound) and self._can_be_absent(attempt, state):
            return attempt.to(Intended(since=self._clock.now()))
        if not self._is_at_home(attempt):
            why = f"it was submitted to another address ({attempt.base_url}), which alone can tell"
        elif attempt.account != self._account:
            why = "it was submitted with another key, and only that one's account can tell"
        elif state.exists:
            why = "the provider says that the task exists, but does not find it by its external id"
        elif isinstance(answer, NotFound):
            why = (
                "the answer to its submission was lost, the task was not found, and look-up by"
                " external id has not been seen to work at this address"
            )
        else:
            why = "the answer to its submission was lost, and nobody answers the look-up"
        message = f"{why}; it is looked for again in the next run (cause: {state.failure.message})"
        failure = Failure(
            FailureKind.UNCONFIRMED,
            message,
            code=state.failure.code,
            http_status=state.failure.http_status,
            request_id=state.failure.request_id,
        )
        return attempt.to(Unconfirmed(self._clock.now(), failure, exists=state.exists))

    async def _adopt(self, attempt: Attempt, task: Task, *, was_named: bool) -> Attempt:
        submitted_at = task.created_at or self._clock.now()
        adopted = attempt.to(Open(task.task_id, submitted_at, task.request_id))
        await self._journal.commit(Put(adopted))
        self.unclaim(task)
        if task.external_task_id == attempt.external_task_id and not was_named:
            # It was found, and it says itself whose it is. What a callback has named may have been
            # found by its task id, which proves nothing about looking up by ours.
            await self._remember()
        return adopted

    async def _remember(self) -> None:
        if not self._is_proved:
            self._is_proved = True
            await self._journal.commit(Proof(self._base_url, self._account, self._clock.now()))
