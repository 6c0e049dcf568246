"""Read one value of a node: a text, a choice, a number, JSON.

Only readers of numbers and JSON apply YAML 1.2's core schema to an unquoted text.
"""

from __future__ import annotations

import math
import re
from typing import Any

from batch.manifest.findings import Findings, meant, shown
from batch.manifest.nodes import Mapping, Node, Scalar, Sequence, is_null, kind

Json = Any
JsonSchema = dict[str, Any]


class ValueFault(ValueError):  # noqa: N818 - it ends as a finding
    """A value is not valid; becomes a fault at its place, with `advice`."""

    def __init__(self, message: str, advice: str | None = None) -> None:
        self.advice = advice
        super().__init__(message)


def text_of(node: Node, name: str) -> str:
    """Return the text of a scalar as written.

    Raises:
        ValueFault: the node is a list or a mapping.
    """
    if not isinstance(node, Scalar):
        advice = "put a text with braces or brackets in quotes"
        raise ValueFault(f"{name} must be a text, but this is {kind(node)}", advice)
    return node.text


def choice(text: str, name: str, choices: tuple[str, ...]) -> str:
    """Return *text* if it is one of *choices*.

    Raises:
        ValueFault: it is not one of them; the advice names the most similar one.
    """
    if text in choices:
        return text
    advice = meant(text, choices)
    raise ValueFault(f"{name} is {shown(text)}; it must be one of {', '.join(choices)}", advice)


# Compiled at the first use, as most jobs have no number.
_INT = r"[-+]?[0-9]+"
_BASED = r"0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_NOT_FINITE = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_MAX_DIGITS = 300


def number(text: str) -> int | float | None:
    """Return a finite number of YAML 1.2's core schema; None if *text* is not one."""
    if len(text) > _MAX_DIGITS:
        return None
    if re.fullmatch(_INT, text):
        return int(text)
    if re.fullmatch(_FLOAT, text):
        value = float(text)
        return value if math.isfinite(value) else None
    return int(text, 0) if re.fullmatch(_BASED, text) else None


def plain_number(value: float) -> int | float:
    """Return a whole number as an int: 1 and 1.0 must give one fingerprint."""
    return int(value) if value == int(value) else value


def to_json(node: Node, findings: Findings) -> Json:
    """Return a node as JSON: plain scalars by YAML 1.2's core schema, quoted ones as text."""
    if isinstance(node, Sequence):
        return [to_json(item, findings) for item in node.items]
    if isinstance(node, Mapping):
        return {name: to_json(value, findings) for name, (_, value) in node.entries.items()}
    if not node.plain:
        return node.text
    if is_null(node):
        return None
    if node.text in _TRUE or node.text in _FALSE:
        return node.text in _TRUE
    value = number(node.text)
    if value is None and re.fullmatch(f"{_FLOAT}|{_NOT_FINITE}", node.text):
        findings.fault(node, f"{shown(node.text)} is not a JSON number", "quote it if it is a text")
    return node.text if value is None else value
