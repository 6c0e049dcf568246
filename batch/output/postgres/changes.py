"""Changes as the function `commit_changes` takes them: a list of kind and values, as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from batch.output.codec import COLUMNS, detail_of, to_record
from batch.output.recall import read_row
from batch.output.row import is_superseded
from batch.output.state import AddRow, Change, Proof, Put

_NAMES = COLUMNS.split(", ")
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # no text in Postgres holds that character


def to_json(changes: Iterable[Change]) -> str:
    """Return *changes* as one JSON value."""
    encoded = json.dumps([(type(change).__name__, _values(change)) for change in changes])
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
            return dataclasses.asdict(change)
