"""`--metrics-file`: a run as numbers for node_exporter's textfile collector.

Ten gauges in Prometheus' text format are written by hand: its client library would bring a registry,
locks and values of its own process, for what is one line a number. The label is the manifest's
name of file, which the person has chosen; no job, key or host is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from batch.cli.progress import Progress
from batch.clock import Clock
from batch.errors import ExitCode
from batch.events import Event
from batch.output import disk

EVERY_S = 15.0  # as often as Prometheus usually asks
METRICS: dict[str, str] = {
    "running": "Whether a run is under way (1) or has ended (0).",
    "start_timestamp_seconds": "When the latest run began, since the epoch.",
    "end_timestamp_seconds": "When it ended; absent while it is under way.",
    "exit_code": "Its exit code; absent while it is under way.",
    "last_success_timestamp_seconds": "When a run last ended with exit code 0; absent before.",
    "jobs": "Jobs of the run, by state.",
    "tasks_created": "Tasks that the run has created, each of them paid for.",
    "cost_dollars": "What they cost, as estimated.",
    "budget_dollars": "The budget of the run; absent without one.",
    "downloaded_bytes": "Bytes of videos that the run has received.",
    "tasks_to_collect": "Tasks paid for whose video is not here yet; known at the end of a run.",
    "tasks_in_doubt": "Requests that may have created a task; known at the end of a run.",
}
PREFIX = "kling_batch_"
Values = dict[str, float | Mapping[str, float]]
"""A value by name, or one for each state."""


class Metrics:
    """An observer that writes the file at the start and then every `EVERY_S`."""

    def __init__(self, path: Path, manifest: Path, progress: Progress, clock: Clock) -> None:
        self._path = path
        self._manifest = manifest
        self._progress = progress
        self._clock = clock
        self._begun = clock.now()
        self._written_at: float | None = None

    def notify(self, _event: Event) -> None:
        """Write the file if it is time. One that cannot be written is told of at the end."""
        now = self._clock.monotonic()
        if self._written_at is None or now - self._written_at >= EVERY_S:
            self._written_at = now
            with suppress(OSError):
                write(self._path, self._manifest, self.values())

    def values(self) -> Values:
        """Return the numbers of this moment."""
        view, progress = self._progress.view(), self._progress
        waiting = view.all - view.done - view.generating - view.downloading - len(progress.left)
        values: Values = {
            "running": 1,
            "start_timestamp_seconds": self._begun,
            "jobs": {
                **_outcomes(progress.outcomes),
                "generating": view.generating,
                "downloading": view.downloading,
                "waiting": max(waiting, 0),
            },
            "tasks_created": progress.created,
            "cost_dollars": round(view.spent_usd, 6),
            "downloaded_bytes": progress.received_bytes,
        }
        if view.budget_usd is not None:
            values["budget_dollars"] = view.budget_usd
        return values


def ended(
    result: Mapping[str, Any], exit_code: int, now: float, running: Metrics | None = None
) -> Values:
    """Return the numbers of a run that has ended.

    Args:
        result: its summary as JSON; of a run that got no further than its options, less.
        exit_code: how it ended.
        now: when.
        running: its observer, if it came so far.
    """
    values: Values = {"start_timestamp_seconds": now} if running is None else running.values()
    values |= {"running": 0, "end_timestamp_seconds": now, "exit_code": int(exit_code)}
    if exit_code == ExitCode.OK:
        values["last_success_timestamp_seconds"] = now
    if "outcomes" in result:
        library = result["library"]
        planned = result["planned"]
        values |= {
            "jobs": {
                **_outcomes(result["outcomes"]),
                "left": result["left"],
                "unchanged": planned.get("unchanged", 0),
                "resting": planned.get("resting", 0),
            },
            "tasks_created": result["tasks_created"],
            "cost_dollars": result["cost_usd"],
            "tasks_to_collect": library["timed_out"] + library["open"] + library["to_download"],
            "tasks_in_doubt": library["perhaps_paid"],
        }
    return values


def write(path: Path, manifest: Path, values: Values) -> None:
    """Write the file, whole or not at all; its mode follows the umask.

    The time of the last success is taken over from the file that it replaces.

    Raises:
        OSError: it cannot be written.
    """
    stem = re.sub(r"[^\w.-]", "_", manifest.stem)
    if "last_success_timestamp_seconds" not in values:
        values = values | _last_success(path)
    # Beside it while it is written, and not as *.prom, which the collector would read.
    disk.write_whole(path, "".join(_lines(values, f'manifest="{stem}"')).encode())


def _lines(values: Values, label: str) -> Iterator[str]:
    for name, about in METRICS.items():
        if name not in values:
            continue
        value = values[name]
        yield f"# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} gauge\n"
        if isinstance(value, Mapping):
            for state, count in value.items():
                yield f'{PREFIX}{name}{{{label},state="{state}"}} {count}\n'
        else:
            yield f"{PREFIX}{name}{{{label}}} {value}\n"


def _last_success(path: Path) -> Values:
    name = "last_success_timestamp_seconds"
    if not path.is_file():  # to read a pipe is to wait for its writer
        return {}
    with suppress(OSError, ValueError):
        found = re.search(
            rf"^{PREFIX}{name}\{{.*\}} ([\d.]+)$", path.read_text("utf-8"), re.MULTILINE
        )
        if found is not None:
            return {name: float(found[1])}
    return {}


def _outcomes(outcomes: Mapping[str, int]) -> dict[str, float]:
    states = ("succeeded", "failed", "timed_out", "unconfirmed")
    return {state: outcomes.get(state, 0) for state in states}
