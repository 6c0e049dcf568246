"""An attempt: one request to pay for a job, and everything that can happen to it.

The states are a sum type in which a field exists only where it is known, and `TRANSITIONS` is the
one table of what may follow what (`kling-batch help design` draws it). A stage changes a state through
`Attempt.to`, and commits the result before its next step.

*Planned* is nothing on disk. *Superseded* is not a state: an attempt is superseded when its
fingerprint is no longer that of its job in the manifest, and it is collected all the same.
"""

from __future__ import annotations

from batch.attempt.attempt import EXTERNAL_ID_PREFIX, FORGOTTEN_CODE, Attempt, external_id
from batch.attempt.states import (
    ELSEWHERE,
    RETENTION_S,
    TRANSITIONS,
    Account,
    AttemptState,
    Checked,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    Outcome,
    PaidTask,
    Phase,
    Pin,
    TimedOut,
    Unconfirmed,
)

__all__ = [
    "ELSEWHERE",
    "EXTERNAL_ID_PREFIX",
    "FORGOTTEN_CODE",
    "RETENTION_S",
    "TRANSITIONS",
    "Account",
    "Attempt",
    "AttemptState",
    "Checked",
    "Discarded",
    "Doubt",
    "Failed",
    "Generated",
    "Intended",
    "Landed",
    "Lost",
    "Open",
    "Outcome",
    "PaidTask",
    "Phase",
    "Pin",
    "TimedOut",
    "Unconfirmed",
    "external_id",
]
