"""Read the sections beside the jobs: limits, callback, base_url, prices.

Each reader records faults at their places and returns what is valid.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batch.addresses import is_address
from batch.manifest.cells import is_broken
from batch.manifest.findings import Findings, shown
from batch.manifest.limits import DEFAULT_LIMITS, KLING_PROMPT_CHARS, LIMIT_KEYS, Limits
from batch.manifest.model import Callback
from batch.manifest.nodes import Items, Mapping, Node, Scalar, is_null, kind
from batch.manifest.schema import CALLBACK_KEYS
from batch.manifest.texts import read_path
from batch.prices import ANY_MODE, PRICED_MODES, Overrides, Tariff, parse_money, parse_tariff


def read_section(node: Node | Items, name: str, findings: Findings) -> Mapping | None:
    """Return a section with keys; None if it is empty, or after a fault."""
    if isinstance(node, Mapping):
        return node
    if not is_null(node):
        findings.fault(node, f"{name} must be a mapping, but this is {kind(node)}")
    return None


def given_in(
    section: Mapping | None, keys: Collection[str], where: str, findings: Findings
) -> Iterator[tuple[str, Node]]:
    """Yield the keys that a section gives a value, with it; an unknown one is a fault."""
    for name, (key, value) in section.entries.items() if section else ():
        if name not in keys:
            findings.unknown_key(key, keys, where)
        elif not is_null(value):
            yield name, value


def read_line(node: Node | None, name: str, findings: Findings) -> str | None:
    """Return a one-line text; None if it is not given, or after a fault."""
    if node is None:
        return None
    if isinstance(node, Scalar) and is_broken(node.text):
        findings.fault(node, f"{name} is {shown(node.text)}, an error of a spreadsheet")
        return None
    if isinstance(node, Scalar) and node.text.strip() and node.text.isprintable():
        return node.text
    findings.fault(node, f"{name} must be a text on one line")
    return None


def read_output_dir(node: Node | None, findings: Findings) -> Path | None:
    """Return the output folder; None if it is not given, or after a fault."""
    if node is None or read_line(node, "output_dir", findings) is None:
        return None
    return read_path(node, "output_dir", findings)


def read_limits(node: Node | Items, findings: Findings) -> Limits:
    """Read `limits:`, laid over the defaults."""
    values: dict[str, Any] = {}
    section = read_section(node, "limits", findings)
    for name, value in given_in(section, LIMIT_KEYS, "limits", findings):
        known = LIMIT_KEYS[name]
        parsed = read_value(value, f"limits.{name}", known.parse, findings)
        if parsed is not None:
            values[known.field] = parsed
        if name.endswith("_chars") and (parsed or 0) > KLING_PROMPT_CHARS:
            message = f"{name} is {parsed}; newer Kling takes {KLING_PROMPT_CHARS}"
            findings.warn(value, message)
    if section is not None:
        _check_budgets(section, values, findings)
    return DEFAULT_LIMITS.with_given(**values)


def _check_budgets(section: Mapping, values: dict[str, Any], findings: Findings) -> None:
    """Warn of a budget that never counts, since that of a longer time is lower."""
    budgets = ("budget", "budget_per_day", "budget_per_month")
    given = [(name, usd) for name in budgets if (usd := values.get(f"{name}_usd")) is not None]
    for (name, usd), (longer, most) in itertools.pairwise(given):
        if usd > most:
            message = f"{name} (${usd:.2f}) is above {longer} (${most:.2f}), which ends a run first"
            findings.warn(section.entries[name][1], message)


def read_callback(node: Node | None, findings: Findings) -> Callback | None:
    """Read `callback:`, the receiver; None if it is not given."""
    section = None if node is None else read_section(node, "callback", findings)
    if section is None:
        return None
    values: dict[str, str] = {}
    for name, value in given_in(section, CALLBACK_KEYS, "callback", findings):
        parse = _parse_url if name == "url" else _parse_listen
        parsed = read_value(value, f"callback.{name}", parse, findings)
        if parsed is not None:
            values[name] = parsed
    return Callback(**values)


def read_base_url(node: Node | None, findings: Findings) -> str | None:
    """Return the API's address without a final slash; plain HTTP is for this machine only."""
    if node is None:
        return None
    url: str | None = read_value(node, "base_url", _parse_url, findings)
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.query:
        findings.fault(node, "base_url has a query", "remove the ? and what follows")
    host = parts.hostname or ""
    is_local = host in ("localhost", "::1") or host.startswith("127.")
    if parts.scheme == "http" and not is_local:
        message = "base_url would send the API key unencrypted"
        findings.fault(node, message, "use https://; http:// is for this machine only")
    return url.rstrip("/")


def read_value(node: Node, name: str, parse: Callable[[str], Any], findings: Findings) -> Any:
    """Return what *parse* makes of a text; None after a fault."""
    if not isinstance(node, Scalar):
        findings.fault(node, f"{name} must be one value, but this is {kind(node)}")
        return None
    try:
        return parse(node.text)
    except ValueError as exc:
        findings.fault(node, f"{name}: {exc}")
        return None


def _parse_url(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{shown(text)} is not a valid address; for example https://host/path")
    parts = urlsplit(text)
    if parts.username or parts.password:
        raise ValueError("an address must not contain a name or a password")
    if parts.fragment:
        raise ValueError("an address must not have a fragment (#…)")
    return text


def _parse_listen(text: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[2]) > 65_535:
        raise ValueError(f"{shown(text)} is not a valid HOST:PORT; for example 127.0.0.1:8090")
    return text


def read_prices(node: Node | None, findings: Findings) -> Overrides:
    """Read `prices:`, in the forms described in `batch.prices`."""
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        findings.fault(node, f"prices must be a mapping of models, but this is {kind(node)}")
        return {}
    prices: dict[str, dict[str, Tariff]] = {}
    for model, (_, modes) in node.entries.items():
        if not isinstance(modes, Mapping):
            tariff = read_value(modes, f"prices.{model}", parse_tariff, findings)
            prices[model] = {ANY_MODE: tariff} if tariff else {}
            continue
        prices[model] = {}
        for mode, (key, value) in modes.entries.items():
            if mode not in PRICED_MODES:
                findings.unknown_key(key, PRICED_MODES, f"prices.{model}")
            elif tariff := _tariff(value, f"prices.{model}.{mode}", findings):
                prices[model][mode] = tariff
    return prices


def _tariff(node: Node, name: str, findings: Findings) -> Tariff | None:
    if not isinstance(node, Mapping):
        tariff: Tariff | None = read_value(node, name, parse_tariff, findings)
        return tariff
    clips = []
    for seconds, (key, value) in node.entries.items():
        usd = read_value(value, f"{name}.{seconds}", parse_money, findings)
        if not re.fullmatch(r"[1-9][0-9]?", seconds, re.ASCII):
            findings.fault(key, f"{shown(seconds)} is not a duration in whole seconds")
        elif usd is not None:
            clips.append((int(seconds), usd))
    return Tariff(clips=tuple(clips)) if clips else None
