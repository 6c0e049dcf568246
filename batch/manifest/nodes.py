"""A file as nodes that know where they stand: what YAML, CSV and JSON are read into.

A scalar stays the text that was written; the reader of a key decides what it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

MAX_DEPTH = 32  # how deep nodes may be nested


class Place(Protocol):
    """Something that stands in a file. Line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(slots=True)
class Scalar:
    """A text as written; *plain* tells that it had no quotes (and was no block)."""

    text: str
    plain: bool
    file: str
    line: int
    column: int
    size: ClassVar[int] = 1


@dataclass(slots=True)
class Sequence:
    """A list. *size* counts its nodes, aliases expanded."""

    items: list[Node]
    size: int
    file: str
    line: int
    column: int


@dataclass(slots=True)
class Mapping:
    """Keys in the order of the file, each with where it stands and its value."""

    entries: Entries
    size: int
    file: str
    line: int
    column: int


@dataclass(slots=True)
class Items:
    """A list that is read while it is walked: once, and before anything else is read."""

    items: Iterator[Node]
    file: str
    line: int
    column: int


@dataclass(slots=True)
class Spot:
    """A bare place, for what has no node."""

    file: str
    line: int = 1
    column: int = 1


Node = Scalar | Sequence | Mapping
Entries = dict[str, tuple[Scalar, Node]]

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def is_null(node: Node | Items) -> bool:
    """Tell whether *node* is an unquoted nothing, which means "not given"."""
    return type(node) is Scalar and node.plain and node.text in _NULLS


def quoted(text: str, at: Place) -> Scalar:
    """Make a text that stands where *at* stands, and that is a text whatever it looks like."""
    return Scalar(text, plain=False, file=at.file, line=at.line, column=at.column)


def kind(node: Node | Items) -> str:
    """Name what *node* is, for a message."""
    if isinstance(node, Scalar):
        return "empty" if is_null(node) else "a text"
    return "a mapping" if isinstance(node, Mapping) else "a list"
