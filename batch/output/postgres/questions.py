"""The questions of a state in SQL, each with how its answer is read. One library's, where it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from batch.attempt import Account, Attempt
from batch.output.codec import COLUMNS, from_record
from batch.output.in_short import PHASES, all_known
from batch.output.postgres.schema import SENT_AT
from batch.output.state import Payment, Uploaded
from batch.output.store import RunRecord
from batch.plan import History

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
PAGE = 5_000
_COLUMNS = COLUMNS.replace("detail", "detail::text")
_UPLOAD = ", ".join(Uploaded._fields)
_KNOWN = (
    "SELECT external_task_id, job_id, number, fingerprint, state, task_id,"
    " CASE state WHEN 'Generated' THEN detail->'trouble'->>'kind' ELSE failure_kind END,"
    " file, bytes, cost_usd, (detail->>'landed_at')::float8,"
    " CASE WHEN failure_kind IS NOT NULL"
    " THEN coalesce(detail->'failure'->>'message', detail->'trouble'->>'message') END,"
    " failure_kind IS NOT NULL"
    " AND coalesce((detail->'failure'->>'is_unexplained')::boolean, false),"
    " CASE state WHEN 'Failed' THEN (detail->>'failed_at')::float8 END,"
    " CASE state WHEN 'Discarded' THEN (detail->>'generated_at')::float8 END,"
    " detail->'pin'->>'fingerprint', (detail->'pin'->>'version_at')::float8,"
    f" coalesce({SENT_AT}, (detail->>'failed_at')::float8)"
    " FROM attempts WHERE library = %s"
)
_PAYMENTS = (
    f"SELECT external_task_id, state, task_id, cost_usd, {SENT_AT} FROM attempts"
    f" WHERE library = %s AND {SENT_AT} >= %s"
)


class Question(NamedTuple, Generic[T]):
    """A query with its values, and what reads the answer from its rows."""

    sql: str
    values: tuple[Any, ...]
    answer: Callable[[Rows], T]


def known(library: str, job_id: str | None = None) -> Question[History]:
    """Ask for all attempts in short, or those of one job."""
    one, more = ("", ()) if job_id is None else (" AND job_id = %s", (job_id,))
    order = " ORDER BY job_id, number, external_task_id"
    return Question(f"{_KNOWN}{one}{order}", (library, *more), all_known)


def attempt(library: str, external_task_id: str) -> Question[Attempt | None]:
    """Ask for one attempt."""
    where = "library = %s AND external_task_id = %s"
    return Question(_attempts(where), (library, external_task_id), _first)


def page_of_attempts(library: str, after: Attempt | None) -> Question[list[Attempt]]:
    """Ask for the next attempts by job and number."""
    where = "library = %s AND (job_id, number, external_task_id) > (%s, %s, %s)"
    limit = f"job_id, number, external_task_id LIMIT {PAGE}"
    last = ("", 0, "") if after is None else (after.job_id, after.number, after.external_task_id)
    return Question(_attempts(where, limit), (library, *last), _all)


def attempts_of(library: str, job_id: str) -> Question[list[Attempt]]:
    """Ask for the attempts of a job."""
    where, order = "library = %s AND job_id = %s", "number, external_task_id"
    return Question(_attempts(where, order), (library, job_id), _all)


def holders_of(library: str, file: str) -> Question[list[Attempt]]:
    """Ask for the attempts whose video is recorded to be in *file*."""
    where, order = "library = %s AND file = %s", "job_id, number, external_task_id"
    return Question(_attempts(where, order), (library, file), _all)


def owners_of_content(library: str, sha256: str) -> Question[list[Attempt]]:
    """Ask for the attempts whose video has, or had, this content."""
    where = "library = %s AND %s IN (detail->>'sha256', detail->'checked'->>'sha256')"
    order = "job_id, number, external_task_id"
    return Question(_attempts(where, order), (library, sha256), _all)


def newest_task_of(library: str, account: Account) -> Question[Attempt | None]:
    """Ask for the attempt of an account's latest task."""
    where = "library = %s AND task_id IS NOT NULL AND base_url = %s AND account = %s"
    latest = "(detail->>'submitted_at')::float8 DESC NULLS LAST LIMIT 1"
    return Question(_attempts(where, latest), (library, *_named(account)), _first)


def owner_of(task_id: str) -> Question[str | None]:
    """Ask for the external id of a task's attempt, in all libraries."""
    query = "SELECT external_task_id FROM attempts WHERE task_id = %s LIMIT 1"
    return Question(query, (task_id,), _value)


def page_of_lines(library: str, after: int) -> Question[list[tuple[int, str]]]:
    """Ask for the next rows of results.jsonl."""
    query = (
        f"SELECT seq, line FROM results WHERE library = %s AND seq > %s ORDER BY seq LIMIT {PAGE}"
    )
    return Question(query, (library, after), lambda rows: [(seq, line) for seq, line in rows])


def result_bytes(library: str) -> Question[int]:
    """Ask for the size that results.jsonl should have."""
    query = "SELECT results_end FROM libraries WHERE library = %s"
    return Question(query, (library,), lambda rows: int(_value(rows) or 0))


def proved_at(account: Account) -> Question[float | None]:
    """Ask when look-up last worked for an account, in any library."""
    query = "SELECT proved_at FROM lookup_proofs WHERE base_url = %s AND account = %s"
    return Question(query, _named(account), _value)


