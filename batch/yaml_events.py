"""A YAML file as nodes that know where they stand, made from the parser's events.

No YAML loader is used. Loaders decide types (`16:9` becomes 969, `no` becomes false), forget
positions, take the last of two equal keys, and die of hostile files: the C composer overflows its
stack on deep nesting, and an alias bomb loads at once and never ends when it is walked. Here

- a scalar stays the text that was written; whoever reads a key decides what it means;
- depth and the expansion of aliases are counted while the events come, and bounded;
- the items of one long list are handed out one by one and not kept.

`Findings` collects what is wrong with the values, all of it. What makes the file itself unreadable
(its bytes, its syntax, a bound) ends the reading with `Unreadable`.
"""

from __future__ import annotations

import codecs
import difflib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from batch.errors import Problem

MAX_BYTES = 256 * 1024 * 1024
MAX_DEPTH = 32
MAX_ALIAS_NODES = 10_000  # what one alias may stand for
MAX_EXPANDED_NODES = 5_000_000  # what all aliases of a file may stand for together
MAX_FAULTS = 10_000  # listed one by one; beyond, they are only counted

# libyaml is about ten times as fast as PyYAML's own parser; both make the same events.
FAST_PARSER: type[Any] | None = getattr(yaml, "CBaseLoader", None)


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


def kind(node: Node | Items) -> str:
    """Name what *node* is, for a message."""
    if isinstance(node, Scalar):
        return "empty" if is_null(node) else "a text"
    return "a mapping" if isinstance(node, Mapping) else "a list"


def shown(text: str, most: int = 60) -> str:
    """Quote *text* for a message: shortened, and without raw control codes."""
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide, and bound the length."""
    text = text if len(text) <= 500 else f"{text[:499]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def meant(text: str, known: Iterable[str]) -> str | None:
    """Guess which of *known* was meant: an advice, or None."""
    if len(text) > 40:  # difflib is quadratic, and nobody mistypes that much
        return None
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.6)
    if not close:  # a word where its short form is wanted: standard for std
        close = [name for name in names if len(name) > 2 and _is_short_for(name, text.lower())]
    return f"did you mean {names[close[0]]}?" if close else None


def _is_short_for(name: str, text: str) -> bool:
    letters = iter(text)
    return text[:1] == name[0] and all(letter in letters for letter in name)


class Unreadable(Exception):  # noqa: N818 - says what the file is
    """A file cannot be read any further. Carries why."""

    def __init__(self, at: Place, message: str, advice: str | None = None) -> None:
        self.problem = Problem(at.file, at.line, at.column, printable(message), advice=advice)
        super().__init__(str(self.problem))


class Findings:
    """Collects faults and doubts at their places, each once.

    *job* is the id of the job that is being read, if any. A doubt that many jobs share is told at
    the first of them, with the number of the others.
    """

    def __init__(self) -> None:
        self.job: str | None = None
        self._faults: dict[tuple[str, int, int, str], Problem] = {}
        self._doubts: dict[str, list[Problem]] = {}
        self._further: dict[str, int] = {}
        self._unlisted = 0

    @property
    def fault_count(self) -> int:
        """How many faults there are so far."""
        return len(self._faults) + self._unlisted

    def fault(self, at: Place, message: str, advice: str | None = None) -> None:
        """Note that something is wrong at *at*."""
        self.add(self._problem(at, message, advice))

    def add(self, problem: Problem) -> None:
        """Note a fault that has been put in words already."""
        key = (problem.file, problem.line, problem.column, problem.message)
        if key in self._faults:
            return
        if len(self._faults) >= MAX_FAULTS:
            self._unlisted += 1
            return
        self._faults[key] = problem

    def doubt(self, at: Place, message: str, advice: str | None = None) -> None:
        """Note that something at *at* is possible, but hardly meant."""
        problem = self._problem(at, message, advice)
        first = self._doubts.setdefault(message, [problem])[0]
        if first is not problem and self.job is not None:
            self._further[message] = self._further.get(message, 0) + 1

    def _problem(self, at: Place, message: str, advice: str | None) -> Problem:
        advice = None if advice is None else printable(advice)
        return Problem(at.file, at.line, at.column, printable(message), self.job, advice)

    def faults(self) -> list[Problem]:
        """Return all faults, in the order in which they were found."""
        faults = list(self._faults.values())
        if self._unlisted:
            message = f"{self._unlisted:,} further faults are not listed"
            faults.append(replace(faults[-1], message=message, job=None, advice=None))
        return faults

    def doubts(self) -> tuple[Problem, ...]:
        """Return all doubts, sorted by place."""
        told = []
        for message, (problem, *_) in self._doubts.items():
            further = self._further.get(message)
            tail = "" if further is None else f" [and {further:,} more of the same]"
            told.append(replace(problem, message=message + tail))
        return tuple(sorted(told, key=lambda p: (p.file, p.line, p.column)))

    def unknown_key(self, key: Scalar, known: Iterable[str], where: str) -> None:
        """Note a key that does not exist, with the one that was probably meant."""
        names = list(known)
        is_listed = len(self._faults) < MAX_FAULTS  # else nobody reads the advice
        advice = meant(key.text, names) if is_listed else None
        if advice is None and len(names) <= 10:
            advice = f"known here: {', '.join(names)}"
        self.fault(key, f"unknown key {shown(key.text)} in {where}", advice)


# -- files and their bytes -------------------------------------------------------------------


def read_file(path: Path, file: str, at: Place) -> bytes:
    """Read a regular file of bounded size that holds nothing but UTF-8 text.

    *file* is how messages call it, *at* is who asked for it. A byte order mark is dropped.

    Raises:
        Unreadable: there is no such file, it is a device or a pipe, too big, or no text.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Unreadable(at, f"{shown(file)} is no regular file")
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise Unreadable(at, f"cannot read {shown(file)}: {reason}") from exc
    if len(data) > MAX_BYTES:
        message = f"{shown(file)} is larger than {MAX_BYTES // 1024 // 1024} MiB"
        raise Unreadable(at, message, "split it into several manifests")
    data = data.removeprefix(codecs.BOM_UTF8)
    _check_text(data, file)
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe that nobody writes to would block for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


