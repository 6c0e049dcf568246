"""Counts of requests, tasks and downloads, for tests, benchmarks and `GET /sandbox/stats`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import Any

from batch.sandbox.engine import Engine, Task


@dataclass(slots=True)
class Stats:
    """Counts since the server started.

    Attributes:
        posts: submissions that arrived, refused ones included.
        created: tasks made, each of them paid for.
        refused: submissions that were answered with an error and made nothing.
        queries: GETs by task id.
        lookups: GETs by external id.
        lists: GETs of the list.
        unauthorized: requests without a key that is accepted.
        downloads: requests for a video.
        bytes: video bytes sent.
        key_leaks: requests for a video that carried an Authorization header.
        bad_links: requests for a video with a wrong or expired signature.
        callbacks: callbacks that were delivered.
        failed_callbacks: callbacks that were not.
        most_in_flight: most tasks of one account that held a slot at once.
        post_times: when each submission arrived, seconds since the epoch.
        query_times: when each task was polled, by task id.
    """

    posts: int = 0
    created: int = 0
    refused: int = 0
    queries: int = 0
    lookups: int = 0
    lists: int = 0
    unauthorized: int = 0
    downloads: int = 0
    bytes: int = 0
    key_leaks: int = 0
    bad_links: int = 0
    callbacks: int = 0
    failed_callbacks: int = 0
    most_in_flight: int = 0
    post_times: list[float] = field(default_factory=list)
    query_times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def reset(self) -> None:
        """Count from zero."""
        fresh = Stats()
        for entry in fields(fresh):
            setattr(self, entry.name, getattr(fresh, entry.name))

    def note_query(self, reference: str, moment: float, *, is_lookup: bool) -> None:
        """Count a GET for one task."""
        if is_lookup:
            self.lookups += 1
        else:
            self.queries += 1
            self.query_times[reference].append(moment)

    @property
    def queries_per_task(self) -> dict[str, int]:
        """How often each task was polled, by task id."""
        return {task_id: len(times) for task_id, times in self.query_times.items()}

    def closest_queries_s(self) -> float:
        """Return the shortest time between two queries for one task; infinite if there are none."""
        gaps = (
            later - earlier
            for times in self.query_times.values()
            for earlier, later in itertools.pairwise(times)
        )
        return min(gaps, default=float("inf"))

    def counts(self) -> dict[str, int]:
        """Return the plain numbers."""
        names = (name for name in self.__slots__ if not name.endswith("_times"))
        return {name: getattr(self, name) for name in names}


def report(stats: Stats, engine: Engine, fired: dict[str, int], moment: float) -> dict[str, Any]:
    """Return all statistics as JSON-ready values."""
    polled = stats.queries_per_task
    tasks = [_task_row(task, polled.get(task.task_id, 0), moment) for task in engine]
    return {
        **stats.counts(),
        "faults_fired": fired,
        "post_times": stats.post_times,
        "tasks": tasks,
    }


def _task_row(task: Task, queries: int, moment: float) -> dict[str, Any]:
    return {
        "number": task.number,
        "task_id": task.task_id,
        "external_task_id": task.external_task_id,
        "status": task.status(moment),
        "outcome": task.outcome,
        "message": task.message,
        "created_at": task.created_at,
        "finished_at": task.finished_at,
        "queries": queries,
        "body": task.body,
    }
