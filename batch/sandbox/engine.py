"""The tasks. The status of a task is a pure function of its record and the moment.

Only the records are kept, one line each in a journal: a server that was killed and started again
continues with the same tasks.
"""

from __future__ import annotations

import heapq
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from batch.sandbox.config import SandboxConfig
from batch.sandbox.faults import FaultRule
from batch.sandbox.kinds import FAILURES
from batch.sandbox.validation import MODELS, Order, RefusalError

_ID_EPOCH_MS = 1_568_000_000_000  # makes ids of 18 digits, of the size that real ones have
_SMALLEST_ID = 10**17
_VIDEO_ID_OFFSET = 184_549_382
_DUPLICATE = RefusalError(400, 1201, "external_task_id already exists, it must be unique")
# In a prompt; with `*2` only the first two tasks of that prompt fail.
_FAILING_WORD = re.compile(rf"sandbox:({'|'.join(FAILURES)}|stuck)(?:\*(\d+))?")


@dataclass(frozen=True, slots=True)
class Task:
    """A created task. Times are seconds since the epoch; *finished_at* None means never.

    *fault* is the outcome fault that ends it, None for a video.
    """

    number: int
    task_id: str
    account: str
    external_task_id: str | None
    body: dict[str, Any]
    prompt: str
    model: str
    mode: str
    duration_s: int
    aspect_ratio: str
    created_at: float
    started_at: float
    finished_at: float | None
    fault: str | None
    message: str

    @property
    def video_id(self) -> str:
        """The id of its video, another number of the same kind."""
        return str(int(self.task_id) + _VIDEO_ID_OFFSET)

    @property
    def outcome(self) -> str:
        """The final status: `succeed`, `failed` or `stuck`."""
        if self.finished_at is None:
            return "stuck"
        return "succeed" if self.fault is None else "failed"

    def status(self, moment: float) -> str:
        """Return its `task_status` at a moment."""
        if self.finished_at is not None and moment >= self.finished_at:
            return self.outcome
        return "processing" if moment >= self.started_at else "submitted"

    def updated_at(self, status: str) -> float:
        """Return when it reached that status."""
        if status == "submitted":
            return self.created_at
        if status == "processing" or self.finished_at is None:
            return self.started_at
        return self.finished_at


def task_id_of_video(video_id: str) -> str:
    """Return the id of the task that a video belongs to."""
    return (
        str(int(video_id) - _VIDEO_ID_OFFSET) if video_id.isascii() and video_id.isdigit() else ""
    )


