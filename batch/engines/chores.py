"""What a worker does for the fleet beside its beats, which must not wait for it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from batch import events
from batch.errors import AwayError, BatchError
from batch.events import Event


class Chores:
    """Does chores, each by its name only once at a time.

    What a person should know is said by *say*, a bug told by *notify*; neither ends anything.
    """

    def __init__(self, say: Callable[[str], None], notify: Callable[[Event], None]) -> None:
        self._say = say
        self._notify = notify
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}

    def do(self, name: tuple[str, ...], chore: Callable[[], Awaitable[None]]) -> None:
        """Begin a chore, unless it is being done."""
        if name in self._tasks:
            return
        task = asyncio.create_task(self._guard(chore), name=" ".join(name))
        self._tasks[name] = task
        task.add_done_callback(lambda _task: self._tasks.pop(name, None))

    async def end(self) -> None:
        """Cancel what is being done, and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(self, chore: Callable[[], Awaitable[None]]) -> None:
        try:
            await chore()
        except AwayError:
            pass  # that is told elsewhere, and the next beat tries again
        except BatchError as error:  # as well, but a person may have to do something before
            self._say(str(error))
        except Exception as error:  # noqa: BLE001 - a bug in a chore must not end the beats
            self._notify(events.BugFound("", "".join(traceback.format_exception(error))))


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do *work* beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
