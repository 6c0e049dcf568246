"""Read `output:`, what is kept of the videos and written beside them."""

from __future__ import annotations

from batch.manifest.findings import Findings, shown
from batch.manifest.head import read_section, read_value
from batch.manifest.limits import parse_switch
from batch.manifest.model import Derived
from batch.manifest.nodes import Node, is_null
from batch.manifest.schema import OUTPUT_KEYS, SIDECARS


def read_output(node: Node | None, findings: Findings) -> Derived:
    """Return what `output:` says of the files beside the videos."""
    section = None if node is None else read_section(node, "output", findings)
    sidecars: frozenset[str] = frozenset()
    index: bool | None = None
    for name, (key, value) in section.entries.items() if section else ():
        if name not in OUTPUT_KEYS:
            findings.unknown_key(key, OUTPUT_KEYS, "output")
        elif is_null(value):
            continue
        elif name == "sidecar":
            sidecars = read_value(value, "output.sidecar", _parse_sidecars, findings) or sidecars
        elif name == "index":
            index = read_value(value, "output.index", parse_switch, findings)
    return Derived(sidecars, bool(sidecars) if index is None else index)


def _parse_sidecars(text: str) -> frozenset[str]:
    if text in SIDECARS:
        return SIDECARS[text]
    try:
        return SIDECARS["json"] if parse_switch(text) else frozenset()
    except ValueError:
        raise ValueError(
            f"{shown(text)} must be one of {', '.join(SIDECARS)}, true or false"
        ) from None
