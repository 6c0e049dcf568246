"""The questions that a database answers. Each reads from the file; nothing is remembered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from batch.attempt import Account, Attempt
from batch.output.codec import COLUMNS, from_record
from batch.output.in_short import PHASES, all_known, by_job
from batch.output.sqlite_errors import map_errors
from batch.output.state import Payment, Uploaded
from batch.output.store import RunRecord
from batch.plan import History, Known

END_OF_RESULTS = "SELECT ends_at FROM results ORDER BY seq DESC LIMIT 1"
UPLOAD_COLUMNS = Uploaded._fields
# When an attempt was sent that is, or may be, paid for: `Attempt.sent_at`.
_PAID_AT = (
    "coalesce(json_extract(detail, '$.submitted_at'), CASE WHEN state <> 'Intended' THEN"
    " json_extract(detail, '$.sent_at') END, json_extract(detail, '$.since'))"
)
_KNOWN = (
    "SELECT external_task_id, job_id, number, fingerprint, state, task_id,"  # noqa: S608
    " CASE state WHEN 'Generated' THEN json_extract(detail, '$.trouble.kind')"
    " ELSE failure_kind END,"
    " file, bytes, cost_usd, json_extract(detail, '$.landed_at'),"
    " CASE WHEN failure_kind IS NOT NULL THEN coalesce("
    "json_extract(detail, '$.failure.message'), json_extract(detail, '$.trouble.message')) END,"
    " failure_kind IS NOT NULL AND coalesce(json_extract(detail, '$.failure.is_unexplained'), 0),"
    " CASE state WHEN 'Failed' THEN json_extract(detail, '$.failed_at') END,"
    " CASE state WHEN 'Discarded' THEN json_extract(detail, '$.generated_at') END,"
    " json_extract(detail, '$.pin.fingerprint'), json_extract(detail, '$.pin.version_at'),"
    f" coalesce({_PAID_AT}, json_extract(detail, '$.failed_at')) FROM attempts"
)


class Questions:
    """What is on disk, read by SQL."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    def known(self) -> History:
        """Return all attempts in short, by job, each job's in the order of their numbers."""
        # Sorted there: in the order of its index, SQLite would fetch each record from another page.
        with map_errors(self.path):
            return all_known(self._db.execute(_KNOWN))

    def jobs(self) -> Iterator[list[Known]]:
        """Iterate over the jobs, by id: all attempts of each in short, in the order of their numbers.

        They are as they were at one moment, and so is what else is asked until the end.
        """
        query = f"{_KNOWN} ORDER BY job_id, number, external_task_id"
        with map_errors(self.path):
            yield from by_job(self._db.execute(query))

    def attempt(self, external_task_id: str) -> Attempt:
        """Return one attempt.

        Raises:
            KeyError: there is none of that id.
        """
        for attempt in self._attempts("external_task_id = ?", external_task_id):
            return attempt
        raise KeyError(external_task_id)

    def attempts(self) -> Iterator[Attempt]:
        """Iterate over all attempts, by job and number."""
        return self._attempts("1")

    def attempts_of(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job, in the order of their numbers."""
        return list(self._attempts("job_id = ?", job_id))

    def owner_of(self, task_id: str) -> str | None:
        """Return the external id of the attempt that a task is recorded for."""
        with map_errors(self.path):
            query = "SELECT external_task_id FROM attempts WHERE task_id = ? LIMIT 1"
            row = self._db.execute(query, (task_id,)).fetchone()
        return None if row is None else str(row[0])

    def holders_of(self, file: str) -> list[Attempt]:
        """Return the attempts whose video is recorded to be in *file*, by job and number."""
        return list(self._attempts("file = ?", file))

    def owners_of_content(self, sha256: str) -> list[Attempt]:
        """Return the attempts whose video has, or had, this content: as it landed, or edited."""
        as_landed, edited = (f"json_extract(detail, '$.{name}sha256')" for name in ("", "checked."))
        return list(self._attempts(f"? IN ({as_landed}, {edited})", sha256))

    def result_lines(self, after: int = 0) -> Iterator[str]:
        """Iterate over the rows behind the first *after*, oldest first."""
        query = "SELECT line FROM results WHERE seq > ? ORDER BY seq"
        with map_errors(self.path):
            for (line,) in self._db.execute(query, (after,)):
                yield line

    def result_bytes(self) -> int:
        """Return the size that results.jsonl should have."""
        with map_errors(self.path):
            row = self._db.execute(END_OF_RESULTS).fetchone()
        return 0 if row is None else int(row[0])

    def proved_at(self, account: Account) -> float | None:
        """Return when look-up by external id last worked for *account*."""
        with map_errors(self.path):
            query = "SELECT proved_at FROM lookup_proofs WHERE base_url = ? AND account = ?"
            row = self._db.execute(query, (account.base_url, account.key_hash)).fetchone()
        return None if row is None else float(row[0])

    def newest_task_of(self, account: Account) -> Attempt | None:
        """Return the attempt of the latest task that is known to be *account*'s, if there is one."""
        where = "task_id IS NOT NULL AND base_url = ? AND account = ?"
        latest = "json_extract(detail, '$.submitted_at') DESC LIMIT 1"
        found = self._attempts(where, account.base_url, account.key_hash, order=latest)
        return next(found, None)

    def has_task_at(self, base_url: str) -> bool:
        """Return whether a task was ever seen at *base_url*, with any key."""
        query = "SELECT 1 FROM attempts WHERE task_id IS NOT NULL AND base_url = ? LIMIT 1"
        with map_errors(self.path):
            return self._db.execute(query, (base_url,)).fetchone() is not None

    def generation_times(self) -> dict[str, list[float]]:
        """Return the seconds that past tasks took, by kind, oldest first."""
        times: dict[str, list[float]] = {}
        with map_errors(self.path):
            query = "SELECT kind, seconds FROM generation_times ORDER BY seq"
            for kind, seconds in self._db.execute(query):
                times.setdefault(kind, []).append(seconds)
        return times

    def payments(self, since: float) -> list[Payment]:
        """Return the attempts that are, or may be, paid for and were sent *since* a moment."""
        query = (
            f"SELECT external_task_id, state, task_id, cost_usd, {_PAID_AT} AS at FROM attempts"  # noqa: S608
            " WHERE at >= ?"
        )
        with map_errors(self.path):
            found = self._db.execute(query, (since,))
            return [Payment(name, PHASES[state], *rest) for name, state, *rest in found]

    def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        """Return what is in the bucket *target*, by file: all, or only that *file* or content."""
        asked = {"target": target, "file": file, "sha256": sha256}
        given = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given)
        query = f"SELECT {', '.join(UPLOAD_COLUMNS)} FROM uploads WHERE {where} ORDER BY file"  # noqa: S608
        with map_errors(self.path):
            return [Uploaded(*record) for record in self._db.execute(query, (*given.values(),))]

    def targets(self) -> list[str]:
        """Return the buckets in which something is."""
        with map_errors(self.path):
            return [
                url for (url,) in self._db.execute("SELECT DISTINCT target FROM uploads ORDER BY 1")
            ]

    def not_uploaded(self, target: str) -> list[str]:
        """Return the files of landed videos that the bucket *target* does not have as they are now."""
        query = (
            "SELECT DISTINCT file FROM attempts WHERE state = 'Landed' AND file NOT IN ("
            "SELECT uploads.file FROM uploads JOIN attempts ON attempts.file = uploads.file"
            " WHERE uploads.target = ? AND state = 'Landed' AND uploads.sha256 ="
            " coalesce(json_extract(detail, '$.checked.sha256'), json_extract(detail, '$.sha256'))"
            ") ORDER BY file"
        )
        with map_errors(self.path):
            return [file for (file,) in self._db.execute(query, (target,))]

    def surplus(self, target: str) -> list[Uploaded]:
        """Return what may go from the bucket *target*: videos that stand nowhere under that name.

        They were discarded, or the bucket has them under another name, too.
        """
        query = (
            f"SELECT {', '.join(UPLOAD_COLUMNS)} FROM uploads WHERE target = ?"  # noqa: S608
            " AND external_task_id IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.file = uploads.file"
            " AND a.state = 'Landed')"
            " AND (EXISTS (SELECT 1 FROM uploads AS u WHERE u.target = uploads.target"
            " AND u.sha256 = uploads.sha256 AND u.file <> uploads.file)"
            " OR EXISTS (SELECT 1 FROM attempts AS a WHERE a.state = 'Discarded'"
            " AND a.external_task_id = uploads.external_task_id)) ORDER BY file"
        )
        with map_errors(self.path):
            return [Uploaded(*record) for record in self._db.execute(query, (target,))]

    def forced(self) -> dict[str, int]:
        """Return the requests in rounds of `--force`, with the number of their videos before it."""
        with map_errors(self.path):
            return dict(self._db.execute("SELECT fingerprint, videos FROM forced"))

    def first_run(self) -> str | None:
        """Return the id of the earliest run; ids begin with the time."""
        with map_errors(self.path):
            (run_id,) = self._db.execute("SELECT min(run_id) FROM runs").fetchone()
        return None if run_id is None else str(run_id)

    def runs(self, last: int = -1) -> list[RunRecord]:
        """Return id, start, end, exit code and summary of the *last* runs (-1: all), newest first."""
        query = "SELECT run_id, started_at, finished_at, exit_code, summary FROM runs"
        with map_errors(self.path):
            return self._db.execute(f"{query} ORDER BY seq DESC LIMIT ?", (last,)).fetchall()

    def fact(self, name: str) -> str | None:
        """Return the value of a named fact."""
        # By its key, SQLite would read values on the way whole: one lists all jobs of the manifest.
        with map_errors(self.path):
            row = self._db.execute("SELECT value FROM facts WHERE +name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _attempts(
        self, where: str, *values: object, order: str = "job_id, number"
    ) -> Iterator[Attempt]:
        query = f"SELECT {COLUMNS} FROM attempts WHERE {where} ORDER BY {order}"  # noqa: S608
        with map_errors(self.path):
            for record in self._db.execute(query, values):
                yield from_record(record)
