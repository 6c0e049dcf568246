"""Changes as the function `commit_changes` takes them: a list of kind and values, as JSON.

Those of several jobs are committed by one statement. The library, whose rows have one order, is locked
last: so all that adds no row comes before all rows, or two workers would wait for each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from batch.output.codec import COLUMNS, detail_of, to_record
from batch.output.fleet import Claim
from batch.output.recall import read_row
from batch.output.row import is_superseded
from batch.output.state import AddRow, Change, Proof, Put

_NAMES = COLUMNS.split(", ")
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # no text in Postgres holds that character


COMMIT_ALL = (
    b"SELECT commit_changes(%s, its->>0, its->>1, (its->>2)::bigint, its->3)"
    b" FROM jsonb_array_elements(%s::jsonb) AS all_of (its)"
)


class Commit(NamedTuple):
    """Changes, and the claim that they are made under."""

    claim: Claim | None
    changes: Sequence[Change]

    @property
    def place(self) -> str:
        """Where it comes among others: they lock in one order."""
        return "" if self.claim is None else self.claim.job_id


def to_json(changes: Iterable[Change]) -> str:
    """Return *changes* as one JSON value."""
    return _encoded(_plain(changes))


def all_to_json(commits: Iterable[Commit]) -> str:
    """Return what `COMMIT_ALL` commits."""
    rows, others = [], []
    for claim, changes in sorted(commits, key=lambda commit: commit.place):
        named = (None,) * 3 if claim is None else (claim.run_id, claim.job_id, claim.token)
        others.append((*named, _plain(c for c in changes if not isinstance(c, AddRow))))
        rows.append((*named, _plain(c for c in changes if isinstance(c, AddRow))))
    return _encoded([item for item in (*others, *rows) if item[3]])


def _plain(changes: Iterable[Change]) -> list[tuple[str, dict[str, Any]]]:
    return [(type(change).__name__, _values(change)) for change in changes]


def _encoded(values: Any) -> str:
    encoded = json.dumps(values)
    return _NUL.sub(r"\1\\ufffd", encoded) if "\\u0000" in encoded else encoded


def _values(change: Change) -> dict[str, Any]:
    match change:
        case Put(attempt):
            return {
                **dict(zip(_NAMES, to_record(attempt), strict=True)),
                "detail": detail_of(attempt.state),
                "keeps_slot": attempt.phase.keeps_slot,
                "created_nothing": attempt.created_nothing,
            }
        case AddRow(line):
            row = read_row(line.encode())
            named = {name: str(row.get(name, "")) for name in ("run_id", "job_id")}
            return {"line": line, **named, "settles": not is_superseded(row)}
        case Proof(account, at):
            named = {"base_url": account.base_url, "account": account.key_hash}
            return {**named, "proved_at": at}
        case _:
            return change._asdict()
