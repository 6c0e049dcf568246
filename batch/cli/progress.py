"""The progress bar: one with counters, since a bar per job would cost a tenth of a core."""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from batch import events
from batch.cli.logs import describe
from batch.events import Event
from batch.plan import Action

IDLE = frozenset({Action.UNCHANGED, Action.RESTING, Action.ORPHANED})


class ProgressBar:
    """An observer that draws a bar. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._bar = self._progress.add_task("planning", total=None)
        self._done: Counter[str] = Counter()
        self._submitted: set[str] = set()
        self._generated: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def notify(self, event: Event) -> None:
        """Update the bar, and print a warning above it."""
        match event:
            case events.RunStarted(planned=planned):
                todo = sum(count for action, count in planned.items() if action not in IDLE)
                self._progress.update(self._bar, total=todo)
            case events.Submitted(job_id=job_id) | events.Adopted(job_id=job_id):
                self._submitted.add(job_id)
            case events.VideoReady(job_id=job_id):
                self._generated.add(job_id)
                self._submitted.discard(job_id)
            case events.JobEnded(job_id=job_id, row=row, superseded=False):
                self._submitted.discard(job_id)
                self._generated.discard(job_id)
                self._done[row["status"]] += 1
                self._progress.advance(self._bar)
            case _:
                pass
        level, message = describe(event)
        if level >= logging.WARNING or isinstance(event, events.AnsweringAgain):
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)
        troubles = sum(count for status, count in self._done.items() if status != "succeeded")
        text = f"{len(self._submitted)} generating, {len(self._generated)} downloading"
        if troubles:
            text += f", {troubles} failed"
        self._progress.update(self._bar, description=text)
