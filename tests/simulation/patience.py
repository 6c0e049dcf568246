"""How long a test waits for what should come: a bound for what hangs, none for what is slow.

No test judges by a clock on the wall, which depends on what else the machine does. What has to come
without a wait is asked for where the wait would be longer than this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 100.0


def until(is_so: Callable[[], object]) -> None:
    """Wait for something to become true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.01)


async def until_so(is_so: Callable[[], object]) -> None:
    """Let the event loop run until something has become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.002)