class Engine:
    """All tasks of a server, indexed by each id. O(1) per request."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config  # may be replaced at any time
        self._by_id: dict[str, Task] = {}
        self._by_external_id: defaultdict[str, list[str]] = defaultdict(list)  # task ids
        self._by_account: defaultdict[str, list[str]] = defaultdict(list)
        self._in_flight: defaultdict[str, list[float]] = defaultdict(list)
        self._last_id = _SMALLEST_ID
        self._seed = random.randrange(1 << 32) if config.seed is None else config.seed  # noqa: S311
        self._journal: TextIO | None = None

    def open(self) -> None:
        """Read the tasks in the journal, and append further ones to it."""
        path = self.config.journal
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of a task that was ended on request, the last line counts.
        for task in {task.task_id: task for task in _read_journal(path)}.values():
            self._keep(task)
        self._journal = path.open("a", encoding="utf-8")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._journal.write("\n")  # a line torn by a kill stays a line of its own

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._by_id.values())

    def by_task_id(self, task_id: str) -> Task | None:
        """Return the task of that id, of any account, or None."""
        return self._by_id.get(task_id)

    def by_external_id(self, account: str, external_task_id: str) -> Task | None:
        """Return the first task of that external id that the account can find, or None."""
        found = map(self._by_id.__getitem__, self._by_external_id.get(external_task_id, ()))
        sees_all = self.config.other_keys == "everything"
        return next((task for task in found if sees_all or task.account == account), None)

    def page(self, account: str, number: int, size: int) -> list[Task]:
        """Return a page of an account's tasks, the newest first; pages count from 1."""
        newest_first = self._by_account[account][::-1]
        wanted = newest_first[(number - 1) * size : number * size]
        return [self._by_id[task_id] for task_id in wanted]

    def is_visible(self, task: Task, moment: float) -> bool:
        """Return whether queries find it: not right after creation, and not after 30 days."""
        age = max(moment - task.created_at, 0.0)  # a clock may jump back
        return self.config.invisible_s <= age <= self.config.kept_s

    def in_flight(self, account: str, moment: float) -> int:
        """Return how many tasks of an account hold a slot."""
        ends = self._in_flight[account]
        while ends and ends[0] <= moment:
            heapq.heappop(ends)
        return len(ends)

    def admit(self, account: str, order: Order, moment: float) -> None:
        """Check a request against the external ids, credit and slots of its account.

        Raises:
            RefusalError: the external id is taken (1201), or there is no credit (1102) or slot (1303).
        """
        config, external_id = self.config, order.external_task_id
        taken = external_id is not None and self.by_external_id(account, external_id) is not None
        is_duplicate = taken and config.unique_external_ids
        if is_duplicate and config.checks_duplicates_first:
            raise _DUPLICATE
        if not config.has_credit:
            raise RefusalError(429, 1102, "Account balance not enough")
        cap = config.max_parallel
        if cap is not None and self.in_flight(account, moment) >= cap:
            raise RefusalError(429, 1303, "parallel task over resource pack limit")
        if is_duplicate:
            raise _DUPLICATE

    def create(
        self,
        account: str,
        order: Order,
        body: dict[str, Any],
        moment: float,
        ending: FaultRule | None = None,
    ) -> Task:
        """Create a task, journal it, and return it; *ending* is its outcome fault."""
        number = len(self._by_id) + 1
        dice = random.Random(f"{self._seed}:{number}")  # noqa: S311 - a spread, no secret
        takes_s = _generation_s(order, self.config, dice)
        fault = ending.kind if ending is not None else self._word_fault(order.prompt)
        message = ending.message if ending is not None else None
        if fault in FAILURES:
            takes_s *= 0.4  # a refusal comes sooner than a video
        task = Task(
            number=number,
            task_id=self._new_id(moment),
            account=account,
            external_task_id=order.external_task_id,
            body=body,
            prompt=order.prompt,
            model=order.model,
            mode=order.mode,
            duration_s=order.duration_s,
            aspect_ratio=order.aspect_ratio,
            created_at=moment,
            started_at=moment + takes_s * dice.uniform(0.05, 0.15),
            finished_at=None if fault == "stuck" else moment + takes_s,
            fault=fault,
            message=FAILURES.get(fault or "", "") if message is None else message,
        )
        self._note(task)
        self._keep(task)
        return task

    def finish(self, tasks: Iterable[Task], moment: float) -> list[Task]:
        """End those of *tasks* that are open, journal and return them. One that is stuck succeeds."""
        ended = [
            replace(
                task,
                started_at=min(task.started_at, moment),
                finished_at=moment,
                fault=None if task.fault == "stuck" else task.fault,
            )
            for task in tasks
            if task.finished_at is None or task.finished_at > moment
        ]
        for task in ended:
            self._note(task)
            self._by_id[task.task_id] = task
        for account in {task.account for task in ended}:
            ends = (_end(self._by_id[task_id]) for task_id in self._by_account[account])
            self._in_flight[account] = sorted(end for end in ends if end > moment)
        return ended

    def clear(self) -> None:
        """Forget all tasks, those in the journal, too. No id is given out again."""
        for index in (self._by_id, self._by_external_id, self._by_account, self._in_flight):
            index.clear()
        if self._journal is not None:
            self._journal.truncate(0)

    def _note(self, task: Task) -> None:
        if self._journal is not None:
            self._journal.write(json.dumps(asdict(task)) + "\n")
            self._journal.flush()

    def _word_fault(self, prompt: str) -> str | None:
        word = _FAILING_WORD.search(prompt) if "sandbox:" in prompt else None
        if word is None:
            return None
        earlier = sum(task.prompt == prompt for task in self) if word[2] else 0
        return word[1] if not word[2] or earlier < int(word[2]) else None

    def _keep(self, task: Task) -> None:
        self._by_id[task.task_id] = task
        if task.external_task_id is not None:
            self._by_external_id[task.external_task_id].append(task.task_id)
        self._by_account[task.account].append(task.task_id)
        heapq.heappush(self._in_flight[task.account], _end(task))
        self._last_id = max(self._last_id, int(task.task_id))

    def _new_id(self, moment: float) -> str:
        from_clock = (int(moment * 1000) - _ID_EPOCH_MS) << 22
        return str(max(from_clock, self._last_id + 1) + zlib.crc32(b"%d" % self._last_id) % 4096)


def _end(task: Task) -> float:
    """Return when a task gives its slot back."""
    return float("inf") if task.finished_at is None else task.finished_at


def _generation_s(order: Order, config: SandboxConfig, dice: random.Random) -> float:
    pace: float = MODELS[order.model].pace * (order.duration_s / 5) ** 0.7
    if order.mode != "std":
        pace *= 1.5
    if order.has_sound:
        pace *= 1.2
    spread: float = dice.lognormvariate(0.0, config.sigma)
    return config.median_s * pace * spread / config.speed


def _read_journal(path: Path) -> Iterator[Task]:
    """Yield the tasks in a journal, skipping a line torn by a kill."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            task = _read_line(line)
            if task is not None:
                yield task


def _read_line(line: str) -> Task | None:
    try:
        return Task(**json.loads(line))
    except (ValueError, TypeError):
        return None