def has_task_at(library: str, base_url: str) -> Question[bool]:
    """Ask whether a task was ever seen at a base URL."""
    query = "SELECT 1 FROM attempts WHERE library = %s AND task_id IS NOT NULL AND base_url = %s LIMIT 1"
    return Question(query, (library, base_url), bool)


def generation_times(library: str) -> Question[dict[str, list[float]]]:
    """Ask for the seconds that past tasks took."""
    query = "SELECT kind, seconds FROM generation_times WHERE library = %s ORDER BY seq"

    def by_kind(rows: Rows) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {}
        for kind, seconds in rows:
            times.setdefault(kind, []).append(seconds)
        return times

    return Question(query, (library,), by_kind)


def payments(library: str, since: float) -> Question[list[Payment]]:
    """Ask for what was, or may have been, paid for since a moment."""
    return Question(
        _PAYMENTS,
        (library, since),
        lambda rows: [Payment(name, PHASES[state], *rest) for name, state, *rest in rows],
    )


def uploads(
    library: str, target: str, file: str | None, sha256: str | None
) -> Question[list[Uploaded]]:
    """Ask for what is in a bucket."""
    asked = {"library": library, "target": target, "file": file, "sha256": sha256}
    given = {name: value for name, value in asked.items() if value is not None}
    where = " AND ".join(f"{name} = %s" for name in given)
    return Question(
        f"SELECT {_UPLOAD} FROM uploads WHERE {where} ORDER BY file",
        (*given.values(),),
        lambda rows: [Uploaded(*row) for row in rows],
    )


def targets(library: str) -> Question[list[str]]:
    """Ask for the buckets in which something is."""
    query = "SELECT DISTINCT target FROM uploads WHERE library = %s ORDER BY target"
    return Question(query, (library,), _column)


def not_uploaded(library: str, target: str) -> Question[list[str]]:
    """Ask for the files of landed videos that a bucket does not have as they are now."""
    query = (
        "SELECT file FROM (SELECT DISTINCT file FROM attempts AS a WHERE library = %s"
        " AND state = 'Landed' AND NOT EXISTS (SELECT 1 FROM attempts AS b JOIN uploads AS u"
        " ON u.library = b.library AND u.file = b.file AND u.target = %s"
        " AND u.sha256 = coalesce(b.detail->'checked'->>'sha256', b.detail->>'sha256')"
        " WHERE b.library = a.library AND b.file = a.file AND b.state = 'Landed'))"
        ' AS found ORDER BY file COLLATE "C"'
    )
    return Question(query, (library, target), _column)


def surplus(library: str, target: str) -> Question[list[Uploaded]]:
    """Ask for what may go from a bucket."""
    query = (
        f"SELECT {_UPLOAD} FROM uploads AS u WHERE library = %s AND target = %s"
        " AND external_task_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempts AS a"
        " WHERE a.library = u.library AND a.file = u.file AND a.state = 'Landed')"
        " AND (EXISTS (SELECT 1 FROM uploads AS o WHERE o.library = u.library"
        " AND o.target = u.target AND o.sha256 = u.sha256 AND o.file <> u.file)"
        " OR EXISTS (SELECT 1 FROM attempts AS a WHERE a.library = u.library"
        " AND a.external_task_id = u.external_task_id AND a.state = 'Discarded')) ORDER BY file"
    )
    return Question(query, (library, target), lambda rows: [Uploaded(*row) for row in rows])


def forced(library: str) -> Question[dict[str, int]]:
    """Ask for the requests in rounds of `--force`."""
    query = "SELECT fingerprint, videos FROM forced WHERE library = %s"
    return Question(query, (library,), dict)


def first_run(library: str) -> Question[str | None]:
    """Ask for the id of the earliest run."""
    return Question("SELECT min(run_id) FROM runs WHERE library = %s", (library,), _value)


def runs(library: str, last: int) -> Question[list[RunRecord]]:
    """Ask for the last runs, newest first; for all if *last* is negative."""
    query = (
        "SELECT run_id, started_at, finished_at, exit_code, summary FROM runs WHERE library = %s"
        " ORDER BY seq DESC LIMIT %s"
    )
    limit = None if last < 0 else last
    return Question(query, (library, limit), lambda rows: [(*row,) for row in rows])


def fact(library: str, name: str) -> Question[str | None]:
    """Ask for a named fact."""
    return Question(
        "SELECT value FROM facts WHERE library = %s AND name = %s", (library, name), _value
    )


def is_new(library: str) -> Question[bool]:
    """Ask whether nothing was ever committed."""
    query = (
        "SELECT NOT EXISTS (SELECT 1 FROM facts WHERE library = %s)"
        " AND NOT EXISTS (SELECT 1 FROM attempts WHERE library = %s)"
    )
    return Question(query, (library, library), lambda rows: bool(_value(rows)))


def _attempts(where: str, order: str = "1") -> str:
    return f"SELECT {_COLUMNS} FROM attempts WHERE {where} ORDER BY {order}"


def _named(account: Account) -> tuple[str, str]:
    return account.base_url, account.key_hash


def _all(rows: Rows) -> list[Attempt]:
    return [from_record(row) for row in rows]


def _first(rows: Rows) -> Attempt | None:
    return from_record(rows[0]) if rows else None


def _column(rows: Rows) -> list[str]:
    return [value for (value,) in rows]


def _value(rows: Rows) -> Any:
    return rows[0][0] if rows else None
