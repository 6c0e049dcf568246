"""Fill the placeholders of an entry with the values of its matrix, and count variants.

Braces are special only in a job with a matrix.
"""

from __future__ import annotations

import re

from batch.manifest.findings import Findings, shown
from batch.manifest.nodes import Entries, Mapping, Node, Place, Scalar, Sequence, quoted
from batch.manifest.schema import JOB_KEYS

_PLACEHOLDER = r"\{\{|\}\}|\{([^{}]*)\}|[{}]"
_FILLED = frozenset(JOB_KEYS) - {"id", "matrix", "count", "from", "camera_control", "extra"}


class Templates:
    """The texts and tags of a job with a matrix, ready to be filled.

    `camera_control` and `extra` stay as they are.
    """

    def __init__(
        self,
        id_: str | None,
        place: Place,
        merged: Entries,
        axes: dict[str, list[str]],
        findings: Findings,
    ) -> None:
        before = findings.fault_count
        self._axes = axes
        self._findings = findings
        self._merged = merged
        self._id = None if id_ is None else self._compiled(id_, place)
        self._texts: dict[str, list[str | int]] = {}
        self._tags: list[tuple[Scalar, list[str | int]]] | None = None
        for name, (_, node) in merged.items():
            if name in _FILLED and isinstance(node, Scalar):
                self._texts[name] = self._compiled(node.text, node)
            elif name == "tags" and isinstance(node, Sequence):
                tags = [item for item in node.items if isinstance(item, Scalar)]
                self._tags = [(tag, self._compiled(tag.text, tag)) for tag in tags]
        self._check_id(place)
        self.are_faulty = findings.fault_count != before

    def fill(self, values: tuple[str, ...]) -> tuple[str | None, Entries]:
        """Return the id, if there is one, and the entries of one combination."""
        filled = dict(self._merged)
        for name, parts in self._texts.items():
            key, node = filled[name]
            assert isinstance(node, Scalar)
            text = _joined(parts, values)
            # A filled value is a text: `~` does not mean "not given" here.
            filled[name] = (key, quoted(text, node))
        if self._tags is not None:
            key, node = filled["tags"]
            items: list[Node] = [quoted(_joined(parts, values), tag) for tag, parts in self._tags]
            filled["tags"] = (key, Sequence(items, node.size, node.file, node.line, node.column))
        return None if self._id is None else _joined(self._id, values), filled

    def _compiled(self, text: str, place: Place) -> list[str | int]:
        """Return *text* as literal parts and numbers of axes."""
        names = list(self._axes)
        parts: list[str | int] = []
        end = 0
        for found in re.finditer(_PLACEHOLDER, text):
            parts.append(text[end : found.start()])
            end = found.end()
            token, name = found.group(), found[1]
            if token in ("{{", "}}"):
                parts.append(token[0])
            elif name in self._axes:
                parts.append(names.index(name))
            else:
                advice = f"axes: {', '.join(names)}; double a brace that is text"
                message = f"{shown(token)} is not an axis of the matrix"
                self._findings.fault(place, message, advice)
        parts.append(text[end:])
        return [part for part in parts if part != ""]

    def _check_id(self, place: Place) -> None:
        for number, (name, values) in enumerate(self._axes.items()):
            if self._id is not None and number not in self._id and len(values) > 1:
                message = f"the id does not use the axis {name}: several jobs would share one id"
                self._findings.fault(place, message, f"add {{{name}}} to the id")


def _joined(parts: list[str | int], values: tuple[str, ...]) -> str:
    return "".join([values[part] if isinstance(part, int) else part for part in parts])


def read_count(node: Node, findings: Findings) -> int | None:
    """Return the number of variants; None after a fault."""
    text = node.text if isinstance(node, Scalar) else ""
    if re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and int(text) > 0:
        return int(text)
    findings.fault(node, f"count is {shown(text)}; it must be a whole number from 1")
    return None


def read_axes(node: Node, findings: Findings) -> dict[str, list[str]] | None:
    """Return the axes of a matrix with their values; None after a fault."""
    if not isinstance(node, Mapping) or not node.entries:
        advice = "for example {animal: [fox, deer]}"
        findings.fault(node, "matrix must be a mapping of axes to lists", advice)
        return None
    before = findings.fault_count
    axes: dict[str, list[str]] = {}
    for name, (key, values) in node.entries.items():
        if not re.fullmatch(r"[^\W\d][\w-]{0,99}", name):
            findings.fault(key, f"{shown(name)} cannot name an axis", "use a word")
        if not isinstance(values, Sequence) or not values.items:
            findings.fault(values, f"the axis {shown(name)} needs a list of values")
            continue
        seen: dict[str, None] = {}
        for value in values.items:
            if not isinstance(value, Scalar):
                findings.fault(value, "a value of a matrix must be a text")
            elif value.text in seen:
                message = f"the axis {shown(name)} has {shown(value.text)} twice"
                findings.fault(value, message, "keep one")
            else:
                seen[value.text] = None
        axes[name] = list(seen)
    return axes if findings.fault_count == before else None
