"""Reads links with aiohttp alone: no client made with it takes less.

    python tests/benchmarks/reader.py PARALLEL [--into FOLDER] LINK …

What it reads it drops; with --into it hashes it, writes it to numbered files and flushes them, in
threads. Prints seconds and CPU seconds, without those of the start.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import aiohttp

CHUNK_BYTES = 2 * 1024 * 1024  # per hop to a thread


async def main(links: Sequence[str], parallel: int, folder: Path | None) -> None:
    """Read all *links*, so many at once; keep them in *folder*, if there is one."""
    slots = asyncio.Semaphore(parallel)

    async def read(session: aiohttp.ClientSession, pool: ThreadPoolExecutor, number: int) -> None:
        async with slots, session.get(links[number]) as response:
            if folder is not None:
                await _keep(response.content, folder / f"{number}.mp4", pool)
                return
            async for _ in response.content.iter_chunks():
                pass

    with ThreadPoolExecutor(parallel) as pool:
        async with (
            aiohttp.ClientSession(read_bufsize=512 * 1024, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(len(links)):
                group.create_task(read(session, pool, number))


async def _keep(content: aiohttp.StreamReader, path: Path, pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    sha256 = hashlib.sha256()
    pieces, size = list[bytes](), 0
    with path.open("wb", buffering=0) as file:
        async for piece, _ in content.iter_chunks():
            pieces.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                await loop.run_in_executor(pool, _append, file, sha256, pieces)
                pieces, size = [], 0
        await loop.run_in_executor(pool, _append, file, sha256, pieces)
        await loop.run_in_executor(pool, os.fsync, file.fileno())


def _append(file: BinaryIO, sha256: hashlib._Hash, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        sha256.update(piece)
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parallel", type=int)
    parser.add_argument("--into", type=Path)
    parser.add_argument("links", nargs="+")
    options = parser.parse_args()
    begun, cpu_before = time.perf_counter(), time.process_time()
    asyncio.run(main(options.links, options.parallel, options.into))
    print(time.perf_counter() - begun, time.process_time() - cpu_before)
