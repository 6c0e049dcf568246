"""What to do with each job, and why: a pure function of the manifest and what is known.

`kling-batch plan` prints it, `kling-batch run` does it.

    for every job:  is it selected?       →  by its id, tags or state                (select)
                    is its request known?  →  under this id, or moved from another   (moves)
                    what became of it?     →  do nothing, go on, or pay              (judge)
                    --force?               →  only what its round has left           (rounds)
"""

from __future__ import annotations

from batch.plan.decision import (
    COSTING,
    PAYING,
    Action,
    Decision,
    History,
    IsPresent,
    Known,
    Move,
    Policy,
    Round,
)
from batch.plan.decisions import Decisions, Plan
from batch.plan.judge import HEALS_BY_ITSELF, decide, orphan, passes
from batch.plan.make import make_plan
from batch.plan.select import STATES, Selection

__all__ = [
    "COSTING",
    "HEALS_BY_ITSELF",
    "PAYING",
    "STATES",
    "Action",
    "Decision",
    "Decisions",
    "History",
    "IsPresent",
    "Known",
    "Move",
    "Plan",
    "Policy",
    "Round",
    "Selection",
    "decide",
    "make_plan",
    "orphan",
    "passes",
]
