"""Status of a large library: it passes by, and is never held in memory as a whole."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from scripted import attempt, landed

from batch.attempt import RETENTION_S
from batch.cli.commands import ledger as ledger_command
from batch.cli.commands.status import to_text
from batch.library import ledger
from batch.library.entries import read_library
from batch.library.planned import LISTED
from batch.library.status import look
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.state import Fact, Put

GENERATED_AT = 2.0  # of what `landed` makes
MANY = 3_000
SMALL = 60  # bytes for each job; an attempt alone takes more than a thousand


def library(root: Path, jobs: int) -> Path:
    """Make a library in which each job has its video, and the manifest lists all of them."""
    layout = Layout(root)
    layout.database.parent.mkdir(parents=True)
    ids = [f"job-{number:06}" for number in range(jobs)]
    made = (
        attempt(landed(str(number), f"videos/{job_id}.mp4", 9), name=f"kb-{number}", job_id=job_id)
        for number, job_id in enumerate(ids)
    )
    with Database.open(layout.database) as database:
        listed = json.dumps([[job_id, [], "v2:" + "0" * 32] for job_id in ids])
        database.write([*map(Put, made), Fact(LISTED, listed)])
    return root


def test_status_of_many_jobs_needs_little_memory(tmp_path: Path) -> None:
    root = library(tmp_path / "many", MANY)
    few = library(tmp_path / "few", 1)
    look(few, lambda *_: lambda _item: True, 0.0)  # what is cached at first
    tracemalloc.start()
    try:
        found = look(root, lambda *_: lambda _item: True, 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["jobs"] == {"succeeded": MANY}
    assert peak < SMALL * MANY, f"{peak / MANY:.0f} bytes for each job"


@pytest.mark.parametrize(
    ("left_s", "said"),
    [(86_400.0, "1 day {}"), (3_600.0, "less than a day {}, if at all")],
)
def test_last_hours_at_the_provider_are_not_too_late(
    tmp_path: Path, left_s: float, said: str
) -> None:
    """A video that is missing can be had until the very end, and is told so."""
    root = library(tmp_path, 1)
    now = GENERATED_AT + RETENTION_S - left_s
    status = to_text(look(root, lambda *_: lambda _item: False, now))
    assert f"kept for {said.format('more')} at the provider" in status
    books = read_library(root, lambda *_: lambda _item: False, now)
    (line,) = ledger_command._text(ledger.to_json([(books, books.entries)], None), None)
    assert line.endswith(f"not here, {said.format('left')}")
