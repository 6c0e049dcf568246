"""Read `notify:`, who is told of a run. An address is a secret, and no message shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from batch.addresses import is_address
from batch.key import Secret
from batch.manifest.cells import is_broken
from batch.manifest.findings import Findings, shown
from batch.manifest.head import given_in, read_section, read_value
from batch.manifest.limits import positive_duration
from batch.manifest.model import Notify, Pings
from batch.manifest.nodes import Mapping, Node, Scalar, Sequence, kind
from batch.manifest.schema import NOTIFY_KEYS, NOTIFY_ON, PING_KEYS

ENVIRONMENT = "env:"  # in front of the name of a variable that holds the address
_VARIABLE = rf"{ENVIRONMENT}[A-Za-z_][A-Za-z0-9_]*"


def read_notify(node: Node | None, findings: Findings) -> Notify:
    """Return `notify:`; without it, or after a fault, nobody is told."""
    section = None if node is None else read_section(node, "notify", findings)
    values: dict[str, Any] = {}
    for name, value in given_in(section, NOTIFY_KEYS, "notify", findings):
        field, read = _READERS[name]
        found = read(value, f"notify.{name}", findings)
        if found is not None:
            values[field] = found
    return Notify(**values)


def _read_address(node: Node, name: str, findings: Findings) -> Secret | None:
    example = "for example env:STUDIO_HOOK, a variable that holds it"
    if not isinstance(node, Scalar):
        findings.fault(node, f"{name} must be an address, but this is {kind(node)}", example)
    elif is_address(node.text):
        message = f"{name} is a secret, and the manifest may be shared"
        findings.warn(node, message, f"put it into a variable: {name.rpartition('.')[2]}: env:NAME")
        return Secret(node.text)
    elif re.fullmatch(_VARIABLE, node.text):
        return Secret(node.text)
    else:
        findings.fault(
            node, f"{name} is not a valid address (not shown: it may be secret)", example
        )
    return None


def _read_pings(node: Node, name: str, findings: Findings) -> Pings | None:
    if not isinstance(node, Mapping):
        url = _read_address(node, name, findings)
        return None if url is None else Pings(url)
    pings = {}
    for part, value in given_in(node, PING_KEYS, name, findings):
        url = _read_address(value, f"{name}.{part}", findings)
        if url is not None:
            pings[part] = url
    return Pings(**pings)


def _read_command(node: Node, name: str, findings: Findings) -> tuple[str, ...] | None:
    advice = "no shell reads it; for example [./tell.sh, ops]"
    if not isinstance(node, Sequence):
        findings.fault(node, f"{name} must be a list, but this is {kind(node)}", advice)
        return None
    words = [item.text for item in node.items if isinstance(item, Scalar)]
    is_good = len(words) == len(node.items) and bool(words) and bool(words[0].strip())
    if is_good and not any(is_broken(word) or "\0" in word for word in words):
        return tuple(words)
    findings.fault(node, f"{name} must be a program and its arguments, all of them texts", advice)
    return None


def _read_timeout(node: Node, name: str, findings: Findings) -> float | None:
    seconds: float | None = read_value(node, name, positive_duration, findings)
    return seconds


def _read_on(node: Node, name: str, findings: Findings) -> str | None:
    def parse(text: str) -> str:
        if text not in NOTIFY_ON:
            raise ValueError(f"{shown(text)} must be one of {', '.join(NOTIFY_ON)}")
        return text

    chosen: str | None = read_value(node, name, parse, findings)
    return chosen


_READERS: dict[str, tuple[str, Callable[[Node, str, Findings], Any]]] = {
    "on": ("on", _read_on),
    "command": ("command", _read_command),
    "webhook": ("webhook", _read_address),
    "ping": ("pings", _read_pings),
    "timeout": ("timeout_s", _read_timeout),
}
