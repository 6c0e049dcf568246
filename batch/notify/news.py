"""Is there news? What stands wrong now, compared with what was told last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any

from batch.attempt import Outcome, Phase
from batch.errors import LockedError, StateError
from batch.frozen import frozen
from batch.library.planned import Planned
from batch.output import stores
from batch.output.row import failure_of, has_outcome, is_superseded, outcome_of
from batch.output.state import Fact
from batch.output.store import Store

TOLD = "told"  # the fact: the exit code, the troubles and the number of rows of the last delivery
MAX_ITEMS = 1_000

Troubles = dict[str, tuple[str, str | None]]  # status and kind, by job


@frozen
class News:
    """What is new since the last delivery: *items* by job.

    *told* is what a delivery records; *untold* what is recorded if there was none yet and this one
    fails: the library as it was before the run.
    """

    is_any: bool = True
    items: list[dict[str, Any]] = field(default_factory=list)
    told: str | None = None
    untold: str | None = None


def read_news(root: Path, run_id: str | None, exit_code: int) -> News:
    """Return what is new in the output folder *root* after a run; everything if nothing is known.

    New is another exit code, another trouble of a job (or none any more), and every video made.
    """
    if not stores.has_state(root):
        return News()
    try:
        with stores.open_to_read(root) as database:
            return _news(database, run_id, exit_code)
    except StateError:
        return News()


def record_told(root: Path, news: News, *, has_failed: bool) -> None:
    """Record what was told. Where another run has begun meanwhile, it is told once more."""
    value = news.untold if has_failed else news.told
    if value is None:
        return
    try:
        with stores.hold(root, is_local=True) as database:
            database.write([Fact(TOLD, value)])
    except (LockedError, StateError):
        return


def _news(database: Store, run_id: str | None, exit_code: int) -> News:
    fact = database.fact(TOLD)
    before: dict[str, Any] = {} if fact is None else json.loads(fact)
    seen: Troubles = {job: (status, kind) for job, status, kind in before.get("troubles", ())}
    now = dict(_troubles(database))
    made: dict[str, dict[str, Any]] = {}
    rows = begun = before.get("rows", 0)
    for line in database.result_lines(after=rows):
        rows += 1
        row = json.loads(line)
        if fact is None and row["run_id"] != run_id:
            begun = rows  # nobody was to be told then
        elif row["status"] == Outcome.SUCCEEDED and not is_superseded(row):
            made[row["job_id"]] = _item(row["job_id"], Outcome.SUCCEEDED, None)
    items = [_item(job, *trouble) for job, trouble in now.items() if seen.get(job) != trouble]
    items += [item for job, item in made.items() if job not in now]
    items += [_item(job, None, None) for job in seen if job not in now and job not in made]
    is_any = bool(items) or before.get("exit_code") != exit_code
    told = _written(exit_code, rows, [(job, *trouble) for job, trouble in now.items()])
    untold = _written(None, begun, []) if fact is None else None
    return News(is_any, items[:MAX_ITEMS], told, untold)


def _written(exit_code: int | None, rows: int, troubles: list[Any]) -> str:
    told = {"exit_code": exit_code, "rows": rows, "troubles": troubles}
    return json.dumps(told, ensure_ascii=False)


def _troubles(database: Store) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield the jobs of the manifest whose latest attempt has ended without a video."""
    planned = Planned(database)
    for *_, latest in database.jobs():
        is_well = latest.phase is Phase.LANDED and latest.failure_kind is None
        if is_well or planned.is_orphan(latest.job_id):
            continue
        attempt = database.attempt(latest.external_task_id)
        if has_outcome(attempt):
            failure = failure_of(attempt)
            kind = None if failure is None else failure.kind.value
            yield latest.job_id, (outcome_of(attempt).value, kind)


def _item(job_id: str, status: str | None, kind: str | None) -> dict[str, Any]:
    """Return an entry of `news`; without a status, the job is in trouble no more."""
    return {"job_id": job_id, "status": status, "kind": kind}
