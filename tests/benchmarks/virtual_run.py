"""One run in virtual time: the real feeder, gate, schedule and callbacks over a provider that counts.

    python tests/benchmarks/virtual_run.py [--quick] [--check]         every case, and the goals
    python tests/benchmarks/virtual_run.py --jobs N [--median S] …     one run, as JSON

Nothing is loaded by it but one core for some seconds, so its figures do not depend on what else the
machine does. State and network are in memory; each request takes `--latency`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "simulation"))

import figures  # noqa: E402
from fake_provider import video  # noqa: E402
from memory_state import MemoryState  # noqa: E402
from virtual_time import EPOCH, InlineExecutor, VirtualClock, VirtualLoop, VirtualWindow  # noqa: E402

from batch import attempt  # noqa: E402
from batch.callbacks.hints import Hints, News, hash_token  # noqa: E402
from batch.job import Failure, FailureKind, Job, canonical_request, fingerprint  # noqa: E402
from batch.manifest.limits import Limits, Rate  # noqa: E402
from batch.output.layout import Layout  # noqa: E402
from batch.output.state import Change, Put, Withdraw  # noqa: E402
from batch.output.videos import Videos  # noqa: E402
from batch.plan import Action, Decision, Decisions, Policy  # noqa: E402
from batch.provider.answers import Created, Found, NotFound, Saturated, Task, TaskStatus  # noqa: E402
from batch.run.context import RunContext  # noqa: E402
from batch.run.counts import Counts  # noqa: E402
from batch.run.feeder import Feeder  # noqa: E402
from batch.run.lessons import kind_of  # noqa: E402
from batch.run.stop import Stop  # noqa: E402
from batch.run.wiring import World, assemble  # noqa: E402

ACCOUNT = attempt.Account("https://simulated.example", "a")
BODY = {"model_name": "kling-v2-6", "mode": "std", "duration": "5", "aspect_ratio": "16:9"}
FULL = Saturated(Failure(FailureKind.RATE_LIMITED, "too many tasks", "1303", 429))


class _State(MemoryState):
    """Does not check its changes one against the other, which would take most of the time."""

    def _write(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.attempts[change.attempt.external_task_id] = change.attempt
            elif isinstance(change, Withdraw):
                self.attempts.pop(change.external_task_id, None)


@dataclass(slots=True)
class _Made:
    """A task at the provider."""

    task_id: str
    created: float
    ends: float
    polls: int = 0
    seen: float | None = None


@dataclass
class Provider:
    """Takes *cap* tasks at once, and records of each when it ended and when the run saw that."""

    loop: VirtualLoop
    options: argparse.Namespace
    hints: Hints
    dice: random.Random
    tasks: dict[str, _Made] = field(default_factory=dict)
    refused_at: list[float] = field(default_factory=list)
    lookups: int = 0
    open: int = 0

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> Created | Saturated:
        await asyncio.sleep(self.options.latency)
        now, ours = self.loop.time(), body["external_task_id"]
        if self.open >= self.options.cap:
            self.refused_at.append(now)
            return FULL
        took_s = self.options.median * self.dice.lognormvariate(0.0, self.options.spread)
        made = _Made(ours.replace("kb-", "8"), now, now + took_s)
        self.tasks[made.task_id] = made
        self.open += 1
        self.loop.call_at(made.ends, self._end)
        for moment, status in ((now, "submitted"), (now + 0.1 * took_s, "processing")):
            self._call_back(moment, ours, made, status)
        self._call_back(made.ends, ours, made, "succeed")
        return Created(self._told(made, TaskStatus.SUBMITTED))

    async def query(self, identifier: str) -> Found | NotFound:
        self.lookups += identifier.startswith("kb-")
        made = self.tasks[identifier.replace("kb-", "8")]
        made.polls += 1
        await asyncio.sleep(self.options.latency)
        if self.loop.time() < made.ends:
            return Found(self._told(made, TaskStatus.PROCESSING))
        made.seen = made.seen or self.loop.time()
        return Found(self._told(made, TaskStatus.SUCCEEDED))

    @asynccontextmanager
    async def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AsyncIterator[_Body]:
        await asyncio.sleep(self.options.latency)
        yield _Body(video(url.rpartition("/")[2], 1))

    def _end(self) -> None:
        self.open -= 1

    def _call_back(self, moment: float, ours: str, made: _Made, status: str) -> None:
        """Send a callback of which *lost* do not arrive; nothing without callbacks."""
        if self.options.lost is None or self.dice.random() < self.options.lost:
            return
        ended = status == "succeed"
        arrives = moment + self.options.latency
        at = EPOCH + moment
        self.loop.call_at(
            arrives, lambda: self.hints.record(ours, News(made.task_id, at, has_ended=ended))
        )

    def _told(self, made: _Made, status: TaskStatus) -> Task:
        is_done = status is TaskStatus.SUCCEEDED
        return Task(
            made.task_id,
            status,
            f"https://cdn.example/{made.task_id}" if is_done else None,
            external_task_id=f"kb-{made.task_id[1:]}",
            created_at=EPOCH + made.created,
            updated_at=EPOCH + (made.ends if is_done else self.loop.time()),
        )


@dataclass(slots=True)
class _Body:
    content: bytes
    start: int = 0
    validator: str | None = None

    @property
    def total(self) -> int:
        return len(self.content)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.content


def decisions(count: int) -> Decisions:
    """Return the plan of *count* new jobs."""
    found = []
    for number in range(count):
        request = canonical_request({**BODY, "prompt": f"scene {number}"})
        job = Job(f"job-{number:06}", request, fingerprint(request, None))
        found.append(Decision(Action.NEW, job.id, "new", job, cost_usd=0.1))
    return Decisions(found)


async def play(loop: VirtualLoop, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Carry out the jobs, and return what was counted."""
    clock, dice = VirtualClock(loop), random.Random(options.seed)
    hints, counts, state = Hints(), Counts(), _State()
    provider = Provider(loop, options, hints, dice)
    plan = decisions(options.jobs)
    assert plan[0].job is not None
    if options.history:
        center = math.log(options.median)
        times = [dice.lognormvariate(center, options.spread) for _ in range(options.history)]
        state.times[kind_of(plan[0].job.request)] = times
    rate = Rate(options.rate, 1.0)
    limits = Limits(
        submit_rate=rate,
        max_in_flight=options.in_flight,
        poll_interval_s=options.poll,
        max_downloads=64,
    )
    numbers = iter(range(10**9))
    with Videos(Layout(root), pool=InlineExecutor()) as videos:
        world = World(
            api=provider,
            state=state,
            videos=videos,
            guard=VirtualWindow(clock, rate.count, rate.per_second),
            hints=hints,
            callback_url=_callback_url(hints, is_on=options.lost is not None),
            new_id=lambda *_of: f"kb-{next(numbers):09}",
        )
        context = RunContext(ACCOUNT, limits, Policy(), clock, dice, Stop(), counts.notify)
        run = await assemble("r", context, world)
        begun = loop.time()
        await Feeder(run).feed(plan)
        seconds = loop.time() - begun
    if counts.bugs or counts.outcomes["succeeded"] != options.jobs:
        raise SystemExit(f"{dict(counts.outcomes)} {counts.bugs[:1]}")
    return {"seconds": seconds, **_found(provider, options)}


