"""What a run has come to so far, for the screen, for plain lines and for metrics."""

from __future__ import annotations

import threading
from bisect import insort
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import field

from batch import events
from batch.attempt import Phase
from batch.cli.forecast import Outlook, in_words, seconds_left
from batch.cli.sentences import Sentences
from batch.cli.view import View
from batch.clock import Clock
from batch.events import Event
from batch.frozen import frozen
from batch.manifest.limits import Limits
from batch.plan import COSTING, Decision
from batch.run.landing import NOTHING_TO_MAKE
from batch.run.lessons import kind_of
from batch.run.planner import PlannedRun

SPEED_WINDOW_S = 6.0
SAMPLED = 500  # jobs whose kind is looked at: parsing a hundred thousand requests takes a second
LIKE = 128  # generation times that stand for all


@frozen
class Expected:
    """What a run sets out to do: the costs of its jobs by id, and generation times of the past."""

    name: str
    limits: Limits
    jobs: int
    to_pay: int
    costs: Mapping[str, float]
    times: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, planned: PlannedRun) -> Expected:
        """Return what *planned* sets out to do."""
        plan = planned.plan
        to_make = [item for item in plan.decisions if item.action not in NOTHING_TO_MAKE]
        past = planned.folder.database.generation_times()
        return cls(
            name=planned.manifest.name + " (sandbox)" * planned.settings.sandbox,
            limits=planned.settings.limits,
            jobs=len(to_make),
            to_pay=sum(item.action in COSTING for item in to_make),
            costs={item.job_id: item.cost_usd for item in to_make if item.cost_usd is not None},
            times=_alike(to_make, past),
        )


