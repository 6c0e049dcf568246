"""Whose a task is: no two attempts may take the same one."""

from __future__ import annotations

import asyncio

from batch import events
from batch.attempt import Attempt
from batch.errors import RefusedError, StateError
from batch.output.rescue import Rescue
from batch.output.state import Put, State
from batch.provider.answers import Task, TaskStatus
from batch.run.context import RunContext

RENAMED_AFTER = 3  # answers in a row that call a task by the same other id


class Claims:
    """Tasks that are about to be committed, and for which attempt.

    *rescue* keeps the tasks that the state does not take.
    """

    def __init__(self, context: RunContext, state: State, rescue: Rescue) -> None:
        self._context = context
        self._state = state
        self._rescue = rescue
        self._claimed: dict[str, str] = {}
        self._renamed: dict[
            str, tuple[str, int]
        ] = {}  # other ids in answers, and how often in a row

    async def take(self, task: Task, attempt: Attempt, *, is_answer: bool = False) -> bool:
        """Take a task for an attempt, if it is the attempt's as far as can be told.

        A relay that ignores what it was asked and answers with any task must not be believed: the
        task names our external id, or none. Only the answer to the POST itself (*is_answer*) may
        name one that the relay made, as long as it is no other attempt's. Nor may two attempts take
        one task in the moment before the first of them is on disk: a caller that has taken one calls
        `record` next.
        """
        is_other = task.external_task_id not in {None, attempt.external_task_id}
        if is_other and (not is_answer or attempt.is_anothers(task.external_task_id)):
            return False
        holder = self._claimed.setdefault(task.task_id, attempt.external_task_id)
        if await self.is_free(task, attempt):
            return True
        if holder == attempt.external_task_id:
            self.release(task.task_id)
        return False

    async def answers(self, task: Task, attempt: Attempt) -> bool:
        """Return whether the answer to a query by an attempt's task id is about its task.

        One answer about another task is a mix-up. A relay that always calls the task otherwise than
        its submission did is believed where it has succeeded, unless the id is another attempt's.
        """
        if attempt.owns(task.task_id, task.external_task_id):
            return True
        known, times = self._renamed.get(attempt.external_task_id, (None, 0))
        times = times + 1 if known == task.task_id else 1
        self._renamed[attempt.external_task_id] = task.task_id, times
        if task.status is not TaskStatus.SUCCEEDED or times < RENAMED_AFTER:
            return False
        return await self.take(task, attempt, is_answer=True)

    def release(self, task_id: str) -> None:
        """From now on the state says whose the task is."""
        self._claimed.pop(task_id, None)

    async def record(self, attempt: Attempt) -> None:
        """Commit an *Open* attempt whose task was taken.

        Raises:
            StateError: it cannot be written. The task is told, and kept in a rescue file.
        """
        task_id = attempt.paid_task.task_id
        try:
            await self._state.commit(Put(attempt))
        except RefusedError:
            raise
        except Exception:  # whatever it is: the task id is nowhere else
            file = self._rescue.keep(attempt)
            self._context.notify(
                events.TaskRescued(attempt.job_id, task_id, attempt.external_task_id, file)
            )
            raise
        except asyncio.CancelledError:  # the commit goes on, and nobody learns how it ends
            self._rescue.keep(attempt)
            raise
        self.release(task_id)

    async def is_free(self, task: Task, attempt: Attempt) -> bool:
        """Return whether no other attempt has claimed or recorded a task."""
        if self._claimed.get(task.task_id) not in {None, attempt.external_task_id}:
            return False
        try:
            owner = await self._state.owner_of(task.task_id)
        except StateError:
            return True  # nothing is lost by it: the state refuses a second owner
        return owner in {None, attempt.external_task_id}
