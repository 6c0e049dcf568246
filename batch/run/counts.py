"""What a run does, counted by an observer."""

from __future__ import annotations

from collections import Counter
from typing import Any

from batch import events
from batch.attempt import Outcome
from batch.errors import ExitCode
from batch.events import Event
from batch.plan import Plan
from batch.run.stop import EXIT_CODES, LIMITS, Stop


class Counts:
    """An observer that counts what a run does. Nothing else writes into it."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tasks_created = 0
        self.adopted = 0
        self.superseded = 0
        self.left: set[str] = set()
        self.troubles: list[dict[str, Any]] = []
        self.bugs: list[str] = []

    def notify(self, event: Event) -> None:
        """Count *event*."""
        match event:
            case events.Submitted():
                self.tasks_created += 1
            case events.Adopted(is_new=is_new):
                self.tasks_created += is_new
                self.adopted += not is_new
            case events.JobEnded(superseded=True):
                self.superseded += 1
            case events.JobEnded(row=row):
                self.outcomes[row["status"]] += 1
                if row["status"] != Outcome.SUCCEEDED:
                    self.troubles.append(row)
            case events.JobLeft(job_id):
                self.left.add(job_id)
            case events.BugFound(job_id, report):
                self.left.add(job_id)
                self.bugs.append(report)
            case _:
                pass

    def exit_code(self, plan: Plan, stop: Stop) -> ExitCode:
        """Return how the run ended."""
        if self.bugs:
            return ExitCode.BUG
        reason = stop.reason
        if reason is not None and (self.left or reason not in LIMITS):
            return EXIT_CODES[reason]
        if plan.resting or any(status != Outcome.SUCCEEDED for status in self.outcomes):
            return ExitCode.JOBS_FAILED
        return ExitCode.OK

    def found(self) -> dict[str, Any]:
        """Return the fields of the summary that were counted."""
        return {
            "outcomes": dict(self.outcomes),
            "tasks_created": self.tasks_created,
            "adopted": self.adopted,
            "superseded": self.superseded,
            "left": len(self.left),
            "troubles": tuple(self.troubles),
            "bugs": tuple(self.bugs),
        }