class Progress:
    """An observer that keeps count. Events come from one thread, views may be taken from others."""

    def __init__(self, expected: Expected, clock: Clock) -> None:
        self._expected = expected
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = clock.monotonic()
        self._lasts_s = expected.limits.seconds_left(clock.now())
        # The jobs that wait for their video, or for its download, and since when (monotonic). A step
        # of one job must cost the same however many there are.
        self._generating: dict[str, float] = {}
        self._downloading: dict[str, float] = {}
        self._times = sorted(expected.times)
        self._slots = expected.limits.max_in_flight
        self._download_s: deque[float] = deque(maxlen=20)
        self._received: deque[tuple[float, int]] = deque()
        self._sentences = Sentences()
        self.outcomes: Counter[str] = Counter()
        self.left: set[str] = set()
        self.created = 0
        self.spent_usd = 0.0
        self.received_bytes = 0

    def notify(self, event: Event) -> None:
        """Count *event*."""
        with self._lock:
            self._follow(event)
            self._sentences.follow(event, self._clock.monotonic())

    def view(self) -> View:
        """Return the state of this moment."""
        with self._lock:
            now = self._clock.monotonic()
            return View(
                name=self._expected.name,
                done=self.outcomes.total(),
                all=self._expected.jobs,
                generating=len(self._generating),
                downloading=len(self._downloading),
                failed=self.outcomes.total() - self.outcomes["succeeded"],
                spent_usd=self.spent_usd,
                budget_usd=self._expected.limits.budget_usd,
                bytes_per_s=self._speed(now) if self._downloading else None,
                elapsed_s=now - self._begun,
                left=self._left(now),
                notes=tuple(self._sentences.notes(now)),
                troubles=self._sentences.troubles(),
            )

    # -- counting

    def _follow(self, event: Event) -> None:  # noqa: C901 - one arm per event
        now = self._clock.monotonic()
        match event:
            case events.Submitted(job_id=job_id) | events.Adopted(job_id=job_id):
                self._pay(job_id, is_new=getattr(event, "is_new", True))
                self._generate(job_id, now)
            case events.Polled(job_id=job_id, status="failed"):  # it ends, or waits to be retried
                self._forget(job_id)
            case events.Resumed(job_id=job_id, phase=Phase.OPEN | Phase.TIMED_OUT):
                self._generate(job_id, now)
            case events.Resumed(job_id=job_id, phase=Phase.GENERATED | Phase.LANDED):
                self._download(job_id, now)
            case events.VideoReady(job_id=job_id, seconds=seconds):
                self._download(job_id, now)
                insort(self._times, seconds)
            case events.Downloading(received=received):
                self.received_bytes += received
                self._received.append((now, received))
            case events.JobEnded(job_id=job_id, row=row, superseded=superseded):
                self._end(job_id, now)
                if not superseded:
                    self.outcomes[row["status"]] += 1
            case events.JobLeft(job_id=job_id) | events.BugFound(job_id=job_id):
                self._forget(job_id)
                self.left.add(job_id)
            case events.Delayed():  # as many as are open now, or one: more are not taken
                self._slots = max(1, self._open())
            case _:
                pass
        self._slots = max(self._slots, len(self._generating))

    def _pay(self, job_id: str, *, is_new: bool) -> None:
        self.created += is_new
        self.spent_usd += self._expected.costs.get(job_id, 0.0) * is_new

    def _generate(self, job_id: str, now: float) -> None:
        self._forget(job_id)
        self._generating[job_id] = now

    def _download(self, job_id: str, now: float) -> None:
        self._forget(job_id)
        self._downloading[job_id] = now

    def _end(self, job_id: str, now: float) -> None:
        since = self._forget(job_id)
        if since is not None:
            self._download_s.append(now - since)

    def _forget(self, job_id: str) -> float | None:
        """Drop a job; return since when it was downloading, if it was."""
        self._generating.pop(job_id, None)
        return self._downloading.pop(job_id, None)

    def _open(self) -> int:
        return len(self._generating) + len(self._downloading)

    # -- speed and time

    def _speed(self, now: float) -> float:
        while self._received and self._received[0][0] < now - SPEED_WINDOW_S:
            self._received.popleft()
        window_s = min(SPEED_WINDOW_S, max(now - self._begun, 1.0))
        return sum(size for _, size in self._received) / window_s

    def _left(self, now: float) -> str | None:
        """Return how long it will take yet, in words; None while nothing can be told."""
        seconds = self._left_s(now)
        if seconds is None:
            return None
        if self._lasts_s is not None:
            until_s = self._begun + self._lasts_s - now
            if 0 < until_s < seconds:
                return f"stops at its deadline, in {in_words(until_s)}"
        return f"{in_words(seconds)} left"

    def _left_s(self, now: float) -> float | None:
        return None if self._sentences.is_silent else seconds_left(self._outlook(now))

    def _outlook(self, now: float) -> Outlook:
        limits = self._expected.limits
        return Outlook(
            waiting=0 if self._sentences.is_stopping else self._waiting(),
            ages=[now - since for since in self._generating.values()],
            to_download=len(self._downloading),
            times=self._times[:: max(1, len(self._times) // LIKE)],
            slots=self._slots,
            interval_s=limits.submit_rate.period_s / limits.submit_rate.count,
            download_s=sum(self._download_s) / max(len(self._download_s), 1),
            downloads=limits.max_downloads,
        )

    def _waiting(self) -> int:
        """Return how many jobs are still to be submitted, as far as the budget covers them."""
        expected = self._expected
        begun = self.outcomes.total() + self._open() + len(self.left)
        waiting = max(min(expected.to_pay, expected.jobs - begun), 0)
        if expected.limits.budget_usd is not None and expected.costs:
            typical_usd = sum(expected.costs.values()) / len(expected.costs)
            rest_usd = max(expected.limits.budget_usd - self.spent_usd, 0.0)
            waiting = min(waiting, int(rest_usd / typical_usd)) if typical_usd else waiting
        return waiting


def _alike(to_make: list[Decision], past: Mapping[str, list[float]]) -> list[float]:
    """Return past generation times, mixed as the kinds of the jobs are; all where none is known."""
    jobs = [item.job for item in to_make[:: max(1, len(to_make) // SAMPLED)] if item.job]
    kinds = Counter(kind_of(job.request) for job in jobs)
    mixed = [
        ordered[int((place + 0.5) / share * len(ordered))]
        for kind, count in kinds.items()
        if (ordered := sorted(past.get(kind, ())))
        for share in [max(1, round(LIKE * count / kinds.total()))]
        for place in range(share)
    ]
    return mixed or [seconds for times in past.values() for seconds in times]
