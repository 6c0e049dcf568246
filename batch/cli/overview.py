"""How `kling-batch engine status` tells people what a fleet is at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from batch.cli.words import counted

Found = dict[str, Any]
STATES = (
    ("todo", "to do"),
    ("done", "done"),
    ("left", "left to the next run"),
    ("parked", "to be looked at once more"),
    ("bug", "ended by a bug"),
)
PAUSE_S = 0.5  # a shorter one is a turn, not a pause


def lines(found: Found, now: float) -> Iterator[str]:
    """Yield what a fleet is at; *now* is this machine's time."""
    yield from _workers(found["workers"])
    runs = found["runs"]
    yield f"{counted(len(runs), 'run')} under way, {counted(found['backlog'], 'job')} to do"
    for run in runs:
        yield from _run(run, now)
    yield "accounts:" if found["accounts"] else "no account has run yet"
    for one in found["accounts"]:
        yield from (f"  {line}" for line in account_lines(one))


def _workers(workers: list[Found]) -> Iterator[str]:
    alive = sum(worker["state"] == "alive" for worker in workers)
    yield (
        f"{counted(alive, 'worker')} alive"
        if alive
        else "no worker is alive; start one with `kling-batch worker`"
    )
    for worker in workers:
        host, pid = worker["host"] or "an unknown host", worker["pid"]
        where = f"process {pid} on {host}" if pid else host
        version = f", version {worker['version']}" if worker["version"] else ""
        silent_s, jobs = worker["silent_s"], counted(worker["jobs"], "job")
        state = {
            "alive": f"last beat {silent_s or 0:.0f} s ago, {jobs}",
            "silent": f"silent for {silent_s or 0:.0f} s: another worker takes over its {jobs}",
            "ended": f"has ended: another worker takes over its {jobs}",
        }[worker["state"]]
        yield f"  {worker['worker']}: {where}{version}; {state}"


def _run(run: Found, now: float) -> Iterator[str]:
    jobs = ", ".join(f"{run['jobs'][key]} {words}" for key, words in STATES if run["jobs"][key])
    since = datetime.fromtimestamp(run["started_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield f"  {run['run_id']} of {run['output_dir']}, since {since}: {jobs or 'no jobs'}"
    if run["budget_usd"] is not None:
        yield f"    ${run['reserved_usd']:.2f} of its budget of ${run['budget_usd']:.2f} is used"
    if run["deadline_at"] is not None and run["stop"] is None:
        left_min = (run["deadline_at"] - now) / 60
        yield f"    its deadline is in {max(left_min, 0):.0f} min"
    if run["stop"] is not None:
        yield f"    stopped ({run['stop']['reason']}): {run['stop']['sentence']}"


def account_lines(found: Found) -> Iterator[str]:
    """Yield what holds for an account."""
    most = found["max_in_flight"]
    limits = [f"{found['in_flight']} in flight"]
    if most is not None:
        limits[0] += f" of {most}{_who(found['set_max_in_flight'])}"
    if found["rate_per_s"] is not None:
        limits.append(f"{_rate(found['rate_per_s'])}{_who(found['set_rate_per_s'])}")
    if most is None and found["rate_per_s"] is None:
        limits.append("no limit but those of its runs")
    yield f"{found['account']} at {found['base_url']}: {', '.join(limits)}"
    if found["slot_limit"] is not None and (most is None or found["slot_limit"] < most):
        yield f"  the provider takes {found['slot_limit']} at once"
    if found["paused_s"] > PAUSE_S:
        yield f"  the provider asked for a pause of {found['paused_s']:.0f} s more"
    if found["refused"]:
        yield f"  refused by the provider: {found['refused']}"


def _who(own: float | None) -> str:
    return " (as its runs say)" if own is None else " (set)"


def _rate(per_second: float) -> str:
    return f"{per_second:.3g} a second" if per_second >= 1 else f"{per_second * 60:.3g} a minute"
