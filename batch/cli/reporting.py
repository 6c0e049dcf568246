"""Report how a run goes to whom the manifest or the environment names."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from batch.cli.bug_report import hide
from batch.cli.notice import Notice
from batch.clock import SystemClock
from batch.errors import ExitCode
from batch.manifest.model import Notify
from batch.notify.channels import Channels, channels_of
from batch.redact import redact


def report(notice: Notice, exit_code: int) -> None:
    """Tell how the run has ended. A failure is a warning and no more."""
    channels = channels_for(notice)
    if not channels:
        return
    sys.stdout.flush()  # the result goes first
    _leave_at_sigterm()
    with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the run has its exit code already
        try:
            failures = _report(notice, channels, exit_code)
        except Exception as error:  # noqa: BLE001 - the run has ended, and nothing may undo that
            failures = [redact(str(error))]
        if failures and not (notice.quiet and exit_code == ExitCode.OK):
            said = "; ".join(failures)
            warn([f"not everybody was told how this run ended: {said}"], in_log=notice.in_log)


def write_metrics(notice: Notice, exit_code: int) -> None:
    """Write what the run came to for Prometheus. A failure is a warning and no more.

    The file of a run that holds the folder is left to that run.
    """
    path = notice.metrics_file
    if path is None or notice.path is None or exit_code == ExitCode.LOCKED:
        return
    from batch.cli.metrics import ended, write  # noqa: PLC0415 - only where it is asked for

    values = ended(notice.result, exit_code, SystemClock().now(), notice.metrics)
    try:
        write(path, notice.path, values)
    except OSError as error:
        if not (notice.quiet and exit_code == ExitCode.OK):
            reason = error.strerror or error
            warn([f"no metrics were written to {path}: {reason}"], in_log=notice.in_log)


def channels_for(notice: Notice) -> Channels:
    """Return whom the run is reported to; a bug report hides their addresses."""
    path = Path("none") if notice.path is None else notice.path
    with contextlib.suppress(OSError):  # the working directory may have been deleted meanwhile
        path = path.absolute()
    channels = channels_of(notice.notify or Notify(), path.parent, os.environ)
    for address in channels.addresses:
        hide(address)
    return channels


def _report(notice: Notice, channels: Channels, exit_code: int) -> list[str]:
    """Tell everybody; return whom that failed with, and why."""
    import asyncio  # noqa: PLC0415 - a run that nobody is told of may need none

    from batch.notify.deliver import deliver  # noqa: PLC0415
    from batch.notify.message import Message  # noqa: PLC0415
    from batch.notify.news import News, read_news, record_told  # noqa: PLC0415

    root, news = notice.output_dir, News()
    if root is not None and exit_code != ExitCode.LOCKED:
        news = read_news(root, notice.run_id, exit_code)
    is_wanted = {"always": True, "news": news.is_any}.get(channels.notify.on, bool(exit_code))
    rid = own_id(notice)
    message = Message(
        key=notice.run_id or rid,
        rid=rid,
        exit_code=exit_code,
        result={"exit_code": int(exit_code), **notice.result},
        text=notice.text or f"kling-batch run: exit code {int(exit_code)}",
        news=news.items,
    )
    deliveries = asyncio.run(deliver(channels, message, is_wanted=is_wanted))
    told = [delivery for delivery in deliveries if not delivery.is_ping]
    if root is not None and told:
        record_told(root, news, has_failed=any(delivery.failure for delivery in told))
    started = [] if notice.start is None else notice.start.failed
    return [str(delivery) for delivery in (*started, *deliveries) if delivery.failure]


def own_id(notice: Notice) -> str:
    """Return what tells this run from others, also if it got no further than its options."""
    notice.rid = notice.rid or str(uuid.uuid4())
    return notice.rid


def _leave_at_sigterm() -> None:
    """Have SIGTERM end the telling, where it would end the process and take its exit code away."""
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def warn(warnings: Iterable[str], *, in_log: bool) -> None:
    """Print warnings to stderr: as lines or, with a JSON log, as its records."""
    for warning in warnings:
        if not in_log:
            click.echo(f"warning: {warning}", err=True)
            continue
        import logging  # noqa: PLC0415 - only a JSON log needs it

        from batch.cli import logs  # noqa: PLC0415

        logs.configure(level=logging.WARNING, log_format="json")
        logs.logger.warning(warning)
