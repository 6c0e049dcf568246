"""What an earlier run was told of and could not record is taken in, before anything is sent.

A rescue file (`batch.output.rescue`) is believed only as far as the provider confirms it: each task is
asked for. One that cannot be confirmed now is known to exist all the same, and so never sent again by
itself. The file is removed once everything in it is settled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from batch import events
from batch.attempt import Attempt, Lost, Open, PaidTask
from batch.errors import RefusedError
from batch.job import Failure
from batch.output.rescue import Rescue, RescuedTask
from batch.output.state import Put, State
from batch.provider.answers import Found, QueryAnswer
from batch.provider.protocol import VideoApi
from batch.redact import clean
from batch.run.context import RunContext


class Rescuer:
    """Takes the tasks of rescue files in. *taken* are their external ids: no plan counted them."""

    def __init__(self, context: RunContext, *, api: VideoApi, state: State, rescue: Rescue) -> None:
        self._context = context
        self._api = api
        self._state = state
        self._rescue = rescue
        self.taken: set[str] = set()

    async def take_in(self) -> None:
        """Settle what the rescue files hold, and say what cannot be settled.

        Raises:
            StateError: the state cannot be written. The files are left.
        """
        for file in self._rescue.files():
            reasons = [await self._settle(task, file.path) for task in file.tasks]
            if file.is_whole and not any(reasons):
                file.remove()
                continue
            if not file.is_whole:
                reasons.append(f"{file.path} has lines that cannot be read; it is left alone")
            for reason in filter(None, reasons):
                self._context.notify(events.Warned(reason))

    async def _settle(self, rescued: RescuedTask, path: Path) -> str | None:
        """Take one task in; return why it is left in the file, or None."""
        what = f"{path} holds the paid task {clean(rescued.task_id)} of job {clean(rescued.job_id)}"
        try:
            attempt = await self._state.attempt(rescued.external_task_id)
        except KeyError:
            return f"{what}, which this library does not know; it is left alone"
        if attempt.task_id == rescued.task_id:
            return None
        if attempt.account != self._context.account:
            return f"{what}, sent to another address or with another key; it is left alone"
        if attempt.task is not None or attempt.phase.is_finished:
            return f"{what}, and the state says otherwise ({attempt.phase}); it is left alone"
        task = PaidTask(rescued.task_id, rescued.submitted_at)
        answer = await self._api.query(rescued.task_id)
        try:
            return await self._take(attempt, attempt.to(Open(task)), answer, what)
        except RefusedError:
            return f"{what}, which another job owns; it is left alone"

    def _known_to_exist(self, attempt: Attempt, failure: Failure) -> Attempt:
        if isinstance(attempt.state, Lost):
            doubt = replace(attempt.state.doubt, exists=True)
            return replace(attempt, state=replace(attempt.state, doubt=doubt))
        return attempt.doubted(self._context.clock.now(), failure, exists=True)

    async def _take(
        self, before: Attempt, opened: Attempt, answer: QueryAnswer, what: str
    ) -> str | None:
        if isinstance(answer, Found):
            if not opened.owns(answer.task.task_id, answer.task.external_task_id):
                return f"{what}, and the provider answers with another task; it is left alone"
            await self._state.commit(Put(opened))
            self.taken.add(opened.external_task_id)
            assert opened.task_id is not None
            self._context.notify(
                events.Adopted(opened.job_id, opened.task_id, opened.external_task_id, is_new=False)
            )
            return None
        if before.doubt is None or not before.doubt.exists:
            await self._state.commit(Put(self._known_to_exist(before, answer.failure)))
        return f"{what}, which the provider does not confirm now ({answer.failure.message})"
