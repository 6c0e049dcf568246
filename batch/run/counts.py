"""What a run does, counted by an observer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from batch import events
from batch.attempt import Outcome
from batch.errors import ExitCode
from batch.events import Event
from batch.job import Failure, FailureKind
from batch.output.row import is_superseded
from batch.plan import Plan
from batch.run.stop import EXIT_CODES, LIMITS, Stop


class Counts:
    """An observer that counts what became of the jobs. Nothing else writes into it.

    Tasks and their cost are not counted here: `batch.library.accounts` reads them from the state.
    *doubts* are the attempts that may have created a task before this run; *sent* those of them that
    it has sent again; *taken_over* all whose task an earlier run has created.
    """

    def __init__(self, doubts: Collection[str] = ()) -> None:
        self.outcomes: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.taken_over: set[str] = set()
        self._doubts = doubts
        self.superseded = 0
        self.left: set[str] = set()
        self.troubles: list[dict[str, Any]] = []
        self.bugs: list[str] = []
        self.unreachable: Failure | None = None  # why nothing answers, as long as nothing does

    def notify(self, event: Event) -> None:
        """Count *event*."""
        self._note_answer(event)
        match event:
            case (
                events.Submitted(external_task_id=sent)
                | events.Adopted(external_task_id=sent, is_new=True)
            ):
                if sent in self._doubts:
                    self.sent.add(sent)
            case events.Adopted(external_task_id=found):
                self.taken_over.add(found)
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

    def _note_answer(self, event: Event) -> None:
        match event:
            case (
                events.Delayed(failure=failure)
                | events.AnswerLost(failure=failure)
                | events.PollFailed(failure=failure)
            ):
                is_silence = failure.kind is FailureKind.NETWORK and failure.http_status is None
                self.unreachable = failure if is_silence else None
            case events.Submitted() | events.Adopted() | events.Polled() | events.VideoReady():
                self.unreachable = None
            case _:
                pass

    def recount(self, rows: Iterable[dict[str, Any]], jobs: Iterable[str]) -> None:
        """Recount the outcomes after a run that was left at once: its last events are missing.

        Args:
            rows: what the state holds of this run.
            jobs: those that the run was to bring to an outcome.
        """
        self.outcomes.clear()
        self.troubles.clear()
        self.left = set(jobs)
        for row in rows:
            if not is_superseded(row):
                self.left.discard(row["job_id"])
                self.notify(events.JobEnded(row["job_id"], row))

    def exit_code(self, plan: Plan, stop: Stop | None = None) -> ExitCode:
        """Return how the run ended; without *stop* there was nothing to stop."""
        if self.bugs:
            return ExitCode.BUG
        reason = None if stop is None else stop.reason
        if reason is not None and (self.left or reason not in LIMITS):
            return EXIT_CODES[reason]
        if plan.resting or any(status != Outcome.SUCCEEDED for status in self.outcomes):
            return ExitCode.JOBS_FAILED
        return ExitCode.OK

    def found(self) -> dict[str, Any]:
        """Return the fields of the summary that were counted."""
        return {
            "outcomes": dict(self.outcomes),
            "superseded": self.superseded,
            "left": len(self.left),
            "troubles": tuple(self.troubles),
            "bugs": tuple(self.bugs),
        }
