"""Drives a run that has something to do, and chooses who is told of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import ExitStack
from typing import Any

from batch.cli import logs
from batch.clock import SystemClock
from batch.errors import BatchError, ExitCode
from batch.run.execute import execute
from batch.run.planner import PlannedRun
from batch.run.summary import Summary

GC_ALLOCATIONS = 20_000


def drive(
    planned: PlannedRun, flags: dict[str, Any], clock: SystemClock, *, quiet: bool
) -> Summary:
    """Do what the plan says; *flags* and *quiet* say who hears of it.

    Raises:
        BatchError: the run could not go on; what was held back of the log has been written.
    """
    # The jobs stay until the end: no collection needs to walk them again, and what a job in flight
    # leaves behind is freed by its reference counts, so that looking for cycles can be rare.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    with ExitStack() as exits:
        observers, held = _observers(exits, flags, quiet=quiet)
        try:
            summary = asyncio.run(execute(planned, observers, clock, handle_signals=True))
        except BatchError:
            _hand_over(held)
            raise
    if summary.exit_code is not ExitCode.OK:
        _hand_over(held)
    return summary


def _observers(
    exits: ExitStack, flags: dict[str, Any], *, quiet: bool
) -> tuple[list[Any], logs.Held | None]:
    """Choose who is told of what happens: a bar, lines, or, with --quiet, nobody yet."""
    level = logging.DEBUG if flags["verbose"] else logging.WARNING if quiet else logging.INFO
    handler = logs.configure(level=level, log_format=flags["log_format"])
    if quiet:
        held = logs.Held(handler)
        logs.logger.handlers[:] = [held]
        return [logs.LogObserver()], held
    wants_bar = flags["progress"] == "always" or (
        flags["progress"] == "auto"
        and sys.stderr.isatty()
        and flags["log_format"] == "text"
        and not flags["verbose"]
    )
    if not wants_bar:
        return [logs.LogObserver()], None
    from batch.cli.progress import ProgressBar  # noqa: PLC0415 - rich is for terminals only

    return [exits.enter_context(ProgressBar())], None


def _hand_over(held: logs.Held | None) -> None:
    if held is not None:
        held.hand_over()
