"""Whether look-up works: on this base URL and with this key, a task of ours was found by its external id.

Only then does "not found" prove absence (money rule 3). The first task that a run sees accepted pays
for that proof with one GET; it is recorded, and renewed when it is old.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from batch.attempt import Attempt
from batch.frozen import frozen
from batch.output.state import Proof, State
from batch.provider.answers import Found, QueryAnswer
from batch.run.context import RunContext

PROOF_LASTS_S = 7 * 24 * 3600.0
PROOF_TRIES = 3  # per run; a fresh task may be invisible for some seconds


@frozen
class Past:
    """What earlier runs leave to look-up.

    *proved_at* is when it was last seen to work for this run's account, *older* an attempt whose task
    may still prove that. *is_known*: a task was seen at this base URL, with any key. *forgot_at* is
    when the state was found to have forgotten tasks.
    """

    proved_at: float | None = None
    older: Attempt | None = None
    is_known: bool = False
    forgot_at: float | None = None


class LookUpProof:
    """The proof of a run's account: earlier, recorded, or still to be made.

    *get* queries the provider by an id.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        get: Callable[[str], Awaitable[QueryAnswer]],
        state: State,
        past: Past,
    ) -> None:
        self._context = context
        self._get = get
        self._state = state
        self.is_made = self._is_fresh(past.proved_at)
        self._tries_left = PROOF_TRIES
        self._older = past.older

    @property
    def is_wanted(self) -> bool:
        """Whether an open task should be queried by its external id, to see if that works."""
        return not self.is_made and self._tries_left > 0

    async def make(self, attempt: Attempt) -> QueryAnswer:
        """Query an open task by its external id; finding the right one is the proof."""
        self._tries_left -= 1
        answer = await self._get(attempt.external_task_id)
        if isinstance(answer, Found) and answer.task.task_id == attempt.task_id:
            await self.record()
        return answer

    async def make_by_older(self) -> None:
        """Query an older task by its external id, once in a run: found, it is the proof as well.

        So what was lost is settled also on a night on which nothing new is accepted.
        """
        await self.learn()
        older, self._older = self._older, None
        if older is not None and not self.is_made:
            await self.make(older)

    async def learn(self) -> None:
        """Take over the proof that another worker has recorded since this one began."""
        if not self.is_made:
            self.is_made = self._is_fresh(await self._state.proved_at(self._context.account))

    def _is_fresh(self, proved_at: float | None) -> bool:
        age_s = None if proved_at is None else self._context.clock.now() - proved_at
        return age_s is not None and 0 <= age_s < PROOF_LASTS_S  # clocks may be set back

    async def record(self) -> None:
        """Record that a task of ours was found by its external id."""
        if not self.is_made:
            self.is_made = True
            await self._state.commit(Proof(self._context.account, self._context.clock.now()))
