"""What sessions of the database tell each other at once, by LISTEN and NOTIFY.

A notice only says that there is something to look at: one that is lost costs time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Self

import psycopg

from batch.key import Secret
from batch.output.postgres.connection import SESSION, conninfo

SLOTS, HINTS = "kling_slots", "kling_hints"  # the channels
RECONNECTS_S = 1.0


class Notices:
    """Hands what is told over to *takers*, by channel. Use as an async context manager.

    It has a connection of its own. Whenever that begins, each taker gets an empty text: what was told
    before is not known. None of them may raise.
    """

    def __init__(self, engine: Secret, takers: Mapping[str, Callable[[str], None]]) -> None:
        self._engine = engine
        self._takers = takers
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen(), name="notices")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._listener is not None
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener

    async def _listen(self) -> None:
        while True:
            with suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(
                    conninfo(self._engine), autocommit=True
                )
                async with connection:
                    await connection.execute(SESSION)
                    for channel, take in self._takers.items():
                        await connection.execute(f"LISTEN {channel}".encode())
                        take("")
                    async for told in connection.notifies():
                        self._takers[told.channel](told.payload)
            await asyncio.sleep(RECONNECTS_S)