def _callback_url(hints: Hints, *, is_on: bool) -> Any:
    def callback_url(external_task_id: str) -> tuple[str, str] | None:
        return (f"https://we.example/{external_task_id}", hash_token(external_task_id))

    return callback_url if is_on else lambda _external_task_id: None


def _found(provider: Provider, options: argparse.Namespace) -> dict[str, Any]:
    tasks = list(provider.tasks.values())
    # The answer that tells of an end was asked for one way of the request earlier.
    late_s = [(made.seen or math.inf) - made.ends for made in tasks]
    mean_s = statistics.fmean(late_s)
    polls = statistics.fmean(made.polls for made in tasks)
    interval_s = 2 * mean_s  # a fixed interval is half of itself late
    fixed = statistics.fmean(math.ceil((made.ends - made.created) / interval_s) for made in tasks)
    last = max(made.created for made in tasks)
    first = min(options.warm, last / 2) or min(made.created for made in tasks)
    used_s = sum(max(min(made.ends, last) - max(made.created, first), 0.0) for made in tasks)
    cap = min(options.cap, options.in_flight)
    ended = max(made.ends for made in tasks)
    ideal_s = (options.jobs - 1) / options.rate + options.median
    return {
        "ideal_s": ideal_s,
        "last_end_s": ended,
        "last_seen_s": max(made.seen or math.inf for made in tasks),
        "lateness": mean_s / options.median,
        "polls": polls,
        "fixed": fixed,
        "against_fixed": polls / fixed,
        "slots": used_s / (cap * (last - first)) if last > first else None,
        "slots_at_most": slots_at_most(options),
        "refused": len(provider.refused_at),
        "refused_later": sum(at > options.warm for at in provider.refused_at),
        "hours_later": (last - first) / 3_600,
    }


def slots_at_most(options: argparse.Namespace) -> float:
    """Return the share of a full account's slots that polls can keep in use, at no price.

    A slot is empty for half a poll_interval in the mean, and while its next request is on its way.
    """
    took_s = options.median * math.exp(options.spread**2 / 2)  # the mean of a lognormal
    empty_s = options.latency + (options.poll / 2 if options.lost is None else options.latency)
    return float(took_s / (took_s + empty_s))


