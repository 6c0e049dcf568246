"""What a worker does beside its beats, and what is said of it where it fails."""

from __future__ import annotations

import asyncio

from batch.engines.chores import Chores
from batch.errors import AwayError, StateError, UsageError


async def test_what_a_person_can_mend_is_said() -> None:
    """The end of a run is tried at every beat, and in vain while a file cannot be written."""
    said: list[str] = []
    chores = Chores(said.append, lambda _event: None)

    async def fail(error: Exception) -> None:
        raise error

    for error in (StateError("no space left"), AwayError("no answer"), UsageError("no disk")):
        chores.do((str(error),), lambda error=error: fail(error))
        await asyncio.sleep(0)
    await chores.end()
    assert said == ["no space left", "no disk"]
