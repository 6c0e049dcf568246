"""Reads links with aiohttp and keeps nothing: no client made with it takes less.

    python tests/benchmarks/reader.py PARALLEL LINK …

Prints seconds and CPU seconds, without those of the start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import aiohttp


async def main(links: Sequence[str], parallel: int) -> None:
    slots = asyncio.Semaphore(parallel)

    async def read(session: aiohttp.ClientSession, link: str) -> None:
        async with slots, session.get(link) as response:
            async for _ in response.content.iter_chunks():
                pass

    async with (
        aiohttp.ClientSession(read_bufsize=512 * 1024, auto_decompress=False) as session,
        asyncio.TaskGroup() as group,
    ):
        for link in links:
            group.create_task(read(session, link))


if __name__ == "__main__":
    begun, cpu_before = time.perf_counter(), time.process_time()
    asyncio.run(main(sys.argv[2:], int(sys.argv[1])))
    print(time.perf_counter() - begun, time.process_time() - cpu_before)
