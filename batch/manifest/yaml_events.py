"""Build nodes with places from the events of a YAML parser.

No YAML loader is used. Loaders decide types (`16:9` becomes 969, `no` becomes false), forget
positions, take the last of two equal keys, and fail on hostile files: the C composer overflows its
stack on deep nesting, and an alias bomb loads at once but takes forever to walk. Here

- a scalar keeps the text as written; the reader of its key decides what it means;
- nesting and the expansion of aliases are counted and bounded as the events arrive;
- the items of one long list are yielded one by one and not kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from batch.manifest.findings import Findings, Unreadable, shown
from batch.manifest.nodes import (
    MAX_DEPTH,
    Entries,
    Items,
    Mapping,
    Node,
    Scalar,
    Sequence,
    Spot,
    kind,
)

MAX_ALIAS_NODES = 10_000  # in one alias
MAX_EXPANDED_NODES = 5_000_000  # in all aliases of a file


# libyaml is about ten times as fast as PyYAML's own parser; both make the same events.
FAST_PARSER: type[Any] | None = getattr(yaml, "CBaseLoader", None)


_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_CORE_TAGS = _TEXT_TAGS | {
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "int", "float", "bool", "null")
}
_SYNTAX_ADVICE = (
    ("mapping values are not allowed", "put a text with ': ' in quotes"),
    ("tab character", "indent with spaces, not tabs"),
    ("cannot start any token", "indent with spaces, not tabs; quote a text that starts with it"),
    ("did not find expected key", "check the indentation and the quotes above"),
    ("escape", r"inside double quotes a backslash is written \\; single quotes need none"),
    ("unexpected end of stream", "a quote or a bracket is not closed"),
)


NO_MAPPING = "a manifest is a mapping: name:, defaults:, jobs: …"
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
# The scanner of a newer libyaml refuses deep nesting itself, before its events arrive. It looks
# ahead by 1,024 characters only, so brackets in a row right before the fault tell such an error.
_OPENED = rf"(?:[\[{{]\s*){{{MAX_DEPTH + 1}}}$"

# A text without quotes in which # begins a word: "A street #5", "Waves #ocean". A comment has a blank.
_CUT = (
    rb"(?m)^[ \t]*(?:-[ \t]+)?(prompt|negative_prompt)[ \t]*:[ \t]+[^\s\"'|>&*!#{\[][^\r\n]*?[ \t]"
    rb"(#\w[^\r\n]*)"
)


def warn_of_cut_texts(data: bytes, file: str, findings: Findings) -> None:
    """Warn of every prompt that YAML cuts at a # in it, since it takes the rest for a comment."""
    for found in re.finditer(_CUT, data) if b" #" in data or b"\t#" in data else ():
        before = data[: found.start(2)]
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        at = Spot(file, before.count(b"\n") + 1, column)
        name, rest = found[1].decode(), shown(found[2].decode())
        findings.warn(
            at, f"{name} ends before {rest}, which YAML takes for a comment", "put it in quotes"
        )


