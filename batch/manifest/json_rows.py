"""Read JSON as nodes: the objects of a .jsonl file, and JSON in a cell of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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


def json_rows(lines: Iterable[bytes], file: str, findings: Findings) -> Iterator[Mapping]:
    """Yield the objects of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        text = line.decode().strip()
        if not text:
            continue
        at = Spot(file, number)
        node = json_node(text, at, "the line is not valid JSON", findings)
        if isinstance(node, Mapping):
            yield node
        elif not is_null(node):
            findings.fault(at, "a line must be an object in braces")


class _Literal(str):
    """An unquoted JSON value: a number, true, false or null."""

    __slots__ = ()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


# One for all lines: one for each takes a third of the time, and is garbage in a circle.
_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple,
    parse_int=_Literal,
    parse_float=_Literal,
    parse_constant=_refuse_constant,
)


def _decoded(text: str) -> Any:
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected byte order mark", text, 0)
    return _DECODER.decode(text)


def json_node(text: str, at: Place, complaint: str, findings: Findings) -> Node:
    """Return JSON as nodes with the place *at*; a null after a fault."""
    null = Scalar("null", plain=True, file=at.file, line=at.line, column=at.column)
    try:
        value = _decoded(text)
    except json.JSONDecodeError as exc:
        spot = Spot(at.file, at.line, exc.colno)
        findings.fault(spot, f"{complaint}: {exc.msg}")
    except RecursionError:
        findings.fault(at, f"{complaint}: nested more than {MAX_DEPTH} levels deep")
    except ValueError as exc:
        findings.fault(at, f"{complaint}: {exc}")
    else:
        node = _as_node(value, at, findings, 1)
        if r"\u" in text:
            _check_characters(value, at)
        return node
    return null


def _as_node(value: Any, at: Place, findings: Findings, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise Unreadable(at, f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        items = [_as_node(item, at, findings, depth + 1) for item in value]
        return Sequence(items, len(items), at.file, at.line, at.column)
    if isinstance(value, tuple):
        entries: Entries = {}
        for name, item in value:
            key = quoted(name, at)
            if name in entries:
                findings.fault(at, f"duplicate key {shown(name)}", "keep one")
            if type(item) is str and depth < MAX_DEPTH:  # as below, without a call for each
                entries[name] = (key, quoted(item, at))
            else:
                entries[name] = (key, _as_node(item, at, findings, depth + 1))
        return Mapping(entries, len(entries), at.file, at.line, at.column)
    plain = not isinstance(value, str) or isinstance(value, _Literal)
    text = value if isinstance(value, str) else json.dumps(value)
    return Scalar(str(text), plain, at.file, at.line, at.column)


def _check_characters(value: Any, at: Place) -> None:
    """Refuse half a character, which only an escape can write."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        message = "a text contains half of a character (a lone surrogate)"
        raise Unreadable(at, message, r"write both halves, like \ud83e\udd8a") from exc
