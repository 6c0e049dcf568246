"""Why a run stops early, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from batch import events
from batch.errors import ExitCode
from batch.events import Event


class StopReason(StrEnum):
    """What ended a run before everything was done."""

    DEADLINE = "deadline"
    LAST_CALL = "last_call"
    BUDGET = "budget"
    PLAN_COST = "plan_cost"
    SAVED_PLAN = "saved_plan"
    ACCOUNT = "account"
    DISK = "disk"
    UNREACHABLE = "unreachable"
    STATE = "state"
    BUG = "bug"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"


EXIT_CODES = {
    StopReason.DEADLINE: ExitCode.LIMIT,
    StopReason.LAST_CALL: ExitCode.LIMIT,
    StopReason.BUDGET: ExitCode.LIMIT,
    StopReason.PLAN_COST: ExitCode.LIMIT,
    StopReason.SAVED_PLAN: ExitCode.LIMIT,
    StopReason.ACCOUNT: ExitCode.ACCOUNT,
    StopReason.DISK: ExitCode.JOBS_FAILED,
    StopReason.UNREACHABLE: ExitCode.JOBS_FAILED,
    StopReason.STATE: ExitCode.JOBS_FAILED,
    StopReason.BUG: ExitCode.BUG,
    StopReason.INTERRUPTED: ExitCode.INTERRUPTED,
    StopReason.TERMINATED: ExitCode.TERMINATED,
}
LIMITS = frozenset(reason for reason, code in EXIT_CODES.items() if code is ExitCode.LIMIT)
# What refuses job by job: others may still be submitted.
MILD = frozenset({StopReason.BUDGET, StopReason.SAVED_PLAN})
LEAVES = frozenset(
    {StopReason.DEADLINE, StopReason.STATE, StopReason.INTERRUPTED, StopReason.TERMINATED}
)


class Stop:
    """The switch that all stages observe, and that reports each reason once.

    `feeding` set: nothing more is submitted; what is open is collected.
    `leaving` set as well: open tasks are left to the next run; downloads under way finish.
    A used-up budget sets neither: what is paid for next is refused by the budget, job by job. So it is
    with a saved plan.
    """

    def __init__(self, notify: Callable[[Event], None] = lambda _event: None) -> None:
        from batch.waker import Waker  # noqa: PLC0415 - a quiet night loads no asyncio

        self.notify = notify
        self.feeding = Waker()
        self.leaving = Waker()
        self.reason: StopReason | None = None
        self.sentence = ""

    def ask(self, reason: StopReason, sentence: str) -> None:
        """Stop for *reason*. The first reason counts, unless it was a mild one."""
        is_worse = self.reason in MILD and reason not in MILD
        is_first = self.reason is None or is_worse
        is_news = is_first or (reason in LEAVES and not self.leaving.is_set())
        if is_first:
            self.reason, self.sentence = reason, sentence
        if reason not in MILD:
            self.feeding.set()
        if reason in LEAVES:
            self.leaving.set()
        if is_news:
            self.notify(events.Stopping(sentence))
