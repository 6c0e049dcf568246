"""A library on its way from SQLite to Postgres, and back. The caller holds both, and says when it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg

from batch.output.postgres.database import PostgresDatabase
from batch.output.postgres.errors import map_errors
from batch.output.recall import read_row
from batch.output.sqlite import IN_ORDER, TABLES, Database

OF_ACCOUNTS = "lookup_proofs"  # belongs to no library
OURS = ("jobs", "names")  # of runs
Row = tuple[Any, ...]


def copy_in(source: Database, target: PostgresDatabase) -> None:
    """Replace what Postgres has of a library by what its state.db has. In the caller's transaction."""
    db, library = target.connection, target.library
    with map_errors(target.place):
        clear(target)
        for table, columns in TABLES.items():
            if table == OF_ACCOUNTS:
                _add_proofs(db, source)
                continue
            names, rows = _to_postgres(table, columns, source.dump(table))
            with db.cursor().copy(f"COPY {table} (library, {names}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row((library, *row))
        db.execute(
            "UPDATE libraries SET results = coalesce(last.seq, 0), results_end = coalesce(ends_at, 0)"
            " FROM (SELECT max(seq) AS seq, max(ends_at) AS ends_at FROM results WHERE library = %s)"
            " AS last WHERE library = %s",
            (library, library),
        )


def clear(target: PostgresDatabase) -> None:
    """Delete what Postgres has of a library, but for its name. In the caller's transaction."""
    db, values = target.connection, (target.library,)
    with map_errors(target.place):
        for table in OURS:
            of_runs = "run_id IN (SELECT run_id FROM runs WHERE library = %s)"
            db.execute(f"DELETE FROM {table} WHERE {of_runs}".encode(), values)
        for table in TABLES.keys() - {OF_ACCOUNTS}:
            db.execute(f"DELETE FROM {table} WHERE library = %s".encode(), values)


def copy_out(source: PostgresDatabase, target: Database) -> None:
    """Fill an empty state.db with what Postgres has of a library."""
    target.load((table, _from_postgres(source, table)) for table in TABLES)


def _to_postgres(table: str, columns: str, rows: Iterator[Row]) -> tuple[str, Iterator[Row]]:
    if table != "results":
        return columns, rows
    return f"{columns}, digest, run_id, job_id", _named_rows(rows)


def _named_rows(rows: Iterator[Row]) -> Iterator[Row]:
    """Iterate over result lines with their digests. An older release may have repeated a line."""
    seen: set[bytes] = set()
    for seq, line, ends_at in rows:
        digest = hashlib.sha256(line.encode()).digest()
        if digest in seen:
            digest = hashlib.sha256(f"{seq} {line}".encode()).digest()
        seen.add(digest)
        row = read_row(line.encode())
        yield seq, line, ends_at, digest, str(row.get("run_id", "")), str(row.get("job_id", ""))


def _add_proofs(db: psycopg.Connection[Any], source: Database) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO lookup_proofs AS old (base_url, account, proved_at) VALUES (%s, %s, %s)"
            " ON CONFLICT (base_url, account)"
            " DO UPDATE SET proved_at = greatest(old.proved_at, excluded.proved_at)",
            source.dump(OF_ACCOUNTS),
        )


def _from_postgres(source: PostgresDatabase, table: str) -> Iterator[Row]:
    columns = TABLES[table].replace("detail", "detail::text")
    where, order = "library = %(library)s", " ORDER BY seq" if table in IN_ORDER else ""
    if table == OF_ACCOUNTS:
        where = (
            "(base_url, account) IN"
            " (SELECT DISTINCT base_url, account FROM attempts WHERE library = %(library)s)"
        )
    query = f"SELECT {columns} FROM {table} WHERE {where}{order}"
    values = {"library": source.library}
    with map_errors(source.place), source.connection.cursor() as cursor:
        yield from cursor.stream(query.encode(), values)
