"""Videos are uploaded as they land, beside everything else that a run does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from batch import events
from batch.events import Event, Observer
from batch.library.uploading import all_of, uploads_of
from batch.output.bucket import AT_ONCE, Bucket, BucketError, ChangedError
from batch.output.state import State
from batch.output.uploaded import Found
from batch.output.uploads import ForeignError, Item, Uploads
from batch.run.context import RunContext
from batch.run.planner import PlannedRun
from batch.run.stages import Run
from batch.target import Target


class Uploader:
    """An observer that uploads the video of each job that ends with one.

    What it cannot upload, `library.uploading.settle` tries again at the end, and reports.
    """

    def __init__(
        self,
        target: Target,
        *,
        uploads: Uploads,
        state: State,
        found: Found,
        context: RunContext,
    ) -> None:
        self._target = target
        self._uploads = uploads
        self._state = state
        self._found = found
        self._context = context
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_away = False

    def notify(self, event: Event) -> None:
        """Begin to upload a video that has landed."""
        if isinstance(event, events.JobEnded) and event.row["file"] is not None:
            bring = self._bring(event.job_id, event.row["external_task_id"])
            self._tasks.append(asyncio.get_running_loop().create_task(bring))

    async def finish(self) -> None:
        """Return when all that was begun is uploaded, or left to the end.

        Raises:
            StateError: the state cannot be written any more.
        """
        await all_of(self._tasks)

    async def give_up(self) -> None:
        """Begin no more uploads, and return when none is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _bring(self, job_id: str, external_task_id: str) -> None:
        async with self._slots:
            if self._is_away or self._context.stop.leaving.is_set():
                return
            item = Item.of(await self._state.attempt(external_task_id))
            try:
                record = await self._uploads.bring(item)
                if record is None:
                    return
                self._found.add(record)
                self._context.notify(
                    events.Uploaded(job_id, item.file, self._target.url, record.bytes)
                )
                if self._target.removes:
                    await self._uploads.remove_local(record)
            except BucketError as error:
                self._is_away = True
                said = f"{self._target.url}: {error}; what has landed is kept here until it is uploaded"
                self._context.notify(events.Warned(said))
            except (ChangedError, ForeignError, OSError):
                return  # told at the end


@asynccontextmanager
async def uploading(
    planned: PlannedRun, run: Run, found: Found | None, told: list[Observer]
) -> AsyncIterator[None]:
    """Upload videos while the block lasts, and wait for those under way.

    Args:
        planned: the run, which may have no bucket.
        run: its stages.
        found: counts what was uploaded.
        told: the observers of the run; one that uploads is added.

    Raises:
        StateError: the state cannot be written any more.
    """
    with ExitStack() as exits:
        uploader = _open(planned, run, found, exits)
        if uploader is None:
            yield
            return
        told.append(uploader)
        try:
            yield
            await uploader.finish()
        finally:
            await uploader.give_up()


def _open(planned: PlannedRun, run: Run, found: Found | None, exits: ExitStack) -> Uploader | None:
    """Return what uploads; None without a bucket, or where it cannot be opened (told at the end)."""
    target, folder = planned.settings.target, planned.folder
    if target is None or found is None:
        return None
    try:
        bucket = exits.enter_context(Bucket.open(target.url, library=folder.library))
    except BucketError:
        return None
    uploads = uploads_of(folder, target, bucket, run.state, run.context.clock)
    return Uploader(target, uploads=uploads, state=run.state, found=found, context=run.context)
