"""What a settled run has come to, by the shared rows alone: no worker has seen all of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batch import events
from batch.engines.terms import Terms, decision_of
from batch.errors import ExitCode
from batch.frozen import frozen
from batch.library.accounts import Figures, Spent, figures, flat
from batch.output.fleet import OpenRun, Outcome
from batch.output.row import is_superseded
from batch.plan import Action, Decision, Known, Plan
from batch.run.counts import Counts
from batch.run.last_call import LastCall
from batch.run.stop import Stop, StopReason
from batch.run.summary import Summary


@frozen
class Concluded:
    """How a run ended: *counts* of its jobs, and the reason and the sentence for an early end."""

    counts: Counts
    exit_code: ExitCode
    stopped: str | None


def conclude(run: OpenRun, terms: Terms, outcome: Outcome, last_call: LastCall | None) -> Concluded:
    """Return how a run ended.

    Args:
        run: with the reason why it was stopped, if it was.
        terms: of the run.
        outcome: its rows, and what is left.
        last_call: tells what was too late to be submitted.
    """
    counts = Counts()
    for row in _last_rows(outcome.rows):
        counts.notify(events.JobEnded(row["job_id"], row, superseded=is_superseded(row)))
    counts.left = {work.job_id for work in outcome.left} | set(outcome.bugs)
    counts.bugs = [f"job {job_id}: see the log of its worker" for job_id in outcome.bugs]
    stop = Stop()
    if run.stop is not None:
        stop.ask(StopReason(run.stop[0]), run.stop[1])
    if stop.reason is None and last_call is not None and _were_late(outcome, last_call):
        stop.ask(StopReason.LAST_CALL, last_call.sentence)
    plan = Plan(resting=[Decision(Action.RESTING, *item) for item in terms.resting])
    return Concluded(counts, counts.exit_code(plan, stop), stop.sentence or None)


def summary_of(
    run: OpenRun,
    terms: Terms,
    outcome: Outcome,
    found: Concluded,
    known: Mapping[str, Iterable[Known]],
    **more: Any,
) -> Summary:
    """Return the summary of a run; *known* are the library's attempts at its end."""
    attempts = list(flat(known))
    after, spent = figures(attempts), _spent(terms.before, attempts, outcome.sent)
    return Summary(
        run_id=run.run_id,
        name=terms.name,
        output_dir=run.root,
        exit_code=found.exit_code,
        planned=terms.planned,
        moved=terms.moved,
        resting=terms.resting,
        tasks_created=spent.tasks,
        adopted=spent.adopted,
        cost_usd=spent.cost_usd,
        library=after,
        stopped=found.stopped,
        **found.counts.found(),
        **more,
    )


def _spent(before: Figures, attempts: list[Known], sent: frozenset[str]) -> Spent:
    """Return what a run has created: of the tasks that are new since it began, those it has sent."""
    created = figures(item for item in attempts if item.external_task_id in sent)
    return Spent(
        tasks=created.tasks,
        cost_usd=created.cost_usd,
        adopted=max(figures(attempts).tasks - before.tasks - created.tasks, 0),
    )


def _last_rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the last row of each job; those of former versions apart."""
    last: dict[tuple[str, str | None], str] = {}  # as lines: all rows take five times the memory
    for line in lines:
        row = json.loads(line)
        last[row["job_id"], row["external_task_id"] if is_superseded(row) else None] = line
    return map(json.loads, last.values())


def _were_late(outcome: Outcome, last_call: LastCall) -> bool:
    for work in outcome.left:
        job = decision_of(work).job
        if job is not None:
            last_call.refuses(job.request)
    return last_call.has_refused
