"""What a person lets a year cost: budgets of days and months, attempts per run, saved plans.

Also who looks after the files: in a tidy year nobody but the product touches them, and none may be
left without an owner. The dice are its own, so that it changes nothing about ordinary nights.
"""

from __future__ import annotations

import contextlib
import os
import random
import time as clocks
from collections import Counter
from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtual_time import EPOCH

from batch.attempt import Attempt, Landed
from batch.library.accounts import figures
from batch.library.allowances import allowances
from batch.manifest.limits import Limits, Order
from batch.plan.saved import SavedPlan
from batch.run.approved import save_plan

if TYPE_CHECKING:
    from fake_provider import ProviderTask
    from night import Night, RunPlan

PRICE_USD = 0.21
ZONE = "Europe/Berlin"  # its clocks change on 2026-10-25


class Purse:
    """What is drawn once for a year; without effect on other nights."""

    def __init__(self, seed: int, *, is_year: bool) -> None:
        self.rng = rng = random.Random(f"purse {seed}")
        self.has_budgets = is_year and rng.random() < 0.4
        self.is_tidy = is_year and rng.random() < 0.3
        self._saves = is_year and rng.random() < 0.3
        self.is_saved = False
        self._limits: dict[str, Any] = {}
        if is_year:
            self._limits["order"] = rng.choice(list(Order))
            self._limits["max_attempts_per_run"] = rng.choice([None, 1, 2])
        if self.has_budgets:
            self._limits["budget_per_day_usd"] = rng.choice([0.21, 0.63, 1.05])
            self._limits["budget_per_month_usd"] = rng.choice([None, 2.1, 4.2])
            self._limits["day_starts"] = rng.choice([time(), time(12)])

    def laid_over(self, limits: Limits) -> Limits:
        """Return the limits of the year."""
        return limits.with_given(**self._limits) if self._limits else limits

    def plan_of(self, night: Night, run: RunPlan) -> Path | None:
        """Save a plan now and then; return the one that a run is to go by, if any."""
        file = night.root.with_name(f"{night.root.name}-plan.json")
        if not self._saves or run.is_calm:
            return None
        if self.is_saved and self.rng.random() < 0.5:
            return file
        if self.rng.random() < 0.3:
            save_plan(file, night.plan(), night.manifest(), night.settings(run), EPOCH + night.now)
            self.is_saved = True
        return None


@contextlib.contextmanager
def in_a_zone() -> Iterator[None]:
    """Have the machine's clock in a zone in which the clocks change."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = ZONE
    clocks.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        clocks.tzset()


# -- the rules


def of_the_days(night: Night) -> list[str]:
    """No local day or month costs more than its budget, at the provider's count.

    What arrives just after a day has begun may have been sent on its eve.
    """
    broken = []
    eve_s = night.limits.request_timeout_s + night.limits.settle_time_s
    for allowance in allowances(night.limits):
        spent: Counter[tuple[str, float]] = Counter()
        for task in night.provider.by_external.values():
            span = allowance.span_of(EPOCH + task.created)
            if EPOCH + task.created - span.begins > eve_s:
                spent[str(span.first), span.ends] += 1
        for (day, _), tasks in spent.items():
            if tasks * PRICE_USD > allowance.limit_usd + 1e-6:
                broken.append(
                    f"{tasks} tasks on the {allowance.name} of {day}, with {allowance.limit_usd}"
                )
    return broken


def of_the_run(night: Night, run: RunPlan, attempts: dict[str, Attempt]) -> list[str]:
    """A run creates no more tasks of a request than it may, and by a saved plan only what that names."""
    sent = {post.external_task_id for post in night.provider.posts if post.run == run.number}
    made = [
        task
        for name, task in night.provider.by_external.items()
        if name in sent and task.created >= run.begins
    ]
    limits = night.limits_of(run)
    most = limits.max_attempts_per_run or limits.max_attempts
    broken = [
        f"{prompt!r} was paid for {number} times in run {run.number}, with {most}"
        for prompt, number in Counter(task.prompt for task in made).items()
        if number > most
    ]
    if run.plan is not None:
        broken += _unplanned(SavedPlan.from_json(run.plan.read_bytes()), made, attempts)
    return broken


def _unplanned(
    saved: SavedPlan, made: list[ProviderTask], attempts: dict[str, Attempt]
) -> list[str]:
    allowed = {job.fingerprint for job in saved.jobs}
    return [
        f"{task.external_task_id} ({task.prompt!r}) is not in the saved plan"
        for task in made
        if task.external_task_id in attempts
        and attempts[task.external_task_id].fingerprint not in allowed
    ]


def at_the_end(night: Night, attempts: list[Attempt]) -> list[str]:
    """The ledger is what the provider created; in a tidy year every file has an owner."""
    broken, tasks = [], night.provider.tasks.values()
    found = figures(attempts)
    if not (night.forgotten or night.provider.duplicates_paid):
        failed = sum(bool(task.fails) for task in tasks)
        said = found.tasks, found.failed, found.succeeded + found.failed, found.cost_usd
        if said != (len(tasks), failed, len(tasks), round(len(tasks) * PRICE_USD, 6)):
            broken.append(f"the ledger says {found}, the provider created {len(tasks)}: {failed}")
    if night.purse.is_tidy:
        broken += _unowned(night, attempts)
    return broken


def _unowned(night: Night, attempts: list[Attempt]) -> list[str]:
    """Return what is not recorded for an attempt, and what is recorded and not here.

    A death, a second Ctrl-C or a fault of the disk just after a version was brought back leaves a copy
    under its former name; just before a video takes the place of another, that one's second name. The
    next video to be displaced takes either.
    """
    landed = {a.task_id: a.state.file for a in attempts if isinstance(a.state, Landed)}
    contents = {night.provider.tasks[str(task_id)].content for task_id in landed}
    files = {str(path.relative_to(night.root)): path for path in night.root.rglob("*.mp4")}
    owned = set(landed.values())
    copies = {
        file
        for file, path in files.items()
        if night.may_leave_copies and file.startswith("versions/") and path.read_bytes() in contents
    }
    broken = [f"{file} has no owner" for file in sorted(files.keys() - owned - copies)]
    broken += [f"{file} is not here" for file in sorted(owned - files.keys())]
    return broken + [f"{path} is left" for path in night.root.rglob("*.part")]
