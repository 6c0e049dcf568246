"""Status of a large library: it passes by, and is never held in memory as a whole."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from scripted import attempt, landed

from batch.library.planned import LISTED
from batch.library.status import look
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.state import Fact, Put

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
