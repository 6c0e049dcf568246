"""The command line with a heartbeat in its event loop, to see how long the loop is blocked.

    python tests/benchmarks/watched.py FINDINGS.json ARGUMENTS OF kling-batch …

The findings are about the time of the downloads: from the first generated task to the last finished
job.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from batch import events
from batch.cli import main as cli
from batch.run import execute as running

BEAT_S = 0.005


class Watch:
    """Record the times of events, and the heartbeat of the loop."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.ended = self.cpu_before = self.cpu_after = 0.0
        self.bytes = 0
        self.beats: list[tuple[float, float]] = []  # time, and CPU of this thread so far

    def notify(self, event: events.Event) -> None:
        """Record the start and the end of the downloads."""
        if isinstance(event, events.VideoReady) and self.begun is None:
            self.begun, self.cpu_before = time.perf_counter(), time.process_time()
        if isinstance(event, events.JobEnded):
            self.ended, self.cpu_after = time.perf_counter(), time.process_time()
            self.bytes += event.row["bytes"] or 0

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beats.append((time.perf_counter(), time.thread_time()))
            await asyncio.sleep(BEAT_S)

    def findings(self) -> dict[str, float]:
        """Return seconds and bytes of the downloads, and the lateness of the beats meanwhile."""
        begun = self.begun or 0.0
        during = [beat for beat in self.beats if begun <= beat[0] <= self.ended]
        gaps = sorted(
            (later[0] - earlier[0] - BEAT_S, later[1] - earlier[1])
            for earlier, later in itertools.pairwise(during)
        )
        waits = [gap[0] for gap in gaps] or [0.0]
        return {
            "seconds": self.ended - begun,
            "cpu_s": self.cpu_after - self.cpu_before,
            "bytes": self.bytes,
            "beats": len(during),
            "longest_ms": 1e3 * waits[-1],
            "p99_ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
            "longest_cpu_ms": 1e3 * max((gap[1] for gap in gaps), default=0.0),
        }


def main(findings: Path, arguments: list[str]) -> int:
    """Run the command line under the watch."""
    watch = Watch()
    execute = running.execute

    async def watched(session: Any, observers: Any, *rest: Any, **options: Any) -> Any:
        heart = asyncio.create_task(watch.beat())
        try:
            return await execute(session, [*observers, watch], *rest, **options)
        finally:
            heart.cancel()

    running.execute = watched
    exit_code = cli.main(arguments)
    findings.write_text(json.dumps(watch.findings()), "utf-8")
    return exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
