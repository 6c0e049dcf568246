"""Nodes with their places: the form into which YAML, CSV and JSON are read.

A scalar keeps the text as written; the reader of its key decides what it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from batch.frozen import frozen

MAX_DEPTH = 32  # how deep nodes may be nested


class Place(Protocol):
    """A place in a file. Line and column count from 1."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


@frozen
class Scalar:
    """A text as written; `plain` if it has no quotes and is not a block."""

    text: str
    plain: bool
    file: str
    line: int
    column: int
    size: ClassVar[int] = 1


@frozen
class Sequence:
    """A list. `size` counts its nodes, aliases expanded."""

    items: list[Node]
    size: int
    file: str
    line: int
    column: int


@frozen
class Mapping:
    """Keys in the order of the file, each with its place and its value."""

    entries: Entries
    size: int
    file: str
    line: int
    column: int


@frozen
class Items:
    """A list that is read while it is iterated: once, and before anything after it."""

    items: Iterator[Node]
    file: str
    line: int
    column: int


@frozen
class Spot:
    """A place without a node."""

    file: str
    line: int = 1
    column: int = 1


Node = Scalar | Sequence | Mapping
Entries = dict[str, tuple[Scalar, Node]]

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def is_null(node: Node | Items) -> bool:
    """Return whether *node* is an unquoted null, which means "not given"."""
    return type(node) is Scalar and node.plain and node.text in _NULLS


def quoted(text: str, at: Place) -> Scalar:
    """Return a quoted text at the place of *at*."""
    return Scalar(text, False, at.file, at.line, at.column)  # noqa: FBT003 - there are millions


def kind(node: Node | Items) -> str:
    """Return the kind of *node*, for a message."""
    if isinstance(node, Scalar):
        return "empty" if is_null(node) else "a text"
    return "a mapping" if isinstance(node, Mapping) else "a list"
