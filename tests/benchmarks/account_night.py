"""One account's night in virtual time: the real feeder, pacer, slots, schedule and state.

    python tests/benchmarks/account_night.py OUTPUT_DIR JOBS IN_FLIGHT MEDIAN_S [SEED]

The run is put together by `bootstrap.assemble` as every other; SQLite and results.jsonl are real
and in OUTPUT_DIR. Only the provider, the network and the thread of the journal are simulated: the
provider takes IN_FLIGHT tasks at once, generation times are lognormal, videos are small files that
take as long to come as large ones. Prints JSON: the time it took (virtual), requests, commits, bytes,
and the CPU that the run itself burned.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "simulation"))

from account import Account, clip  # noqa: E402
from mortal import InlineState, Life  # noqa: E402
from virtual_time import (  # noqa: E402
    InlineExecutor,
    VirtualClock,
    VirtualLoop,
    VirtualWindow,
)

from batch import attempt  # noqa: E402
from batch.callbacks.hints import Hints  # noqa: E402
from batch.cli.running import GC_ALLOCATIONS  # noqa: E402
from batch.job import Job, canonical_request, fingerprint  # noqa: E402
from batch.manifest.limits import Limits, Rate  # noqa: E402
from batch.manifest.model import Manifest  # noqa: E402
from batch.output.videos import Videos  # noqa: E402
from batch.output.writer import GROUPING_S  # noqa: E402
from batch.run.context import RunContext  # noqa: E402
from batch.run.counts import Counts  # noqa: E402
from batch.run.feeder import Feeder  # noqa: E402
from batch.run.planner import PlannedRun, open_planned_run  # noqa: E402
from batch.run.stop import Stop  # noqa: E402
from batch.run.wiring import World, assemble  # noqa: E402
from batch.settings import Settings  # noqa: E402

BASE_URL = "https://simulated.example"


class _Gap(random.Random):
    """Stands where the simulated journal throws dice: it waits as long as the real one does."""

    last = -math.inf

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def choice(self, _options: Any) -> Any:
        gap_s = max(0.0, self.last + GROUPING_S - self._loop.time())
        self.last = self._loop.time() + gap_s
        return gap_s


class _State(InlineState):
    """Counts."""

    flushes = commits = most_wal = 0

    def _attempt(self, entries: list[Any]) -> Exception | None:
        self.flushes += 1
        self.commits += len(entries)
        failure = super()._attempt(entries)
        if self.flushes % 100 == 1:
            self.most_wal = max(self.most_wal, _size(Path(f"{self._database.path}-wal")))
        return failure


def jobs(count: int) -> tuple[Job, ...]:
    """Make jobs as a manifest of prompts of 150 characters would."""
    return tuple(map(_job, range(count)))


def _job(number: int) -> Job:
    body = {
        "prompt": f"Scene {number}: a river in the morning light, mist over the water, a heron that"
        " waits between the reeds, slow camera from left to right, soft colours, no people",
        "negative_prompt": "text, watermark, blurry",
        "model_name": "kling-v2-6",
        "mode": "pro",
        "duration": "5",
        "aspect_ratio": "16:9",
    }
    request = canonical_request(body)
    return Job(f"tonight-{number:06}", request, fingerprint(request, None))


async def night(
    planned: PlannedRun,
    provider: Account,
    loop: VirtualLoop,
    clock: VirtualClock,
    rng: random.Random,
) -> dict[str, Any]:
    """Do what is planned, and return what was counted."""
    planned.begin()
    folder, limits, counts = planned.folder, planned.settings.limits, Counts()
    stop, rate = Stop(), limits.submit_rate
    with ExitStack() as exits:
        state = exits.enter_context(
            _State(folder.database, folder.results, life=Life(), rng=_Gap(loop), fault_rate=0.0)
        )
        exits.callback(state.close)
        world = World(
            api=provider,
            state=state,
            videos=exits.enter_context(Videos(folder.layout, pool=InlineExecutor())),
            guard=VirtualWindow(clock, rate.count, rate.per_second),
            hints=Hints(),
            callback_url=lambda _external_task_id: None,
            new_id=partial(attempt.external_id, planned.folder.library),
        )
        context = RunContext(
            account=attempt.Account(BASE_URL, "a"),
            limits=limits,
            policy=planned.settings.policy,
            clock=clock,
            dice=rng,
            stop=stop,
            notify=counts.notify,
        )
        run = await assemble(planned.run_id, context, world)
        written, cpu_s = _written(), time.process_time()
        await Feeder(run).feed(planned.plan.decisions)
        used = {"cpu_s": time.process_time() - cpu_s, "written": _written() - written}
        exit_code = counts.exit_code(planned.plan, stop)
    if counts.bugs or counts.left or set(counts.outcomes) != {"succeeded"}:
        bug = counts.bugs[0] if counts.bugs else ""
        raise SystemExit(f"{len(counts.left)} jobs left, {dict(counts.outcomes)}\n{bug}")
    planned.end(planned.summary(exit_code), clock)
    return used | {
        "flushes": state.flushes,
        "commits": state.commits,
        "most_wal": state.most_wal,
    }


def _written() -> int:
    """Return the bytes that this process has handed to the system so far; 0 where nobody counts."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)["wchar"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main(root: Path, count: int, in_flight: int, median_s: float, seed: int = 1) -> None:
    """Simulate and print."""
    rng, loop = random.Random(seed), VirtualLoop()
    clock = VirtualClock(loop)
    account = Account(loop, in_flight, median_s, rng)
    limits = Limits(
        submit_rate=Rate(max(10, in_flight // 10), 1.0),
        max_in_flight=in_flight,
        max_downloads=max(4, in_flight // 25),
    )
    manifest = Manifest(Path("night.yaml"), "night", jobs(count), limits)
    settings = Settings(output_dir=root, base_url=BASE_URL, sandbox=False, limits=limits, new=True)
    state = root / ".kling-batch" / "state.db"
    before = _size(state), _size(root / "results.jsonl")
    asyncio.set_event_loop(loop)
    with open_planned_run(manifest, settings, clock) as planned:
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 20)
        counted = loop.run_until_complete(night(planned, account, loop, clock, rng))
    asyncio.set_event_loop(None)
    seconds = loop.time()
    loop.close()
    found = counted | {
        "jobs": count,
        "seconds": seconds,
        "per_hour": account.per_hour,
        "used_slots": account.slot_s / (in_flight * seconds),
        "lateness_s": account.late_s / count,
        "requests": dict(account.requests),
        "most_requests_per_s": max(account.seconds.values()),
        "most_open": account.most_open,
        "video_bytes": account.video_bytes,
        "clip_bytes": len(clip("0")) * count,
        "state_bytes": _size(state) - before[0],
        "results_bytes": _size(root / "results.jsonl") - before[1],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        float(sys.argv[4]),
        *map(int, sys.argv[5:]),
    )
