"""What can be committed to the state of an output folder."""

from __future__ import annotations

from dataclasses import dataclass

from batch.job import Attempt


@dataclass(frozen=True, slots=True)
class Put:
    """An attempt is now in this state."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The attempt is as if it had never been meant. Only for what was surely not sent."""

    external_task_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.jsonl, without its newline."""

    line: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A task of ours was found by its external id on this base URL, with this account's key."""

    base_url: str
    account: str
    proved_at: float


@dataclass(frozen=True, slots=True)
class GenerationTime:
    """How long the provider took for a task of this kind (model, mode, duration)."""

    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began."""

    run_id: str
    at: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run ended with this exit code."""

    run_id: str
    at: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class Fact:
    """A named fact about the folder, for example whose videos it holds."""

    name: str
    value: str


Change = Put | Withdraw | Row | Proof | GenerationTime | RunStarted | RunEnded | Fact
