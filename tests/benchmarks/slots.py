"""A provider with 5 slots and `max_in_flight` 50: share of slots in use, and refusals.

python tests/benchmarks/slots.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import json
from typing import Any

import children
import figures
import manifests
from children import FailedError

CAP = 5
MAX_IN_FLIGHT = 50
GENERATION_S = 4.0
SPREAD = 0.25
LEARNING = 2 * CAP  # tasks of the real run until it knows the cap, and how long they take
POLL_S = 0.15  # to the generation time as 5 s is to 135 s
CAPPED = ("--jobs=900", "--rate=1", "--median=60", "--spread=0.25", "--poll=2.2", "--warm=3600")
CAPPED += (f"--cap={CAP}", f"--in-flight={MAX_IN_FLIGHT}", "--latency=0.05", "--history=100")


def measure(*, quick: bool = False) -> figures.Report:
    """Measure the share of the provider's slots in use, and its refusals."""
    jobs = 25 if quick else 60
    options = ("--median", f"{GENERATION_S:g}", "--sigma", f"{SPREAD:g}", "--seed", "1")
    with (
        children.folder() as folder,
        children.sandbox(*options, "--clip", "tiny", "--max-parallel", str(CAP)) as server,
    ):
        manifest = manifests.write(
            folder / "jobs.yaml",
            jobs,
            submit_rate="10/s",
            max_in_flight=str(MAX_IN_FLIGHT),
            poll_interval=f"{POLL_S:g}s",
        )
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        children.run(command, folder)
        stats = server.stats()
        night = (*CAPPED, "--jobs=500") if quick else CAPPED
        command = children.python(children.HERE / "virtual_run.py", *night)
        virtual = json.loads(children.run(command, folder).output)
    if stats["created"] != jobs:
        raise FailedError(f"{stats['created']} tasks for {jobs} jobs")
    share, refill_s = _use(stats["tasks"])
    found = [
        figures.Figure(
            name=f"slots in use, {LEARNING + 1}th to last submission",
            unit="of 1",
            ours=figures.rounded(share),
            at_least=0.99,
        ),
        figures.Figure(
            name="an empty slot, in the mean",
            unit="% of the median generation",
            ours=figures.rounded(100 * refill_s / GENERATION_S),
        ),
        figures.Figure(name="refused in this run", unit="", ours=float(stats["refused"])),
        figures.Figure(
            name="polls per task", unit="", ours=figures.rounded(stats["queries"] / jobs)
        ),
        figures.Figure(
            name="slots in use (virtual time)",
            unit="of 1",
            ours=figures.rounded(virtual["slots"]),
            at_least=0.99,
        ),
        figures.Figure(
            name="… most that polls allow (virtual time)",
            unit="of 1",
            ours=figures.rounded(virtual["slots_at_most"]),
        ),
        figures.Figure(
            name="polls per task (virtual time)", unit="", ours=figures.rounded(virtual["polls"])
        ),
        figures.Figure(
            name="refused in the first hour (virtual time)",
            unit="",
            ours=float(virtual["refused"] - virtual["refused_later"]),
        ),
        figures.Figure(
            name="refused per hour afterwards (virtual time)",
            unit="",
            ours=figures.rounded(virtual["refused_later"] / virtual["hours_later"]),
        ),
    ]
    return figures.report(
        "slots",
        f"{jobs} jobs, {CAP} slots at the provider, max_in_flight {MAX_IN_FLIGHT}",
        found,
        notes=[
            f"{GENERATION_S:g} s of generation, spread {SPREAD:g}, poll_interval {POLL_S:g} s",
            "virtual time: 60 s of generation, 60 submissions a minute, poll_interval 2.2 s, 100 known",
            "in use: after an hour of virtual time; of the real run, which knows no times, after its start",
        ],
    )


def _use(tasks: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the share of slots in use while jobs wait, and the mean time that a slot is empty."""
    created = sorted(task["created_at"] for task in tasks)
    begin, end = created[LEARNING], created[-1]
    used_s = sum(
        max(min(task["finished_at"], end) - max(task["created_at"], begin), 0.0) for task in tasks
    )
    share = used_s / (CAP * (end - begin))
    return share, (1 - share) * CAP * (end - begin) / (len(tasks) - LEARNING)


if __name__ == "__main__":
    figures.main(measure)
