"""What the jobs of a run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Protocol

from batch.callbacks.hints import Hints
from batch.frozen import frozen
from batch.output.state import State
from batch.run.budget import Budget
from batch.run.context import RunContext
from batch.run.gate import Gate
from batch.run.landing import Landing
from batch.run.last_call import LastCall
from batch.run.lessons import Lessons
from batch.run.lookup import LookUp
from batch.run.poll import Poller
from batch.run.rescue import Rescuer
from batch.run.submit import Submitter

NewId = Callable[[str, int], str]
"""The external id of an attempt, from its fingerprint and its number."""


class Given(Protocol):
    """The external ids of a run's attempts, and which job each is for."""

    async def take(self, external_task_id: str, job_id: str) -> bool:
        """Take an id for a job; False when another job of the run has it."""
        ...


class GivenHere:
    """The ids of a run that one process carries out."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}

    async def take(self, external_task_id: str, job_id: str) -> bool:
        return self._jobs.setdefault(external_task_id, job_id) == job_id


@frozen
class Run:
    """What the jobs of a run share: the stages that each of them passes."""

    run_id: str
    context: RunContext
    state: State
    gate: Gate
    budget: Budget
    last_call: LastCall
    lookup: LookUp
    submitter: Submitter
    lessons: Lessons
    poller: Poller
    landing: Landing
    rescuer: Rescuer
    hints: Hints
    new_id: NewId
    given: Given = field(default_factory=GivenHere)
