"""Who watches a run: a screen on a terminal, or log lines; and both where both are asked for."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from batch import events
from batch.cli import logs
from batch.cli.notice import Notice, notice
from batch.cli.progress import Expected, Progress
from batch.cli.reporting import channels_for, own_id
from batch.clock import Clock
from batch.events import Event, Observer
from batch.plan import COSTING
from batch.run.planner import PlannedRun

T = TypeVar("T")
GENTLE_S = 0.0005  # so long a busy thread keeps the loop waiting, each time
LINE_S = 30.0  # between two lines of progress, where no screen can be drawn


def observers(
    exits: ExitStack,
    flags: Mapping[str, Any],
    planned: PlannedRun,
    clock: Clock,
    *,
    quiet: bool,
) -> tuple[list[Observer], logs.Held | None]:
    """Return the observers that the flags of `run` ask for.

    Args:
        exits: takes the screen away.
        flags: `verbose`, `log_format`, `progress` and `metrics_file`.
        planned: what the run sets out to do.
        clock: its time.
        quiet: also return the handler that holds the log back.
    """
    progress = Progress(Expected.of(planned), clock)
    paying = sum(decision.action in COSTING for decision in planned.plan.decisions)
    watchers: list[Observer] = [progress, logs.LogObserver(), PageAhead(paying)]
    if flags["metrics_file"] is not None:
        watchers.append(_metrics(flags["metrics_file"], progress, clock))
    level = logging.DEBUG if flags["verbose"] else logging.WARNING if quiet else logging.INFO
    handler = logs.configure(level=level, log_format=flags["log_format"])
    if quiet:
        held = logs.Held(handler, is_for_people=flags["log_format"] == "text")
        logs.logger.handlers[:] = [held]
        return watchers, held
    is_text, is_verbose = flags["log_format"] == "text", flags["verbose"]
    is_wanted = {"always": True, "never": False}.get(flags["progress"], is_text and not is_verbose)
    if is_wanted and _is_drawn(progress, exits, handler):
        if is_text and not is_verbose:
            handler.addFilter(_is_beside_screen)
    elif is_text and flags["progress"] != "never":
        watchers.append(Lines(progress, clock))
    return watchers, None


def _metrics(path: Path, progress: Progress, clock: Clock) -> Observer:
    """Return the observer that keeps a file for Prometheus; its last words are `main`'s."""
    from batch.cli.metrics import Metrics  # noqa: PLC0415 - only where it is asked for

    told = notice()
    assert told.path is not None
    told.metrics = metrics = Metrics(path, told.path, progress, clock)
    return metrics


class PageAhead:
    """An observer that has the page prepared while the last videos are made, in a thread.

    Otherwise that is time after the last of them. *to_submit* counts the tasks that the run is to
    submit; a run that submits fewer prepares its page at its end.
    """

    def __init__(self, to_submit: int) -> None:
        self._left = to_submit

    def notify(self, event: Event) -> None:
        """Begin when everything is submitted."""
        if not isinstance(event, events.Submitted):
            return
        self._left -= 1
        if self._left == 0:
            thread = threading.Thread(target=_prepare_page, name="page", daemon=True)
            with suppress(RuntimeError):  # the system grants no thread
                thread.start()


def _prepare_page() -> None:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(GENTLE_S)
    with suppress(Exception):  # whatever it is, the page itself will tell
        from batch.report.page import prepare  # noqa: PLC0415 - a quiet night draws nothing

        prepare()
    sys.setswitchinterval(usual_s)


class Lines:
    """An observer that logs a line of progress now and then."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._said_at = clock.monotonic()

    def notify(self, _event: Event) -> None:
        """Log a line if it is time."""
        now = self._clock.monotonic()
        if now - self._said_at >= LINE_S:
            from batch.cli.drawing import as_line  # noqa: PLC0415 - rich takes longer than a short run

            self._said_at = now
            logs.logger.info(as_line(self._progress.view()))


def _is_drawn(progress: Progress, exits: ExitStack, handler: logging.StreamHandler[Any]) -> bool:
    """Draw the screen, with the log above it; False where none can be drawn."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in {"dumb", "unknown"}:
        return False
    from rich.console import Console  # noqa: PLC0415 - rich is for terminals only

    from batch.cli.drawing import draw  # noqa: PLC0415
    from batch.cli.screen import Screen, can_draw  # noqa: PLC0415

    console = Console(stderr=True)
    if not can_draw(console):
        return False
    ascii_only = console.options.ascii_only
    screen = Screen(lambda columns: draw(progress.view(), columns, ascii_only=ascii_only), console)
    try:
        exits.enter_context(screen)
    except RuntimeError:  # the system grants no thread to draw it
        return False
    handler.setStream(screen)
    return True


def _is_beside_screen(record: logging.LogRecord) -> bool:
    """Return whether a record passes above the screen: what that does not show itself."""
    action = getattr(record, "action", "")
    if action == events.AnsweringAgain.__name__:
        return True
    is_shown = logs.is_in_summary(record) or action == events.NotAnswering.__name__
    return record.levelno >= logging.WARNING and not is_shown


def reporters(notice: Notice) -> list[Observer]:
    """Return the observer that tells a monitor of the start, if one is to be told."""
    channels = channels_for(notice)
    if not (notice.is_wanted and any(channels.notify.pings)):
        return []
    from batch.notify.deliver import StartPing  # noqa: PLC0415 - only where somebody is told

    notice.start = StartPing(channels, own_id(notice))
    return [notice.start]


async def until_started(notice: Notice, run: Awaitable[T]) -> T:
    """Return what *run* does, when the monitor has been told of its start."""
    try:
        return await run
    finally:
        if notice.start is not None:
            await notice.start.finish()
