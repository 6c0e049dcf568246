"""Write the output folder of a manifest whose jobs are all done, as a run leaves it.

    python tests/benchmarks/known_state.py MANIFEST OUTPUT_DIR

The videos are tiny, and links to a few files, so that they are quickly made and removed; the rest is
what a run writes. A real run would take minutes for a hundred thousand jobs.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from batch.attempt import Account, Attempt, Landed, PaidTask
from batch.job import Job, Video
from batch.manifest.reader import load
from batch.output.row import make_row, to_line
from batch.output.sqlite import Database
from batch.output.state import AddRow, BeginRun, Change, EndRun, Put

RUN = "r-known"
CONTENT = b"video"
AT_ONCE = 5_000  # changes in one transaction
LINKS = 10_000  # to one file; ext4 allows 65,000


def main(manifest: Path, output_dir: Path) -> None:
    """Write the state, results.jsonl and the files."""
    jobs = load(manifest).jobs
    now = time.time()
    (output_dir / ".kling-batch").mkdir(parents=True)
    (output_dir / "videos").mkdir()
    (output_dir / ".kling-batch" / "lock").touch()
    with (
        Database.open(output_dir / ".kling-batch" / "state.db") as database,
        (output_dir / "results.jsonl").open("w", encoding="utf-8") as results,
    ):
        changes: list[Change] = [BeginRun(RUN, now)]
        for number, job in enumerate(jobs):
            attempt = _landed(job, number, now)
            line = to_line(make_row(attempt, run_id=RUN, tasks=1, now=now))
            _make_file(
                output_dir / job.video_path,
                output_dir / jobs[number - number % LINKS].video_path,
                now,
            )
            results.write(f"{line}\n")
            changes += [Put(attempt), AddRow(line)]
            if len(changes) >= AT_ONCE:
                database.write(changes)
                changes = []
        database.write([*changes, EndRun(RUN, now, 0)])


def _make_file(path: Path, first: Path, landed_at: float) -> None:
    if path == first:
        path.write_bytes(CONTENT)
        os.utime(path, (landed_at - 1, landed_at - 1))  # a later change counts as edited
    else:
        os.link(first, path)


def _landed(job: Job, number: int, now: float) -> Attempt:
    state = Landed(
        task=PaidTask(
            str(822_953_089_408_827_433 + number),
            now - 70,
            f"00000000-0000-4000-8000-{number:012}",
        ),
        generated_at=now - 10,
        landed_at=now,
        file=job.video_path,
        bytes=len(CONTENT),
        sha256=f"{number:064x}",
        video=Video(5.04, 1280, 720),
    )
    return Attempt(
        # Random order, as in real ids: the place of the rows decides the cost of the next one.
        external_task_id=f"kb-{hashlib.blake2b(job.id.encode(), digest_size=16).hexdigest()}",
        job_id=job.id,
        fingerprint=job.fingerprint,
        number=1,
        request=job.request,
        state=state,
        polls=3,
        cost_usd=0.21,
        account=Account("http://127.0.0.1:1"),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