_ALLOWED_CONTROLS = b"\t\n\r"
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in _ALLOWED_CONTROLS)
# C1 controls, and the two line separators that YAML 1.1 takes for line ends: they would change a
# prompt on its way, and every line number below them.
_WIDE_CONTROLS = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbf[\xbe\xbf]")


def _check_text(data: bytes, file: str) -> None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable(Spot(file), "the file is UTF-16", "save it as UTF-8")
    if not data.isascii():
        _check_utf8(data, file)
    if len(data.translate(None, _CONTROLS)) != len(data):
        found = re.search(b"[" + re.escape(_CONTROLS) + b"]", data)
        assert found is not None
        _refuse_control(data, found, file)
    if not data.isascii() and (found := _WIDE_CONTROLS.search(data)):
        _refuse_control(data, found, file)


def _refuse_control(data: bytes, found: re.Match[bytes], file: str) -> None:
    code = ord(found.group().decode())
    message = f"a control character (U+{code:04X}) stands in the file"
    raise Unreadable(_spot(data, found.start(), file), message, "remove it")


def _check_utf8(data: bytes, file: str) -> None:
    """Decode piece by piece, since the whole as a str may take four times the memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    step = 1 << 20
    for start in range(0, len(data) + 1, step):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + step], final=start + step > len(data))
        except UnicodeDecodeError as exc:
            spot = _spot(data, start - pending + exc.start, file)
            raise Unreadable(spot, "the file is not UTF-8", "save it as UTF-8") from exc


def _spot(data: bytes, offset: int, file: str) -> Spot:
    before = data[data.rfind(b"\n", 0, offset) + 1 : offset]
    return Spot(file, data.count(b"\n", 0, offset) + 1, len(before.decode(errors="replace")) + 1)


# -- events ----------------------------------------------------------------------------------


_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_CORE_TAGS = _TEXT_TAGS | {
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "int", "float", "bool", "null")
}
_SYNTAX_ADVICE = (
    ("mapping values are not allowed", "a text that holds ': ' must stand in quotes"),
    ("tab character", "indent with spaces, not tabs"),
    ("cannot start any token", "indent with spaces, not tabs; quote a text that starts with it"),
    ("did not find expected key", "check the indentation and the quotes above"),
    ("escape", r"inside double quotes a backslash is written \\; single quotes need none"),
    ("unexpected end of stream", "a quote or a bracket is not closed"),
)


class YamlReader:
    """Reads one YAML document whose root is a mapping.

    Args:
        data: the file, already known to be text.

        file: how messages call it.

        findings: gets duplicate keys and keys that are no text.

        parser: the source of events; None takes the fastest there is.
    """

    def __init__(
        self, data: bytes, file: str, findings: Findings, parser: type[Any] | None = None
    ) -> None:
        self._data = data
        self._file = file
        self._findings = findings
        loader: type[Any] = parser or FAST_PARSER or yaml.BaseLoader
        with self._syntax_errors():
            self._next: Callable[[], Any] = loader(io.BytesIO(data)).get_event
        self._anchors: dict[str, Node] = {}
        self._expanded = 0
        self._names: dict[str, str] = {}

    def root(self, stream: str) -> Iterator[tuple[Scalar, Node | Items]]:
        """Yield the root's keys and values; the list under the key *stream* as `Items`.

        Raises:
            Unreadable: a syntax error, a bound, a second document, or a root that is no mapping.
        """
        with self._syntax_errors():
            yield from self._document(stream)

    def _document(self, stream: str) -> Iterator[tuple[Scalar, Node | Items]]:
        self._next()  # the stream's start
        if type(self._next()) is yaml.StreamEndEvent:
            raise Unreadable(Spot(self._file), "the file is empty")
        start = self._next()
        if type(start) is not yaml.MappingStartEvent:
            message = "a manifest is a mapping: name:, defaults:, jobs: …"
            raise Unreadable(self._at(start), message)
        self._check_tag(start)
        yield from self._root_entries(stream)
        self._next()  # the document's end
        after = self._next()
        if type(after) is not yaml.StreamEndEvent:
            message = "a second document begins here; a manifest is one document"
            raise Unreadable(self._at(after), message, "remove the line ---")

    def _root_entries(self, stream: str) -> Iterator[tuple[Scalar, Node | Items]]:
        seen: Entries = {}
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._key(event, 1)
            event = self._next()
            if key is None:
                self._node(event, 2)
            elif key.text == stream and type(event) is yaml.SequenceStartEvent:
                self._check_tag(event)
                items = Items(self._items(), self._file, *self._position(event))
                if self._is_new(key, seen):
                    seen[key.text] = (key, key)
                    yield key, items
                for _ in items.items:
                    pass  # whatever the caller left unread
            else:
                node = self._node(event, 2)
                if self._is_new(key, seen):
                    seen[key.text] = (key, node)
                    yield key, node

    def _items(self) -> Iterator[Node]:
        with self._syntax_errors():
            while type(event := self._next()) is not yaml.SequenceEndEvent:
                yield self._node(event, 3)

    @contextmanager
    def _syntax_errors(self) -> Iterator[None]:
        try:
            yield
        except yaml.MarkedYAMLError as exc:
            raise self._syntax_error(exc) from exc
        except yaml.YAMLError as exc:
            raise Unreadable(Spot(self._file), f"not readable as YAML: {shown(str(exc))}") from exc

    def _node(self, event: Any, depth: int) -> Node:
        cls = type(event)
        if cls is yaml.AliasEvent:
            return self._alias(event)
        tag = event.tag
        if tag is not None:
            self._check_tag(event)
        node: Node
        if cls is yaml.ScalarEvent:
            mark = event.start_mark
            plain = not event.style and tag not in _TEXT_TAGS
            node = Scalar(event.value, plain, self._file, mark.line + 1, mark.column + 1)
        elif depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise Unreadable(self._at(event), message)
        elif cls is yaml.SequenceStartEvent:
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, start: Any, depth: int) -> Sequence:
        items: list[Node] = []
        size = 1
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            node = self._node(event, depth + 1)
            size += node.size
            items.append(node)
        return Sequence(items, size, self._file, *self._position(start))

    def _mapping(self, start: Any, depth: int) -> Mapping:
        entries: Entries = {}
        merged: Node | None = None
        key: Scalar | None
        size = 1
        following, names, inner = self._next, self._names, depth + 1
        while type(event := following()) is not yaml.MappingEndEvent:
            if type(event) is yaml.ScalarEvent and event.anchor is event.tag is None:
                # As _key would; most of a manifest is keys, and a call each is a tenth of a load.
                mark: Any = event.start_mark
                name = names.setdefault(event.value, event.value)
                key = Scalar(name, not event.style, self._file, mark.line + 1, mark.column + 1)
            else:
                key = self._key(event, depth)
            node = self._node(following(), inner)
            if key is None:
                continue
            name = key.text
            if name == "<<" and key.plain:
                if merged is not None:
                    self._findings.fault(key, "<< stands here twice", "write <<: [*one, *two]")
                merged = node
            elif name not in entries or self._is_new(key, entries):
                entries[name] = (key, node)
                size += node.size + 1
        if merged is not None:
            self._merge(merged, entries)
            size = 1 + sum(node.size + 1 for _, node in entries.values())
        return Mapping(entries, size, self._file, *self._position(start))

    def _merge(self, merged: Node, entries: Entries) -> None:
        """Add what `<<` brings: a mapping's own keys win, and earlier sources over later ones."""
        for source in merged.items if isinstance(merged, Sequence) else [merged]:
            if isinstance(source, Mapping):
                for name, entry in source.entries.items():
                    entries.setdefault(name, entry)
            else:
                self._findings.fault(source, f"<< takes a mapping, but this is {kind(source)}")

    def _key(self, event: Any, depth: int) -> Scalar | None:
        node = self._node(event, depth + 1)
        if not isinstance(node, Scalar):
            self._findings.fault(node, f"a key must be a text, but this is {kind(node)}")
            return None
        node.text = self._names.setdefault(node.text, node.text)  # each name once in memory
        return node

    def _is_new(self, key: Scalar, entries: Entries) -> bool:
        if key.text not in entries:
            return True
        first = entries[key.text][0].line
        message = f"the key {shown(key.text)} stands here twice, first in line {first}"
        self._findings.fault(key, message, "keep one of the two")
        return False

    def _alias(self, event: Any) -> Node:
        name = shown(f"*{event.anchor}")
        node = self._anchors.get(event.anchor)
        if node is None:
            raise Unreadable(self._at(event), f"the alias {name} has no finished anchor above it")
        self._expanded += node.size
        if node.size > MAX_ALIAS_NODES or self._expanded > MAX_EXPANDED_NODES:
            raise Unreadable(self._at(event), f"the alias {name} expands to too much (alias bomb)")
        return node

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag not in _CORE_TAGS:
            message = f"the tag {shown(event.tag)} is not allowed in a manifest"
            raise Unreadable(self._at(event), message, "remove it")

    def _position(self, event: Any) -> tuple[int, int]:
        return event.start_mark.line + 1, event.start_mark.column + 1

    def _at(self, event: Any) -> Spot:
        return Spot(self._file, *self._position(event))

    def _syntax_error(self, exc: yaml.MarkedYAMLError) -> Unreadable:
        problem = exc.problem or "cannot be read"
        mark = exc.problem_mark or exc.context_mark
        spot = Spot(self._file, mark.line + 1, mark.column + 1) if mark else Spot(self._file)
        advice = next((advice for part, advice in _SYNTAX_ADVICE if part in problem), None)
        context = f" ({exc.context}" if exc.context else ""
        if context:
            begun = exc.context_mark
            context += f" from line {begun.line + 1})" if begun else ")"
        line = self._line(spot.line, spot.column)
        return Unreadable(spot, f"not valid YAML: {problem}{context}{line}", advice)

    def _line(self, number: int, column: int) -> str:
        lines = re.split(rb"\r\n|\r|\n", self._data, maxsplit=number)
        text = lines[number - 1].decode(errors="replace") if number <= len(lines) else ""
        start = max(0, column - 40)
        return f", in the line {shown(text[start : start + 60].strip())}" if text.strip() else ""
