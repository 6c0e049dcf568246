"""What happens in a run, as values. The core emits them; logs, progress and callers decide.

An observer is any object with a method `notify(event)`; `batch.open_run` takes a list of them:

    class Printer:
        def notify(self, event: events.Event) -> None:
            match event:
                case events.Submitted(job_id=job_id, task_id=task_id):
                    print(job_id, "is task", task_id)
                case events.Stopping(reason=reason):
                    print("stopping:", reason)

    async with batch.open_run(manifest, observers=[Printer()]) as run: ...

It is called in the run's own event loop, in the order of what happens, and everything waits for it:
hand slow work to a queue or a thread. If it raises, the run stops softly and the error is raised at
its end. Later releases may add kinds of events and fields, so let `match` ignore what it does not
know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from batch.attempt import Phase
from batch.frozen import frozen
from batch.job import Failure


@frozen
class RunStarted:
    """The run holds its folder and begins; *planned* counts the jobs by action.

    *ends_at* is its deadline, in seconds since the epoch; None without one.
    """

    run_id: str
    output_dir: str
    planned: dict[str, int]
    cost_usd: float
    ends_at: float | None = None


@frozen
class Submitted:
    """A task was created, and will be paid for."""

    job_id: str
    task_id: str
    external_task_id: str
    attempt: int


@frozen
class Resumed:
    """An attempt of an earlier run goes on from the *phase* that it was left in."""

    job_id: str
    phase: Phase
    task_id: str | None


@frozen
class AnswerLost:
    """A submission whose answer says nothing: the task is looked for before anything is sent."""

    job_id: str
    external_task_id: str
    failure: Failure


@frozen
class Adopted:
    """A task whose answer was lost was found by its external id.

    *is_new*: this run had sent the request; otherwise an earlier run had.
    """

    job_id: str
    task_id: str
    external_task_id: str
    is_new: bool


@frozen
class TaskRescued:
    """A task was created and could not be recorded; it is kept in *file*, if any place took one."""

    job_id: str
    task_id: str
    external_task_id: str
    file: Path | None


@frozen
class Warned:
    """Something about the run as a whole that the person should know."""

    message: str


@frozen
class NotAnswering:
    """The provider has not answered for so long; *reason* is what the network said, if anything."""

    seconds: float
    reason: str | None


@frozen
class AnsweringAgain:
    """The provider answers again, after so long."""

    seconds: float


@frozen
class Delayed:
    """The provider asked for patience (429, 1303) or could not be reached; the job waits."""

    job_id: str
    failure: Failure
    wait_s: float


@frozen
class Polled:
    """A task was polled."""

    job_id: str
    task_id: str
    status: str


@frozen
class PollFailed:
    """A poll got no usable answer; the task is polled again."""

    job_id: str
    task_id: str
    failure: Failure


@frozen
class VideoReady:
    """The provider has generated the video."""

    job_id: str
    task_id: str
    seconds: float


@frozen
class Downloading:
    """A download goes on: *received* bytes have come since the last event; one a second, about."""

    job_id: str
    received: int


@frozen
class DownloadBroke:
    """A download broke after *bytes_here*, and is tried again in *wait_s*.

    *tries* counts those in a row without a new byte.
    """

    job_id: str
    failure: Failure
    bytes_here: int
    tries: int
    wait_s: float


@frozen
class JobEnded:
    """A job has reached an outcome; *row* is its line of results.jsonl, a `batch.Row`."""

    job_id: str
    row: dict[str, Any]
    superseded: bool = False


@frozen
class Uploaded:
    """A video is in the bucket, whole; *file* is its name there, below the prefix of *target*."""

    job_id: str
    file: str
    target: str
    bytes: int


@frozen
class JobLeft:
    """A job is left to the next run."""

    job_id: str


@frozen
class BugFound:
    """A bug of ours ended the work on a job; *report* is its traceback."""

    job_id: str
    report: str


@frozen
class Stopping:
    """Nothing more is submitted; *reason* says why, in a sentence."""

    reason: str


Event = (
    RunStarted
    | Submitted
    | Resumed
    | AnswerLost
    | Adopted
    | TaskRescued
    | Warned
    | NotAnswering
    | AnsweringAgain
    | Delayed
    | Polled
    | PollFailed
    | VideoReady
    | Downloading
    | DownloadBroke
    | JobEnded
    | Uploaded
    | JobLeft
    | BugFound
    | Stopping
)


class Observer(Protocol):
    """Is told of every event. Must not block, and must not raise."""

    def notify(self, event: Event) -> None:
        """Take note of *event*."""
        ...


def to_all(observers: Iterable[Observer]) -> Callable[[Event], None]:
    """Return what tells an event to all that are among *observers* by then."""

    def notify(event: Event) -> None:
        for observer in observers:
            observer.notify(event)

    return notify