class YamlReader:
    """Reads one YAML document whose root is a mapping.

    Args:
        data: the content, already checked to be text.
        file: its name in messages.
        findings: receives duplicate keys and keys that are not texts.
    """

    def __init__(self, data: bytes, file: str, findings: Findings) -> None:
        self._data = data
        self._file = file
        self._findings = findings
        loader: type[Any] = FAST_PARSER or yaml.BaseLoader
        with self._syntax_errors():
            self._next: Callable[[], Any] = loader(io.BytesIO(data)).get_event
        self._anchors: dict[str, Node] = {}
        self._expanded = 0
        self._names: dict[str, str] = {}

    def root(self, stream: str) -> Iterator[tuple[Scalar, Node | Items]]:
        """Yield the root's keys and values; the list under the key *stream* as `Items`.

        Raises:
            Unreadable: a syntax error, a bound, a second document, or a root that is not a mapping.
        """
        with self._syntax_errors():
            yield from self._document(stream)

    def _document(self, stream: str) -> Iterator[tuple[Scalar, Node | Items]]:
        self._next()  # the stream's start
        if type(self._next()) is yaml.StreamEndEvent:
            raise Unreadable(Spot(self._file), "the file is empty")
        start = self._next()
        if type(start) is not yaml.MappingStartEvent:
            raise Unreadable(self._at(start), NO_MAPPING)
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
                    pass  # skip items that the caller left unread
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
            raise Unreadable(self._at(event), TOO_DEEP)
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
        following, inner, file = self._next, depth + 1, self._file
        node: Node
        while type(event := following()) is not yaml.SequenceEndEvent:
            if type(event) is yaml.ScalarEvent and event.anchor is event.tag is None:
                mark: Any = event.start_mark  # as in _mapping
                line, column = mark.line + 1, mark.column + 1
                node = Scalar(event.value, not event.style, file, line, column)
            else:
                node = self._node(event, inner)
            size += node.size
            items.append(node)
        return Sequence(items, size, self._file, *self._position(start))

    def _mapping(self, start: Any, depth: int) -> Mapping:
        entries: Entries = {}
        merged: Node | None = None
        key: Scalar | None
        size = 1
        following, names, inner, file = self._next, self._names, depth + 1, self._file
        node: Node
        while type(event := following()) is not yaml.MappingEndEvent:
            if type(event) is yaml.ScalarEvent and event.anchor is event.tag is None:
                # As _key would; most of a manifest is keys, and a call each is a tenth of a load.
                mark: Any = event.start_mark
                name = names.setdefault(event.value, event.value)
                key = Scalar(name, not event.style, file, mark.line + 1, mark.column + 1)
            else:
                key = self._key(event, depth)
            event = following()
            if type(event) is yaml.ScalarEvent and event.anchor is event.tag is None:
                mark = event.start_mark  # as _node would, for the same reason
                line, column = mark.line + 1, mark.column + 1
                node = Scalar(event.value, not event.style, file, line, column)
            else:
                node = self._node(event, inner)
            if key is None:
                continue
            name = key.text
            if name == "<<" and key.plain:
                if merged is not None:
                    self._findings.fault(key, "duplicate <<", "write <<: [*one, *two]")
                merged = node
            elif name not in entries or self._is_new(key, entries):
                entries[name] = (key, node)
                size += node.size + 1
        if merged is not None:
            self._merge(merged, entries)
            size = 1 + sum(node.size + 1 for _, node in entries.values())
        return Mapping(entries, size, self._file, *self._position(start))

    def _merge(self, merged: Node, entries: Entries) -> None:
        """Add the keys of `<<`: a mapping's own keys win, then earlier sources."""
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
        name = self._names.setdefault(node.text, node.text)  # each name once in memory
        return Scalar(name, node.plain, node.file, node.line, node.column)

    def _is_new(self, key: Scalar, entries: Entries) -> bool:
        if key.text not in entries:
            return True
        first = entries[key.text][0].line
        message = f"duplicate key {shown(key.text)}, first in line {first}"
        self._findings.fault(key, message, "keep one of the two")
        return False

    def _alias(self, event: Any) -> Node:
        name = shown(f"*{event.anchor}")
        node = self._anchors.get(event.anchor)
        if node is None:
            raise Unreadable(self._at(event), f"the alias {name} has no complete anchor above it")
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
        if re.search(_OPENED, self._text(spot.line)[: spot.column - 1][-1024:]):
            return Unreadable(spot, NO_MAPPING if self._data.startswith(b"[") else TOO_DEEP)
        advice = next((advice for part, advice in _SYNTAX_ADVICE if part in problem), None)
        context = f" ({exc.context}" if exc.context else ""
        if context:
            begun = exc.context_mark
            context += f" from line {begun.line + 1})" if begun else ")"
        line = self._line(spot.line, spot.column)
        return Unreadable(spot, f"not valid YAML: {problem}{context}{line}", advice)

    def _line(self, number: int, column: int) -> str:
        start = max(0, column - 40)
        text = self._text(number)[start : start + 60].strip()
        return f", in the line {shown(text)}" if text else ""

    def _text(self, number: int) -> str:
        lines = re.split(rb"\r\n|\r|\n", self._data, maxsplit=number)
        return lines[number - 1].decode(errors="replace") if number <= len(lines) else ""
