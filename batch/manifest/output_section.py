"""Read `output:`: what is kept of the videos, written beside them, and uploaded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from batch.manifest.findings import Findings, shown
from batch.manifest.head import given_in, read_section, read_value
from batch.manifest.limits import parse_switch, positive_duration
from batch.manifest.model import Derived, Keep
from batch.manifest.nodes import Mapping, Node, Scalar, is_null
from batch.manifest.schema import LOCAL, OUTPUT_KEYS, SIDECARS
from batch.target import Target, parse_target


def read_output(node: Node | None, findings: Findings) -> Derived:
    """Return what `output:` says of the files beside the videos."""
    section = None if node is None else read_section(node, "output", findings)
    sidecars: frozenset[str] = frozenset()
    index: bool | None = None
    for name, value in given_in(section, OUTPUT_KEYS, "output", findings):
        if name == "sidecar":
            sidecars = read_value(value, "output.sidecar", _parse_sidecars, findings) or sidecars
        elif name == "index":
            index = read_value(value, "output.index", parse_switch, findings)
    return Derived(sidecars, bool(sidecars) if index is None else index)


def read_keep(node: Node | None, findings: Findings) -> Keep:
    """Return which former versions `output:` has `prune` keep."""
    return Keep(**_values(node, _KEEP, findings))


def read_target(node: Node | None, findings: Findings) -> Target | None:
    """Return the bucket that `output:` has videos uploaded to; None if it names none."""
    values = _values(node, _TARGET, findings)
    if "url" in values:
        return Target(**values)
    if values and isinstance(node, Mapping):
        first = next(key for name in _TARGET for key, value in _given(node, name))
        findings.warn(first, "local and verify_every are of no use without output.target")
    return None


def _given(node: Node | None, name: str) -> Iterator[tuple[Scalar, Node]]:
    """Yield the key *name* of the section with its value, if it is given one."""
    if isinstance(node, Mapping) and name in node.entries and not is_null(node.entries[name][1]):
        yield node.entries[name]


def _values(
    node: Node | None, table: dict[str, tuple[Callable[[str], Any], str]], findings: Findings
) -> dict[str, Any]:
    """Return what the keys of *table* are set to, by their fields."""
    found = {
        field: read_value(value, f"output.{name}", parse, findings)
        for name, (parse, field) in table.items()
        for _key, value in _given(node, name)
    }
    return {field: value for field, value in found.items() if value is not None}


def _parse_local(text: str) -> bool:
    if text not in LOCAL:
        raise ValueError(f"{shown(text)} must be one of {', '.join(LOCAL)}")
    return text == "remove"


_TARGET: dict[str, tuple[Callable[[str], Any], str]] = {
    "target": (parse_target, "url"),
    "local": (_parse_local, "removes"),
    "verify_every": (positive_duration, "verify_every_s"),
}


def _parse_versions(text: str) -> float:
    if text == "all":
        return math.inf
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text, re.ASCII):
        raise ValueError(f"{shown(text)} must be all, or a whole number from 1")
    return int(text)


_KEEP: dict[str, tuple[Callable[[str], Any], str]] = {
    "keep_versions": (_parse_versions, "versions"),
    "keep_within": (positive_duration, "within_s"),
}


def _parse_sidecars(text: str) -> frozenset[str]:
    if text in SIDECARS:
        return SIDECARS[text]
    try:
        return SIDECARS["json"] if parse_switch(text) else frozenset()
    except ValueError:
        raise ValueError(
            f"{shown(text)} must be one of {', '.join(SIDECARS)}, true or false"
        ) from None
