"""Events as log records: a stable `action` for machines, a sentence for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from batch import events
from batch.attempt import Phase
from batch.cli.words import ending
from batch.days import local_second
from batch.events import Event

logger = logging.getLogger("batch")
LOOKING_UP = "looking its task up"
RESUMED = {
    Phase.OPEN: "still waiting for task {}",
    Phase.TIMED_OUT: "still waiting for task {}",
    Phase.GENERATED: "downloading the video of task {}",
    Phase.LANDED: "downloading the video of task {} again",
}


class LogObserver:
    """Writes every event as one log record."""

    def notify(self, event: Event) -> None:
        """Log *event*."""
        level, message = describe(event)
        if logger.isEnabledFor(level):
            fields = _fields(event)
            logger.log(level, message, extra={"action": type(event).__name__, "fields": fields})


class Held(logging.Handler):
    """Holds records back until the exit code tells whether they are wanted (`--quiet`).

    What the summary says as well is left out: cron mails both.
    """

    KEPT = 1000

    def __init__(self, target: logging.Handler, *, is_for_people: bool) -> None:
        super().__init__(logging.WARNING)
        self._target = target
        self._is_for_people = is_for_people
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*."""
        is_repeated = self._is_for_people and is_in_summary(record)
        if len(self._records) < self.KEPT and not is_repeated:
            self._records.append(record)

    def hand_over(self) -> None:
        """Write every record held back."""
        for record in self._records:
            self._target.handle(record)
        self._records.clear()


def is_in_summary(record: logging.LogRecord) -> bool:
    """Return whether the summary says the same."""
    action, fields = getattr(record, "action", ""), getattr(record, "fields", {})
    if action == events.JobEnded.__name__:
        return bool(fields["status"] != "succeeded")
    return action in {events.Stopping.__name__, events.AnswerLost.__name__}


class TextFormatter(logging.Formatter):
    """`12:30:01 beach: made, videos/beach.mp4`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as a line."""
        # Without its zone: a TZ of a day or more off, which is no zone for Python, ends no line.
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{time} {level}{record.getMessage()}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with a stable `action`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as a JSON object."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "action": getattr(record, "action", "log"),
            "message": record.getMessage(),
        }
        return json.dumps(entry | getattr(record, "fields", {}), ensure_ascii=False, default=str)


def configure(
    *, level: int, log_format: str, stream: TextIO | None = None
) -> logging.StreamHandler[Any]:
    """Send the package's log to *stream* (default stderr) only, and return the handler."""
    handler: logging.StreamHandler[Any] = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    return handler


def describe(event: Event) -> tuple[int, str]:  # noqa: C901, PLR0912 - one arm per event
    """Return the level of *event* and a sentence that describes it."""
    match event:
        case events.RunStarted():
            planned = ", ".join(f"{count} {action}" for action, count in event.planned.items())
            ends = "" if event.ends_at is None else f"; ends by {local_second(event.ends_at)}"
            return logging.INFO, f"run {event.run_id}: {planned or 'nothing to do'}{ends}"
        case events.Submitted():
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            return logging.INFO, f"{event.job_id}: submitted as task {event.task_id}{again}"
        case events.Resumed():
            return (
                logging.INFO,
                f"{event.job_id}: resuming: {RESUMED.get(event.phase, LOOKING_UP).format(event.task_id)}",
            )
        case events.AnswerLost():
            message = event.failure.message
            unclear = f"{event.job_id}: its submission may have created a task ({message})"
            return logging.WARNING, f"{unclear}; looking it up"
        case events.Adopted():
            return logging.INFO, f"{event.job_id}: found as task {event.task_id}"
        case events.TaskRescued():
            return logging.ERROR, _describe_rescue(event)
        case events.Warned():
            return logging.WARNING, event.message
        case events.NotAnswering():
            why = f" ({event.reason})" if event.reason else ""
            said = f"the provider has not answered for {event.seconds:.0f} s{why}; still trying"
            return logging.WARNING, said
        case events.AnsweringAgain():
            return logging.INFO, f"the provider answers again, after {event.seconds:.0f} s"
        case events.Delayed():
            return (
                logging.INFO,
                f"{event.job_id}: refused for now ({event.failure.message}); retrying in {event.wait_s:.1f} s",
            )
        case events.Polled():
            return logging.DEBUG, f"{event.job_id}: task {event.task_id} is {event.status}"
        case events.PollFailed():
            about = f"task {event.task_id} was not answered ({event.failure.message})"
            return logging.DEBUG, f"{event.job_id}: {about}"
        case events.VideoReady():
            return logging.DEBUG, f"{event.job_id}: generated in {event.seconds:.0f} s"
        case events.Downloading():
            return logging.DEBUG, f"{event.job_id}: downloading, {_size(event.received)} more"
        case events.DownloadBroke():
            return logging.INFO, _describe_retry(event)
        case events.JobEnded():
            return _describe_end(event)
        case events.Uploaded():
            return logging.INFO, f"{event.job_id}: uploaded to {event.target}/{event.file}"
        case events.JobLeft():
            return logging.DEBUG, f"{event.job_id}: left to the next run"
        case events.BugFound():
            return logging.DEBUG, f"{event.job_id}: ended by a bug of kling-batch"
        case events.Stopping():
            return logging.WARNING, event.reason


def _describe_rescue(event: events.TaskRescued) -> str:
    known = f"{event.job_id}: task {event.task_id} ({event.external_task_id}) was created and could"
    known += " not be recorded"
    if event.file is None:
        return f"{known}; no file could be written either, so keep this line"
    return f"{known}; it is kept in {event.file}, and the next run takes it in"


def _describe_end(event: events.JobEnded) -> tuple[int, str]:
    row = event.row
    if row["status"] == "succeeded":
        notes = "".join(f"; {warning}" for warning in row["warnings"])
        level = logging.WARNING if notes and not event.superseded else logging.INFO
        return level, f"{event.job_id}: made, {row['file']} ({_size(row['bytes'])}){notes}"
    what = ending(row["status"], row["error"])
    return logging.WARNING, f"{event.job_id}: {what}: {(row['error'] or {}).get('message')}"


def _describe_retry(event: events.DownloadBroke) -> str:
    status = event.failure.http_status
    about = event.failure.message if status is None else f"HTTP {status}: {event.failure.message}"
    here = f", {_size(event.bytes_here)} here" if event.bytes_here else ""
    return f"{event.job_id}: retrying the download in {event.wait_s:.1f} s ({about}{here})"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in type(event).__match_args__:
        value = getattr(event, name)
        if name == "failure":
            fields["error"] = {
                "kind": value.kind.value,
                "code": value.code,
                "http_status": value.http_status,
                "message": value.message,
            }
        elif name == "row":
            fields |= {key: item for key, item in value.items() if key not in {"prompt", "options"}}
        else:
            fields[name] = value
    return fields