def refused_to_ask(options: argparse.Namespace) -> float:
    """Return how many submissions a video would be refused if they asked halfway between polls.

    One in each poll_interval tries all slots of the account, since nearly always some task is likely
    to end; it finds every second end, poll_interval / 2 earlier.
    """
    return float(options.median / options.poll / options.cap - 0.5)


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="One run in virtual time.")
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=100.0, help="submissions per second")
    parser.add_argument("--in-flight", type=int, default=10_000, dest="in_flight")
    parser.add_argument("--cap", type=int, default=10**9, help="what the provider takes at once")
    parser.add_argument("--median", type=float, default=4.0, help="seconds of a generation")
    parser.add_argument("--spread", type=float, default=0.0, help="of generations, in log time")
    parser.add_argument("--poll", type=float, default=0.5, help="poll_interval, seconds")
    parser.add_argument("--history", type=int, default=0, help="generation times known before")
    parser.add_argument("--latency", type=float, default=0.005, help="seconds of a request")
    parser.add_argument("--lost", type=float, help="callbacks, with this share lost")
    parser.add_argument(
        "--warm", type=float, default=0.0, help="slots: leave out the first seconds"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Carry out one run on a loop of its own."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        with tempfile.TemporaryDirectory() as root:
            return loop.run_until_complete(play(loop, options, Path(root)))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


CAPPED = ("--jobs=900", "--rate=1", "--median=60", "--spread=0.25", "--poll=2.2", "--warm=3600")
CAPPED += ("--cap=5", "--in-flight=5", "--latency=0.05", "--history=100")
PUSH = ("--jobs=200", "--rate=50", "--spread=0.25", "--poll=0.15")
CASES: dict[str, tuple[str, ...]] = {
    "tail": ("--jobs=1000",),
    "second night": ("--jobs=200", "--rate=10", "--median=6", "--spread=0.25", "--history=50"),
    "first night": ("--jobs=200", "--rate=10", "--median=6", "--spread=0.25"),
    "5 slots": CAPPED,
    "5 slots, poll_interval 1 %": (*CAPPED, "--poll=0.6"),
    "5 slots, max_in_flight 50": (*CAPPED, "--in-flight=50"),
    "5 slots, callbacks": (*CAPPED, "--lost=0"),
    "no callbacks": PUSH,
    "callbacks": (*PUSH, "--lost=0"),
    "half of the callbacks": (*PUSH, "--lost=0.5"),
}


def report(*, quick: bool = False) -> figures.Report:
    """Carry out every case in virtual time, and compare with the goals."""
    more = ("--jobs=100", "--warm=0") if quick else ()
    found = {name: measure(options_of([*case, *more])) for name, case in CASES.items()}
    tail, second, slots = found["tail"], found["second night"], found["5 slots"]
    finer, taught = found["5 slots, poll_interval 1 %"], found["5 slots, max_in_flight 50"]
    asked = refused_to_ask(options_of([*CAPPED]))
    learning = float(taught["refused"] - taught["refused_later"])
    pushed, alone = found["callbacks"], found["no callbacks"]
    told: list[tuple[str, str, float, float | None, float | None]] = [
        ("tail: wall, without start-up", "ideal", tail["seconds"] / tail["ideal_s"], 1.04, None),
        ("second night: lateness", "of the median", second["lateness"], 0.08, None),
        ("second night: polls", "of a fixed interval's", second["against_fixed"], 0.55, None),
        ("5 slots: in use", "of 1", slots["slots"], None, 0.99),
        ("5 slots: most that polls allow", "of 1", slots["slots_at_most"], None, None),
        ("5 slots, poll_interval 1 %: in use", "of 1", finer["slots"], None, None),
        ("… most that polls allow", "of 1", finer["slots_at_most"], None, None),
        ("5 slots, callbacks: in use", "of 1", found["5 slots, callbacks"]["slots"], None, 0.99),
        ("5 slots, max_in_flight 50: refused in the first hour", "", learning, 8.0, None),
        (
            "callbacks: status requests",
            "of those without",
            pushed["polls"] / alone["polls"],
            0.4,
            None,
        ),
        (
            "callbacks: lateness",
            "of that without",
            pushed["lateness"] / alone["lateness"],
            1.0,
            None,
        ),
    ]
    return figures.report(
        "schedule",
        "whole runs in virtual time: the real feeder, gate, schedule and callbacks",
        [
            figures.Figure(
                name=name, unit=unit, ours=figures.rounded(ours), at_most=most, at_least=least
            )
            for name, unit, ours, most, least in told
        ],
        rows=[
            {
                "case": name,
                "lateness": figures.rounded(row["lateness"]),
                "polls": figures.rounded(row["polls"]),
                "of fixed": figures.rounded(row["against_fixed"]),
                "refused": row["refused"],
            }
            for name, row in found.items()
        ],
        notes=[
            "of fixed: of the polls of a fixed interval that is as late on the same tasks",
            "without callbacks a slot is empty for poll_interval / 2 at least, whatever polls cost",
            f"submissions halfway between polls would save half of it, at {asked:.0f} refusals a video",
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1] in {"--quick", "--check"}:
        figures.main(report)
        raise SystemExit
    print(json.dumps(measure(options_of())))
