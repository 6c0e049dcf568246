"""What the screen says in words: about the run as a whole, and about the jobs in trouble."""

from __future__ import annotations

from collections.abc import Iterator

from batch import events
from batch.cli.logs import describe
from batch.events import Event

WORTH_SAYING_S = 5.0  # of a wait that the provider has asked for
MANY_TRIES = 2  # of a download, from which on it is a trouble
KEPT = 100


class Sentences:
    """Follows the events of a run; a job's trouble is dropped once it is over."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}  # by job, the latest last
        self._silence: tuple[float, str | None] | None = None  # since when, and why
        self._refusal: tuple[float, str] | None = None  # until when, and why
        self._stopping: str | None = None

    @property
    def is_silent(self) -> bool:
        """Whether the provider does not answer."""
        return self._silence is not None

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is submitted."""
        return self._stopping is not None

    def follow(self, event: Event, now: float) -> None:
        """Take in *event*; *now* is monotonic."""
        self._follow_run(event, now)
        self._follow_job(event)

    def notes(self, now: float) -> Iterator[str]:
        """Yield the sentences about the run."""
        if self._stopping is not None:
            yield self._stopping
        if self._silence is not None:
            since, reason = self._silence
            yield describe(events.NotAnswering(now - since, reason))[1]
        elif self._refusal is not None and now < self._refusal[0]:
            until, message = self._refusal
            yield f"refused for now ({message}); trying again in {until - now:.0f} s"

    def troubles(self) -> tuple[str, ...]:
        """Return the sentences about jobs, the latest last."""
        return tuple(self._troubles.values())

    def _follow_run(self, event: Event, now: float) -> None:
        match event:
            case events.NotAnswering(seconds=seconds, reason=reason):
                self._silence = now - seconds, reason
            case events.AnsweringAgain():
                self._silence = None
            case events.Stopping(reason=reason):
                self._stopping = reason
            case events.Delayed(failure=failure, wait_s=wait_s) if wait_s >= WORTH_SAYING_S:
                self._refusal = now + wait_s, failure.message
            case events.Submitted():
                self._refusal = None
            case _:
                pass

    def _follow_job(self, event: Event) -> None:
        match event:
            case events.AnswerLost(job_id=job_id):
                self._say(job_id, event)
            case events.DownloadBroke(job_id=job_id, tries=tries) if tries >= MANY_TRIES:
                self._say(job_id, event)
            case events.JobEnded(job_id=job_id, row={"status": status}, superseded=False) if (
                status != "succeeded"
            ):
                self._say(job_id, event)
            case events.Submitted(job_id=job_id) | events.Adopted(job_id=job_id):
                self._troubles.pop(job_id, None)
            case events.JobEnded(job_id=job_id, superseded=False):
                self._troubles.pop(job_id, None)
            case _:
                pass

    def _say(self, job_id: str, event: Event) -> None:
        self._troubles.pop(job_id, None)
        self._troubles[job_id] = describe(event)[1]
        if len(self._troubles) > KEPT:
            del self._troubles[next(iter(self._troubles))]
