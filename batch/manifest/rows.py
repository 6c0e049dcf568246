"""Read the rows of a .csv or .jsonl file as mappings."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch.manifest.findings import Findings, Unreadable, shown
from batch.manifest.nodes import (
    MAX_DEPTH,
    Entries,
    Mapping,
    Node,
    Place,
    Scalar,
    Sequence,
    Spot,
    is_null,
    quoted,
)
from batch.manifest.text_files import read_file

MAX_COLUMNS = 100


def has_header(path: Path) -> bool:
    """Return whether one line above the rows holds their keys."""
    return path.suffix.lower() == ".csv"


def read_rows(
    path: Path, file: str, at: Place, findings: Findings
) -> Iterator[tuple[int, Mapping]]:
    """Yield the rows of a .csv or .jsonl file with their numbers, from 1.

    Raises:
        Unreadable: the file cannot be read, or is neither .csv nor .jsonl.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        message = f"from takes a .csv or a .jsonl file, not {shown(path.name)}"
        raise Unreadable(at, message)
    data = read_file(path, file, at)
    rows = _csv_rows if has_header(path) else _json_rows
    number = 0
    for number, row in enumerate(rows(data, file, findings), 1):
        yield number, row
    if number == 0:
        findings.fault(at, f"{shown(file)} has no rows")


def _csv_rows(data: bytes, file: str, findings: Findings) -> Iterator[Mapping]:
    """Yield the rows of a CSV file: commas, a line of keys; an empty cell is not given."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        keys = _csv_keys(header, file, findings)
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield _csv_row(keys, cells, Spot(file, line), findings)
            line = reader.line_num + 1
    except csv.Error as exc:
        raise Unreadable(Spot(file, max(reader.line_num, 1)), f"not valid CSV: {exc}") from exc


def _csv_keys(header: list[str], file: str, findings: Findings) -> list[Scalar]:
    if len(header) > MAX_COLUMNS:
        raise Unreadable(Spot(file), f"the file has more than {MAX_COLUMNS} columns")
    keys = [quoted(name, Spot(file)) for name in header]
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise Unreadable(Spot(file), "the columns are not separated by commas", "use commas")
    for number, name in enumerate(header, 1):
        if not name:
            findings.fault(keys[number - 1], f"column {number} has no name")
        elif name in header[: number - 1]:
            findings.fault(keys[number - 1], f"duplicate column {shown(name)}")
    return keys


def _csv_row(keys: list[Scalar], cells: list[str], at: Spot, findings: Findings) -> Mapping:
    if len(cells) > len(keys):
        message = f"the row has {len(cells)} cells, but there are {len(keys)} columns"
        findings.fault(at, message, "put a text with a comma in quotes")
    entries: Entries = {}
    for key, cell in zip(keys, cells, strict=False):
        if not cell or not key.text:
            continue
        node: Node = quoted(cell, at)
        if key.text in ("camera_control", "extra", "matrix"):
            node = _json_node(cell, at, f"the cell {key.text} is not valid JSON", findings)
        entries[key.text] = (key, node)
    return Mapping(entries, len(entries), at.file, at.line, at.column)


def _json_rows(data: bytes, file: str, findings: Findings) -> Iterator[Mapping]:
    """Yield the objects of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(io.BytesIO(data), 1):
        text = line.decode().strip()
        if not text:
            continue
        at = Spot(file, number)
        node = _json_node(text, at, "the line is not valid JSON", findings)
        if isinstance(node, Mapping):
            yield node
        elif not is_null(node):
            findings.fault(at, "a line must be an object in braces")


class _Literal(str):
    """An unquoted JSON value: a number, true, false or null."""

    __slots__ = ()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _json_node(text: str, at: Spot, complaint: str, findings: Findings) -> Node:
    """Return JSON as nodes with the place *at*; a null after a fault."""
    null = Scalar("null", plain=True, file=at.file, line=at.line, column=at.column)
    try:
        value = json.loads(
            text,
            object_pairs_hook=tuple,
            parse_int=_Literal,
            parse_float=_Literal,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as exc:
        spot = Spot(at.file, at.line, exc.colno)
        findings.fault(spot, f"{complaint}: {exc.msg}")
    except RecursionError:
        findings.fault(at, f"{complaint}: nested more than {MAX_DEPTH} levels deep")
    except ValueError as exc:
        findings.fault(at, f"{complaint}: {exc}")
    else:
        return _as_node(value, at, findings, 1)
    return null


def _as_node(value: Any, at: Spot, findings: Findings, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise Unreadable(at, f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        items = [_as_node(item, at, findings, depth + 1) for item in value]
        return Sequence(items, len(items), at.file, at.line, at.column)
    if isinstance(value, tuple):
        entries: Entries = {}
        for name, item in value:
            key = quoted(_whole_text(name, at), at)
            if name in entries:
                findings.fault(at, f"duplicate key {shown(name)}", "keep one")
            entries[name] = (key, _as_node(item, at, findings, depth + 1))
        return Mapping(entries, len(entries), at.file, at.line, at.column)
    plain = not isinstance(value, str) or isinstance(value, _Literal)
    text = value if isinstance(value, str) else json.dumps(value)
    return Scalar(str(_whole_text(text, at)), plain, at.file, at.line, at.column)


def _whole_text(text: str, at: Spot) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        message = "a text contains half of a character (a lone surrogate)"
        raise Unreadable(at, message, r"write both halves, like \ud83e\udd8a") from exc
    return text
