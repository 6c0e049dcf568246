"""A minimal script for comparison: submit, poll and download in forty lines, without any safety.

    python tests/benchmarks/bare.py BASE_URL JOBS RATE POLL_S FOLDER

No state, no look-up, no checks: a lost answer is lost money. Its CPU is the yardstick.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiofiles
import aiohttp
from asyncio_throttle.throttler import Throttler

PATH = "/kling/v1/videos/text2video"


async def one(
    api: aiohttp.ClientSession, files: aiohttp.ClientSession, number: int, poll_s: float, to: Path
) -> None:
    body = {
        "prompt": f"A small scene number {number} of a river in the morning light",
        "model_name": "kling-v2-6",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "16:9",
    }
    async with api.post(PATH, json=body) as response:
        task_id = (await response.json())["data"]["task_id"]
    while True:
        await asyncio.sleep(poll_s)
        async with api.get(f"{PATH}/{task_id}") as response:
            data = (await response.json())["data"]
        if data["task_status"] == "succeed":
            break
    url = data["task_result"]["videos"][0]["url"]
    async with files.get(url) as response, aiofiles.open(to / f"{number}.mp4", "wb") as file:
        async for chunk in response.content.iter_chunked(1 << 20):
            await file.write(chunk)


async def main(base: str, jobs: int, rate: int, poll_s: float, to: Path) -> None:
    throttle = Throttler(rate_limit=rate, period=1.0)
    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(base, headers=headers, connector=connector) as api,
        aiohttp.ClientSession() as files,
        asyncio.TaskGroup() as group,
    ):
        for number in range(jobs):
            async with throttle:
                group.create_task(one(api, files, number, poll_s, to))


if __name__ == "__main__":
    base, jobs, rate, poll_s, to = sys.argv[1:]
    Path(to).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(base, int(jobs), int(rate), float(poll_s), Path(to)))
